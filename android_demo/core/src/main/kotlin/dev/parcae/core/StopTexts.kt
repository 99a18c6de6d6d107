package dev.parcae.core

/**
 * Where an answer ends: texts that stop it, wherever the pieces that it arrives in happen to be cut.
 *
 * It ends with the first character that completes a stop; if several are completed by it, the longest counts. What is shown ends
 * before the stop's first character.
 */
class StopTexts(stops: List<String>) {
    private val ordered = stops.sortedByDescending { it.length }
    private val longest = ordered.firstOrNull()?.length ?: 1
    private var held = ""

    /** The stop that ended the answer, null while none did. */
    var found: String? = null
        private set

    init {
        if (stops.any { it.isEmpty() }) throw Failure(Kind.SETTING, "Give stop texts of at least one character.")
    }

    /** What of the text so far can be shown and was not. After a stop: nothing. */
    fun feed(piece: String): String {
        val shown = StringBuilder()
        var place = 0
        while (place < piece.length && found == null) {
            val size = Character.charCount(piece.codePointAt(place))
            held += piece.substring(place, place + size)
            place += size
            found = ordered.firstOrNull { held.endsWith(it) }
            val kept = found?.length ?: keptLength()
            shown.append(held, 0, held.length - kept)
            held = if (found != null) "" else held.substring(held.length - kept)
        }
        return shown.toString()
    }

    /** What was held back when the answer ended otherwise. */
    fun finish(): String = held.also { held = "" }

    /** Characters at the end of the held text that begin a stop. */
    private fun keptLength(): Int {
        for (length in minOf(held.length, longest - 1) downTo 1) {
            val end = held.substring(held.length - length)
            if (ordered.any { it.startsWith(end) }) return length
        }
        return 0
    }
}
