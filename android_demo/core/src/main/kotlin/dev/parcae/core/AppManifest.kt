package dev.parcae.core

/**
 * The manifest that an app reads, `app.json`: what a bundled artifact is, needs and promises.
 *
 * [readAppManifest] makes one; `parcae-export bundle --platform android` writes the file.
 */
data class AppManifest(
    val name: String,
    val model: String,
    val platform: String,
    val target: String,
    val runtime: RuntimeNeed,
    val loops: LoopRange,
    val graphs: Map<String, Graph>,
    val recipe: String,
    val compute: String,
    val promise: String,
    val tokenParity: Boolean,
    val verified: Boolean,
    val portable: Boolean,
    val lastLogits: Boolean,
    val stateWidth: Int,
    val vocabSize: Int,
    val paddedVocabSize: Int,
    val cache: CacheShape,
    val memory: MemoryNeed,
    val tokenizer: TokenizerFacts?,
    val selfTest: SelfTestFacts?,
    val files: Map<String, FileEntry>,
) {
    /** Bytes of all files. */
    val bytes: Long get() = files.values.sumOf { it.bytes }

    /** Bytes that have to be free at [loops] loops with a cache of [tokens] tokens. */
    fun memoryNeeded(loops: Int, tokens: Int = cache.context): Long =
        memory.estimate(loops, tokens, minOf(cache.prefillChunk, cache.context))
}

/** The runtime, its least version, why that one, and the session settings that the artifact was judged with. */
data class RuntimeNeed(val name: String, val minimum: String, val reason: String, val settings: Map<String, String>)

/**
 * Loop counts: the range, the count of training, and those that were built (empty: any in the range, at run time).
 *
 * With [earlyExit] a token may leave the loop, not before loop [exitFrom].
 */
data class LoopRange(
    val form: String,
    val min: Int,
    val max: Int,
    val trained: Int,
    val built: List<Int>,
    val earlyExit: Boolean = false,
    val exitFrom: Int = 1,
) {
    /** The counts that a message may ask for, ascending. */
    val counts: List<Int> get() = if (built.isEmpty()) (min..max).toList() else built.sorted()

    /** [asked] if the artifact has it, without a wish the count nearest to the trained one (of two, the smaller). */
    fun choose(asked: Int? = null): Int {
        if (asked == null) return counts.minWith(compareBy({ kotlin.math.abs(it - trained) }, { it }))
        if (asked !in counts) {
            throw Failure(Kind.SETTING, "This model has no $asked loops; choose one of ${counts.joinToString()}.")
        }
        return asked
    }
}

/** Where a graph is: a file, and the method in it where there are several. */
data class Graph(val file: String, val function: String?)

/** Cache shape of the layers of one graph: ([slots], 1, [heads], tokens, [headSize]) for keys and for values each. */
data class StageShape(val layers: Int, val heads: Int, val headSize: Int, val slots: Int)

/** The KV cache. [prefillChunk] is part of what is computed where loops share a slot. */
data class CacheShape(
    val policy: String,
    val dtype: String,
    val context: Int,
    val prefillChunk: Int,
    val prelude: StageShape,
    val recur: StageShape,
    val coda: StageShape,
)

/** What an app has to have free, in bytes. The runtime's own code is not in it. */
data class MemoryNeed(
    val weights: Long,
    val cachePerToken: Long,
    val cachePerTokenAndSlot: Long,
    val slots: Int,
    val workPerChunkToken: Long,
    val work: Long,
    val overheadPercent: Long,
) {
    /** Bytes at [loops] loops with caches that hold [tokens] tokens and chunks of [chunk]. */
    fun estimate(loops: Int, tokens: Int, chunk: Int): Long {
        val held = tokens * (cachePerToken + cachePerTokenAndSlot * minOf(loops, slots))
        val total = weights + held + work + chunk * workPerChunkToken
        return total + total * overheadPercent / 100
    }
}

/** Which tokenizer file, and how a text begins and ends. */
data class TokenizerFacts(val file: String, val vocabSize: Int, val bos: Int, val addBos: Boolean, val stop: List<Int>)

/** Rows of little-endian fp32 numbers in a file: where they begin, and (positions, vocabulary). */
data class LogitRows(val offset: Long, val positions: Int, val width: Int)

/** Greedy continuations of a prompt from an empty cache, by loop count; [exact] if they hold on every device. */
data class GreedyFacts(val prompt: List<Int>, val tokens: Map<Int, List<Int>>, val exact: Boolean)

/** Ids that are given at once, what fp32 PyTorch with the same weights says, and how far a device may be from it. */
data class SelfTestFacts(
    val file: String,
    val inputIds: List<Int>,
    val positions: List<Int>,
    val logits: Map<Int, LogitRows>,
    val maxAbs: Double?,
    val klMean: Double?,
    val top1: Double?,
    val greedy: GreedyFacts?,
)

/** One file: bytes and SHA-256 in small hexadecimal digits. */
data class FileEntry(val bytes: Long, val sha256: String)
