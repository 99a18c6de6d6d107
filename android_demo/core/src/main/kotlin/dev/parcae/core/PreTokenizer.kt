package dev.parcae.core

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/** White space as tokenizers mean it, Unicode's White_Space, for use inside of a character class. */
private const val SPACE = "\\u0009-\\u000D\\u0020\\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000"
private const val GPT_2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** Cuts a text into words. Regular expressions of Java and of Android differ in `\s`, so it is spelled out. */
internal class PreTokenizer private constructor(private val steps: List<(String) -> List<String>>) {
    fun words(text: String): List<String> =
        steps.fold(if (text.isEmpty()) emptyList() else listOf(text)) { words, step -> words.flatMap(step) }

    companion object {
        fun of(part: JsonElement?) = PreTokenizer(sequence(part, "pretokenizers").map { step(it) })

        private fun step(part: JsonObject): (String) -> List<String> {
            val fields = Fields(part, "pre_tokenizer", Kind.TOKENIZER)
            return when (val type = typeOf(part)) {
                "ByteLevel" -> {
                    byteLevel(fields.flag("add_prefix_space"), !fields.has("use_regex") || fields.flag("use_regex"))
                }

                "Split" -> {
                    fields.text("behavior", setOf("Isolated"))
                    if (fields.flag("invert")) unknownPart("an inverted Split")
                    val pattern = compiled((fields.part("pattern").values["Regex"] as? JsonPrimitive)?.content ?: unknownPart("a Split by a text"))
                    return { isolated(pattern, it) }
                }

                "Digits" -> {
                    digits(fields.flag("individual_digits"))
                }

                else -> {
                    unknownPart("the pre-tokenizer $type")
                }
            }
        }

        private fun byteLevel(prefix: Boolean, split: Boolean): (String) -> List<String> {
            val pattern = compiled(GPT_2)
            return { text ->
                val whole = if (prefix && !text.startsWith(" ")) " $text" else text
                (if (split) isolated(pattern, whole) else listOf(whole)).map { ByteAlphabet.write(it) }
            }
        }

        private fun digits(single: Boolean): (String) -> List<String> {
            val pattern = if (single) Regex("\\p{N}") else Regex("\\p{N}+")
            return { isolated(pattern, it) }
        }

        /** The matches of a pattern and what lies between them, in order. */
        private fun isolated(pattern: Regex, text: String): List<String> {
            val words = ArrayList<String>()
            var end = 0
            for (match in pattern.findAll(text)) {
                if (match.range.first > end) words.add(text.substring(end, match.range.first))
                if (match.value.isNotEmpty()) words.add(match.value)
                end = match.range.last + 1
            }
            if (end < text.length) words.add(text.substring(end))
            return words
        }

        /** A pattern of Oniguruma with `\s` and `\S` spelled out. */
        private fun compiled(pattern: String): Regex {
            val spelled = StringBuilder()
            var inClass = false
            var place = 0
            while (place < pattern.length) {
                val size = if (pattern[place] == '\\') 2 else 1
                val escape = pattern.substring(place, minOf(place + size, pattern.length))
                if (escape == "[") inClass = true
                if (escape == "]") inClass = false
                when {
                    escape == "\\s" && inClass -> spelled.append(SPACE)
                    escape == "\\s" -> spelled.append("[").append(SPACE).append("]")
                    escape == "\\S" && inClass -> unknownPart("a regular expression with \\S in a class")
                    escape == "\\S" -> spelled.append("[^").append(SPACE).append("]")
                    else -> spelled.append(escape)
                }
                place += escape.length
            }
            return Regex(spelled.toString().replace("(?i:", "(?iu:"))
        }
    }
}

/** GPT-2's characters for bytes: itself where it is printable, otherwise the next one from U+0100. */
internal object ByteAlphabet {
    private val characters: CharArray
    private val bytes = HashMap<Char, Int>()

    init {
        val printable = ('!'..'~') + ('\u00A1'..'\u00AC') + ('\u00AE'..'\u00FF')
        var next = 0
        characters = CharArray(256) { if (it.toChar() in printable) it.toChar() else (256 + next++).toChar() }
        characters.forEachIndexed { byte, character -> bytes[character] = byte }
    }

    fun write(text: String): String {
        val utf8 = text.toByteArray(Charsets.UTF_8)
        return String(CharArray(utf8.size) { characters[utf8[it].toInt() and 0xFF] })
    }

    /** The bytes of a token; those of its own UTF-8 if a character is none of the alphabet. */
    fun read(token: String): ByteArray {
        if (token.any { it !in bytes }) return token.toByteArray(Charsets.UTF_8)
        return ByteArray(token.length) { bytes.getValue(token[it]).toByte() }
    }
}
