package dev.parcae.core

import kotlin.math.exp

private const val RECENT = 64
private const val GOLDEN = 0x9E3779B9.toInt()
private const val LARGEST_SEED = 0xFFFFFFFFL

/**
 * How the next token is chosen. Temperature 0 is greedy; [topK] 0, [topP] 1, [minP] 0 and [repetitionPenalty] 1 change nothing.
 */
data class Sampling(
    val temperature: Double = 0.0,
    val topK: Int = 0,
    val topP: Double = 1.0,
    val minP: Double = 0.0,
    val repetitionPenalty: Double = 1.0,
    val seed: Long = 0,
) {
    init {
        fun need(good: Boolean, what: String) {
            if (!good) throw Failure(Kind.SETTING, "Give $what.")
        }
        need(temperature >= 0 && temperature.isFinite(), "a temperature of 0 (greedy) or more")
        need(topK >= 0, "a top-k of 0 (off) or more")
        need(topP > 0 && topP <= 1, "a top-p above 0 and at most 1 (off)")
        need(minP in 0.0..1.0, "a min-p from 0 (off) to 1")
        need(repetitionPenalty > 0 && repetitionPenalty.isFinite(), "a repetition penalty of 1 (off) or another positive number")
        need(seed in 0..LARGEST_SEED, "a seed from 0 to $LARGEST_SEED")
    }
}

/** xoshiro128** of Blackman and Vigna, seeded by four steps of SplitMix32 with the finalizer of MurmurHash3. */
class Random(seed: Long) {
    private val state = IntArray(4) { mixed(seed.toInt() + (it + 1) * GOLDEN) }

    /** The next 32 bits. */
    fun word(): Int {
        val drawn = Integer.rotateLeft(state[1] * 5, 7) * 9
        val shifted = state[1] shl 9
        state[2] = state[2] xor state[0]
        state[3] = state[3] xor state[1]
        state[1] = state[1] xor state[2]
        state[0] = state[0] xor state[3]
        state[2] = state[2] xor shifted
        state[3] = Integer.rotateLeft(state[3], 11)
        return drawn
    }

    /** A number in [0, 1) of 53 bits: the upper 27 of one word, then the upper 26 of the next. */
    fun uniform(): Double {
        val high = word() ushr 5
        val low = word() ushr 6
        return (high * 67108864.0 + low) / 9007199254740992.0
    }

    private fun mixed(start: Int): Int {
        var word = start xor (start ushr 16)
        word *= 0x85EBCA6B.toInt()
        word = word xor (word ushr 13)
        word *= 0xC2B2AE35.toInt()
        return word xor (word ushr 16)
    }
}

/** Draws the tokens of one answer: settings, and the generator that its seed starts. */
class Sampler(val sampling: Sampling) {
    private val random = Random(sampling.seed)

    /**
     * A token from [logits] (vocabulary); of [history], the ids given and generated so far, the last 64 count.
     *
     * Throws a [Failure] of kind LOGITS if they are no numbers. A draw takes one `uniform`; greedy choice takes none.
     */
    fun choose(logits: FloatArray, history: List<Int> = emptyList()): Int {
        val scores = DoubleArray(logits.size) { logits[it].toDouble() }
        if (scores.any { it.isNaN() } || !scores.max().isFinite()) {
            throw Failure(Kind.LOGITS, "The model gave logits that are no numbers; run the self-test.")
        }
        if (sampling.repetitionPenalty != 1.0) penalize(scores, history)
        if (sampling.temperature == 0.0) return scores.indices.maxWith(compareBy<Int> { scores[it] }.thenByDescending { it })
        val order = likeliest(scores)
        val sums = runningSums(scores, order)
        val drawn = random.uniform() * sums.last()
        val place = sums.indexOfFirst { it > drawn }
        return order[if (place < 0) sums.size - 1 else place]
    }

    private fun penalize(scores: DoubleArray, history: List<Int>) {
        for (token in history.takeLast(RECENT).toSet()) {
            val held = scores[token]
            scores[token] = if (held > 0) held / sampling.repetitionPenalty else held * sampling.repetitionPenalty
        }
    }

    /** The ids that top-k lets through, likeliest first, the smaller of two equal ones first. */
    private fun likeliest(scores: DoubleArray): IntArray {
        val best = compareBy<Int>({ -scores[it] }, { it })
        if (sampling.topK == 0 || sampling.topK >= scores.size) return scores.indices.sortedWith(best).toIntArray()
        val kept = java.util.PriorityQueue(sampling.topK + 1, best.reversed())
        for (token in scores.indices) {
            if (kept.size < sampling.topK) {
                kept.add(token)
            } else if (scores[token] > scores[kept.peek()!!]) {
                kept.poll()
                kept.add(token)
            }
        }
        return kept.sortedWith(best).toIntArray()
    }

    /** Running sums of the weights that top-p and min-p let through. */
    private fun runningSums(scores: DoubleArray, order: IntArray): DoubleArray {
        val weights = DoubleArray(order.size) { exp((scores[order[it]] - scores[order[0]]) / sampling.temperature) }
        val sums = weights.copyOf()
        for (place in 1 until sums.size) sums[place] += sums[place - 1]
        var kept = sums.size
        if (sampling.topP < 1) {
            val edge = sampling.topP * sums.last()
            kept = sums.indexOfFirst { it >= edge } + 1
        }
        kept = (0 until kept).count { weights[it] >= sampling.minP }
        return sums.copyOf(kept)
    }
}
