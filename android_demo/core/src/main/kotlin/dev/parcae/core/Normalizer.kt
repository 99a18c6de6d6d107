package dev.parcae.core

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.text.Normalizer as UnicodeNormalizer

/** What a text goes through before it is cut into words. */
internal class Normalizer private constructor(private val steps: List<(String) -> String>) {
    fun apply(text: String): String = steps.fold(text) { value, step -> step(value) }

    companion object {
        fun of(part: JsonElement?) = Normalizer(sequence(part, "normalizers").map { step(it) })

        private fun step(part: JsonObject): (String) -> String {
            val fields = Fields(part, "normalizer", Kind.TOKENIZER)
            return when (val type = typeOf(part)) {
                "NFC" -> form(UnicodeNormalizer.Form.NFC)
                "NFD" -> form(UnicodeNormalizer.Form.NFD)
                "NFKC" -> form(UnicodeNormalizer.Form.NFKC)
                "NFKD" -> form(UnicodeNormalizer.Form.NFKD)
                "Prepend" -> fields.text("prepend").let { first -> { text -> if (text.isEmpty()) text else first + text } }
                "Replace" -> plainPattern(part).let { old -> fields.text("content").let { new -> { text -> text.replace(old, new) } } }
                else -> unknownPart("the normalizer $type")
            }
        }

        private fun form(form: UnicodeNormalizer.Form): (String) -> String = { UnicodeNormalizer.normalize(it, form) }
    }
}

/** The text that a `Replace` looks for. */
internal fun plainPattern(part: JsonObject): String =
    ((part["pattern"] as? JsonObject)?.get("String") as? JsonPrimitive)?.content ?: unknownPart("a Replace by a regular expression")
