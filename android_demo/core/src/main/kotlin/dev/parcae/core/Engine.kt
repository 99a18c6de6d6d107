package dev.parcae.core

import java.io.Closeable

/**
 * One model in memory, with the caches of one conversation. Not thread-safe: one worker owns it.
 *
 * Constructors load; [close] gives everything back.
 */
interface Engine : Closeable {
    val manifest: AppManifest

    /** Name and version of the runtime that computes, for reports. */
    val runtime: String

    /** Tokens that the caches hold. */
    val length: Int

    /** Bytes of the caches as they are allocated now. */
    val cacheBytes: Long

    /**
     * Run [ids] after the tokens held at [loops] loops and give the logits of the last one.
     *
     * With a [threshold] the loop ends once no token's state changed by that share of its norm; [measure] reports the changes even
     * without. Throws [Stopped] within one loop of [stopped] turning true (then none of [ids] is held), and a [Failure].
     */
    fun step(
        ids: IntArray,
        loops: Int,
        threshold: Double = 0.0,
        measure: Boolean = false,
        stopped: () -> Boolean = { false },
    ): Step

    /** Forget the tokens after the first [held]. */
    fun rewind(held: Int)
}

/** Tokens that caches hold at first; they grow by doubling. */
const val LEAST_CAPACITY = 256

/** The capacity that holds [tokens] tokens, grown from [now]. */
fun grownCapacity(now: Int, tokens: Int, context: Int): Int {
    var capacity = if (now == 0) minOf(LEAST_CAPACITY, context) else now
    while (capacity < tokens) capacity = minOf(2 * capacity, context)
    return capacity
}
