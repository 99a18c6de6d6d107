package dev.parcae.core

private const val BROKEN = '\uFFFD'

/**
 * Decodes ids one by one into text that never ends inside of a character.
 *
 * Together the pieces are what [Tokenizer.decode] gives for all ids, without the U+FFFD at its end: half a character is not shown.
 */
class TextStream(private val tokenizer: Tokenizer) {
    private val all = ArrayList<Int>()
    private var window = ArrayList<Int>()
    private var prefix = ""
    private var prefixEnd = 0
    private var shown = 0

    /** The text that this token completes; empty while a character is incomplete. */
    fun feed(token: Int): String {
        all.add(token)
        if (prefix.isEmpty() && window.isNotEmpty()) {
            val text = tokenizer.decode(window)
            if (!text.endsWith(BROKEN)) {
                prefix = text
                prefixEnd = window.size
            }
        }
        window.add(token)
        val text = tokenizer.decode(window)
        if (text.length <= prefix.length || text.endsWith(BROKEN)) return ""
        val piece = text.substring(prefix.length)
        val kept = window.size - prefixEnd
        window = ArrayList(window.subList(prefixEnd, window.size))
        prefix = tokenizer.decode(window)
        prefixEnd = kept
        shown += piece.length
        return piece
    }

    /** The rest of the text of all ids, without what is left of a character that never became whole. */
    fun finish(): String = tokenizer.decode(all).drop(shown).trimEnd(BROKEN)
}
