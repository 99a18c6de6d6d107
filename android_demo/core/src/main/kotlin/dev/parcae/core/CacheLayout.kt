package dev.parcae.core

/** KV policies and the loops that keep a slot of their own before the shared one; null: every loop has its own. */
val POLICIES: Map<String, Int?> = mapOf("full" to null, "shared" to 0, "first1+shared" to 1, "first2+shared" to 2)

/** Which cache slot of a recurrent layer a loop reads and writes. */
class CacheLayout(policy: String, maxLoops: Int) {
    /** Slots of each recurrent layer. */
    val slots: Int = minOf(POLICIES.getValue(policy)?.plus(1) ?: maxLoops, maxLoops)

    /** Slot (from 0) of a loop (from 1). */
    fun slotOf(loop: Int): Int = minOf(loop, slots) - 1
}

/** One call of a prompt: the [length] ids from [from] on; [total] places are filled after it. */
data class Piece(val from: Int, val length: Int, val total: Int)

/**
 * The calls that give a prompt of [prompt] tokens after [held] held ones, in chunks of [chunk].
 *
 * Throws a [Failure] of kind CONTEXT where it is empty or does not fit with [newTokens] more (the last of which needs no place).
 */
fun promptPieces(held: Int, prompt: Int, chunk: Int, context: Int, newTokens: Int = 1): List<Piece> {
    if (prompt == 0) throw Failure(Kind.CONTEXT, "There is nothing to answer; write a message.")
    if (held + prompt + newTokens > context + 1) {
        val message = "$held tokens of this conversation, $prompt of your message and $newTokens of the answer do not fit the " +
            "model's context of $context. Start a new conversation or write less."
        throw Failure(Kind.CONTEXT, message)
    }
    return (0 until prompt step chunk).map { from ->
        val length = minOf(chunk, prompt - from)
        Piece(from, length, held + from + length)
    }
}
