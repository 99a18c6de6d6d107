package dev.parcae.core

import kotlinx.serialization.json.JsonObject

/** A piece of text, or an added token that was found in it. */
internal class TextPart(val text: String, val id: Int?)

/** Tokens that are looked for in the text before anything else: the longest at the leftmost place. */
internal class AddedTokens private constructor(private val tokens: List<Token>) {
    private class Token(
        val id: Int,
        val content: String,
        val wholeWord: Boolean,
        val stripLeft: Boolean,
        val stripRight: Boolean,
        val special: Boolean,
    )

    private val byFirst = tokens.filter { it.content.isNotEmpty() }
        .groupBy { it.content[0] }
        .mapValues { (_, group) -> group.sortedByDescending { it.content.length } }

    /** Ids that are left out of decoded text. */
    val special: Set<Int> = tokens.filter { it.special }.map { it.id }.toSet()

    /** Their texts by id. */
    val contents: Map<Int, String> = tokens.associate { it.id to it.content }

    fun split(text: String): List<TextPart> {
        val parts = ArrayList<TextPart>()
        var start = 0
        var place = 0
        while (place < text.length) {
            val found = byFirst[text[place]]?.firstOrNull { text.startsWith(it.content, place) }
            if (found == null) {
                place++
                continue
            }
            var from = place
            var to = place + found.content.length
            place = to
            if (found.wholeWord && (isWord(text, from, before = true) || isWord(text, to, before = false))) continue
            if (found.stripLeft) while (from > start && isSpace(text[from - 1])) from--
            if (found.stripRight) while (to < text.length && isSpace(text[to])) to++
            if (from > start) parts.add(TextPart(text.substring(start, from), null))
            parts.add(TextPart(found.content, found.id))
            start = to
            place = maxOf(place, to)
        }
        if (start < text.length) parts.add(TextPart(text.substring(start), null))
        return parts
    }

    private fun isWord(text: String, place: Int, before: Boolean): Boolean {
        if (if (before) place == 0 else place == text.length) return false
        val point = if (before) text.codePointBefore(place) else text.codePointAt(place)
        val type = Character.getType(point).toByte()
        return Character.isLetterOrDigit(point) || type in WORD_TYPES
    }

    companion object {
        private val WORD_TYPES = setOf(
            Character.NON_SPACING_MARK, Character.ENCLOSING_MARK, Character.COMBINING_SPACING_MARK,
            Character.CONNECTOR_PUNCTUATION, Character.LETTER_NUMBER,
        )

        fun of(fields: Fields, normalizer: Normalizer) = AddedTokens(
            fields.list("added_tokens").map { part ->
                val token = Fields(part as? JsonObject ?: unknownPart("damaged added tokens"), "added_tokens", Kind.TOKENIZER)
                val content = token.text("content")
                if (token.flag("normalized") && normalizer.apply(content) != content) unknownPart("the normalized added token $content")
                Token(
                    token.count("id"), content, token.flag("single_word"),
                    token.flag("lstrip"), token.flag("rstrip"), token.flag("special"),
                )
            },
        )
    }
}

/** Whether a character is of Unicode's White_Space. All of them are in the basic plane. */
internal fun isSpace(character: Char): Boolean =
    character in '\u0009'..'\u000D' || character == '\u0085' || character.category in SPACES

private val SPACES = setOf(CharCategory.SPACE_SEPARATOR, CharCategory.LINE_SEPARATOR, CharCategory.PARAGRAPH_SEPARATOR)
