package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull
import java.io.File
import java.io.IOException

/**
 * A byte pair tokenizer of a `tokenizer.json`: text to ids and back, as the tokenizers library of Hugging Face does it.
 *
 * [Tokenizer.read] throws a [Failure] of kind TOKENIZER for a part that is not known here, by its name.
 */
class Tokenizer private constructor(
    private val added: AddedTokens,
    private val normalizer: Normalizer,
    private val preTokenizer: PreTokenizer,
    private val pairs: BytePairs,
    private val decoder: TokenDecoder,
    private val tokens: Map<Int, String>,
) {
    /** Ids of a text, without a first token. A lone half of a surrogate pair is read as U+FFFD. */
    fun encode(text: String): IntArray {
        val ids = ArrayList<Int>()
        for (part in added.split(wellFormed(text))) {
            if (part.id != null) {
                ids.add(part.id)
            } else {
                for (word in preTokenizer.words(normalizer.apply(part.text))) pairs.encode(word, ids)
            }
        }
        return ids.toIntArray()
    }

    /** The text of ids, special tokens left out. */
    fun decode(ids: List<Int>): String = decoder.decode(ids.filter { it !in added.special }.mapNotNull { tokens[it] })

    companion object {
        /** Read a file of the format of `tokenizer.json`. */
        fun read(file: File): Tokenizer {
            val text = try {
                file.readText()
            } catch (error: IOException) {
                throw Failure(Kind.TOKENIZER, "${file.name} cannot be read (${error.message}); copy the model again.", cause = error)
            }
            return parse(text, file.name)
        }

        /** Read the text of a `tokenizer.json`; [name] is how failures call it. */
        fun parse(text: String, name: String = "tokenizer.json"): Tokenizer {
            val root = parseJson(text) as? JsonObject
                ?: throw Failure(Kind.TOKENIZER, "$name is no JSON object; copy the model again.", name)
            return build(Fields(root, name, Kind.TOKENIZER))
        }

        private fun build(fields: Fields): Tokenizer {
            val model = fields.part("model")
            model.text("type", setOf("BPE"))
            val vocabulary = HashMap<String, Int>()
            for (token in model.part("vocab").values.keys) vocabulary[token] = model.part("vocab").count(token)
            val normalizer = Normalizer.of(fields.values["normalizer"])
            val added = AddedTokens.of(fields, normalizer)
            val known = vocabulary.entries.associate { (token, id) -> id to token } + added.contents
            return Tokenizer(
                added = added,
                normalizer = normalizer,
                preTokenizer = PreTokenizer.of(fields.values["pre_tokenizer"]),
                pairs = BytePairs.of(model, vocabulary),
                decoder = TokenDecoder.of(fields.values["decoder"]),
                tokens = known,
            )
        }
    }
}

/** The text with each lone half of a surrogate pair replaced by U+FFFD. */
fun wellFormed(text: String): String {
    if (text.none { it.isSurrogate() }) return text
    val whole = StringBuilder(text.length)
    var place = 0
    while (place < text.length) {
        val point = text.codePointAt(place)
        if (point in 0xD800..0xDFFF) whole.append('\uFFFD') else whole.appendCodePoint(point)
        place += Character.charCount(point)
    }
    return whole.toString()
}

/** A refusal of a part of a tokenizer that is not known here. */
internal fun unknownPart(what: String): Nothing =
    throw Failure(Kind.TOKENIZER, "This model's tokenizer has $what, which this app does not know; update the app.", what)

internal fun typeOf(part: JsonObject): String = (part["type"] as? JsonPrimitive)?.contentOrNull ?: unknownPart("a part without a type")

/** The parts of a `Sequence`, or the part itself; nothing for null. */
internal fun sequence(part: Any?, list: String): List<JsonObject> {
    val single = part as? JsonObject ?: return emptyList()
    if (typeOf(single) != "Sequence") return listOf(single)
    return (single[list] as? JsonArray)?.map { it as? JsonObject ?: unknownPart("a damaged $list") } ?: unknownPart("no $list")
}
