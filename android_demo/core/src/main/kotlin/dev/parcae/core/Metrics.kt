package dev.parcae.core

/**
 * What one answer took. Times are in seconds; the time to the first token counts the prompt, decoding does not.
 *
 * [loops] has the loops of each token: the first one's are those of the prompt's last piece.
 */
data class Metrics(
    val promptTokens: Int,
    val tokens: Int,
    val firstTokenSeconds: Double,
    val decodeSeconds: Double,
    val loops: List<Int>,
) {
    /** Prompt tokens in a second; 0 before the first token. */
    val promptRate: Double get() = rate(promptTokens.toDouble(), firstTokenSeconds)

    /** Tokens in a second after the first one; 0 while there is one only. */
    val tokenRate: Double get() = rate(tokens - 1.0, decodeSeconds)

    /** Loops in a second while decoding. */
    val loopRate: Double get() = rate(loops.drop(1).sum().toDouble(), decodeSeconds)

    /** Mean loops of a token; 0 before the first one. */
    val meanLoops: Double get() = if (loops.isEmpty()) 0.0 else loops.average()

    private fun rate(count: Double, seconds: Double) = if (count > 0 && seconds > 0) count / seconds else 0.0
}
