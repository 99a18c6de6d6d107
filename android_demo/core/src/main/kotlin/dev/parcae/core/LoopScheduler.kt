package dev.parcae.core

import kotlin.math.sqrt

/** The largest norm that a state is divided by is at least this. */
private const val FLOOR = 1e-12

/**
 * What an engine does for a [LoopScheduler]: the calls of one chunk of ids, in this order.
 *
 * States lie in two places that loops write in turn: state `n` is what loop `n` wrote, state 0 holds zeros.
 */
interface Stages {
    /** Give the graph before the loop a chunk that follows [past] held tokens; state 0 becomes zeros. */
    fun prelude(ids: IntArray, past: Int)

    /** Run the recurrent block once, as loop [loop] (from 1): read state `loop - 1`, write state `loop`, on a cache slot. */
    fun recur(loop: Int, slot: Int)

    /** (chunk, width) of state [number], row by row. */
    fun state(number: Int): FloatArray

    /** Width of a token's state. */
    val stateWidth: Int

    /** Logits (vocabulary) of the chunk's last place, read from state [number]. */
    fun coda(number: Int): FloatArray

    /** Give all slots above [slot] what it holds at the places from [start] to before [stop]. */
    fun fillAbove(slot: Int, start: Int, stop: Int)
}

/** What one chunk gave: logits of its last place, loops that were run, and how far each loop moved the state. */
class Step(val logits: FloatArray, val loopsUsed: Int, val changes: FloatArray)

/** Thrown where a chunk was stopped between two loops. Its tokens are not held. */
class Stopped : RuntimeException("stopped")

/** The one loop of all engines: prelude once, recur up to T times, coda once, on caches that hold [length] tokens. */
class LoopScheduler(private val stages: Stages, private val layout: CacheLayout, private val context: Int) {
    /** Tokens that the caches hold. */
    var length = 0
        private set

    /**
     * Run a chunk at [loops] loops. With a [threshold] the loop ends once no token's state changed by that share of its norm, but
     * not before loop [exitFrom].
     *
     * [measure]: compute the changes even without a threshold. Throws [Stopped] within one loop of [stopped] turning true, and a
     * [Failure] of kind CONTEXT if the chunk does not fit.
     */
    fun run(
        ids: IntArray,
        loops: Int,
        threshold: Double = 0.0,
        exitFrom: Int = 1,
        measure: Boolean = false,
        stopped: () -> Boolean = { false },
    ): Step {
        if (threshold < 0 || threshold >= 1) throw Failure(Kind.SETTING, "Give an exit threshold of 0 (off) to below 1.")
        if (length + ids.size > context) {
            val message = "The context of $context tokens is full: $length are held and ${ids.size} follow. Start a new conversation."
            throw Failure(Kind.CONTEXT, message)
        }
        val changes = ArrayList<Float>()
        stages.prelude(ids, length)
        var used = loops
        for (loop in 1..loops) {
            if (stopped()) throw Stopped()
            stages.recur(loop, layout.slotOf(loop))
            if (threshold == 0.0 && !measure) continue
            val change = largestChange(stages.state(loop - 1), stages.state(loop), stages.stateWidth)
            changes.add(change.toFloat())
            if (loop >= exitFrom && change < threshold) {
                used = loop
                break
            }
        }
        if (stopped()) throw Stopped()
        val logits = stages.coda(used)
        stages.fillAbove(layout.slotOf(used), length, length + ids.size)
        length += ids.size
        return Step(logits, used, changes.toFloatArray())
    }

    /** Forget the tokens after the first [held]. */
    fun rewind(held: Int) {
        require(held in 0..length) { "$held tokens of $length" }
        length = held
    }
}

/** The largest change of a token's state between two loops, as a share of its norm; both (tokens, width), row by row. */
fun largestChange(before: FloatArray, after: FloatArray, width: Int): Double {
    var largest = 0.0
    for (start in after.indices step width) {
        var moved = 0.0
        var norm = 0.0
        for (place in start until start + width) {
            val difference = after[place].toDouble() - before[place]
            moved += difference * difference
            norm += after[place].toDouble() * after[place]
        }
        largest = maxOf(largest, sqrt(moved) / maxOf(sqrt(norm), FLOOR))
    }
    return largest
}
