package dev.parcae.core

import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.ln

/** What the self-test found at one loop count. [passed] is null where nothing exact was promised. */
data class SelfTestRow(
    val loops: Int,
    val maxAbs: Double,
    val klMean: Double,
    val top1: Double,
    val tokensEqual: Int,
    val tokens: Int,
    val passed: Boolean?,
)

/**
 * Runs a model on this device against the golden logits that came with it, and its greedy continuations.
 *
 * What decides is what the manifest bounds: the greatest difference, the mean KL, the share of equal first choices, exact tokens.
 * [progress] is told the loop count that begins. Leaves the engine empty.
 */
fun selfTest(engine: Engine, folder: File, stopped: () -> Boolean = { false }, progress: (Int) -> Unit = {}): List<SelfTestRow> {
    val facts = engine.manifest.selfTest ?: throw Failure(Kind.SETTING, "This model came without a self-test; bundle it again.")
    return facts.logits.keys.sorted().map { loops ->
        progress(loops)
        engine.rewind(0)
        val golden = goldenRows(File(folder, facts.file), facts.logits.getValue(loops))
        val found = rowsOf(engine, facts, loops, stopped)
        val width = engine.manifest.vocabSize
        val pairs = golden.zip(found)
        val maxAbs = pairs.maxOf { (want, have) -> (0 until width).maxOf { abs(want[it].toDouble() - have[it]) } }
        val klMean = pairs.map { (want, have) -> divergence(want, have, width) }.average()
        val top1 = pairs.count { (want, have) -> best(want, width) == best(have, width) }.toDouble() / pairs.size
        val expected = facts.greedy?.tokens?.get(loops).orEmpty()
        val equal = if (expected.isEmpty()) 0 else equalTokens(engine, facts.greedy!!.prompt, expected, loops, stopped)
        SelfTestRow(loops, maxAbs, klMean, top1, equal, expected.size, verdict(facts, maxAbs, klMean, top1, equal == expected.size))
    }.also { engine.rewind(0) }
}

private fun verdict(facts: SelfTestFacts, maxAbs: Double, klMean: Double, top1: Double, tokens: Boolean): Boolean? {
    val checks = listOfNotNull(
        facts.maxAbs?.let { maxAbs <= it },
        facts.klMean?.let { klMean <= it },
        facts.top1?.let { top1 >= it },
        if (facts.greedy?.exact == true) tokens else null,
    )
    return if (checks.isEmpty()) null else checks.all { it }
}

/** Logits at the wanted positions: what lies before one is given at once, and each wanted one ends a piece. */
private fun rowsOf(engine: Engine, facts: SelfTestFacts, loops: Int, stopped: () -> Boolean): List<FloatArray> {
    val ids = facts.inputIds.toIntArray()
    val chunk = engine.manifest.cache.prefillChunk
    return facts.positions.sorted().map { position ->
        var logits = FloatArray(0)
        // From an empty cache: within a piece a token sees each loop's own keys, as the golden logits were made.
        engine.rewind(0)
        for (piece in promptPieces(0, position + 1, chunk, engine.manifest.cache.context)) {
            logits = engine.step(ids.copyOfRange(piece.from, piece.from + piece.length), loops, stopped = stopped).logits
        }
        logits
    }
}

private fun equalTokens(engine: Engine, prompt: List<Int>, expected: List<Int>, loops: Int, stopped: () -> Boolean): Int {
    engine.rewind(0)
    var logits = engine.step(prompt.toIntArray(), loops, stopped = stopped).logits
    var equal = 0
    for (token in expected) {
        if (best(logits, engine.manifest.vocabSize) != token) break
        equal++
        if (equal < expected.size) logits = engine.step(intArrayOf(token), loops, stopped = stopped).logits
    }
    return equal
}

private fun goldenRows(file: File, rows: LogitRows): List<FloatArray> = RandomAccessFile(file, "r").use { source ->
    val bytes = ByteArray(4 * rows.positions * rows.width)
    source.seek(rows.offset)
    source.readFully(bytes)
    val values = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    List(rows.positions) { FloatArray(rows.width).also { row -> values.get(row) } }
}

/** The id of the greatest of the first [width] logits, the smallest of equal ones. */
fun best(logits: FloatArray, width: Int): Int = (0 until width).maxWith(compareBy<Int> { logits[it] }.thenByDescending { it })

/** Kullback-Leibler divergence of two rows of logits, in nats. */
private fun divergence(want: FloatArray, have: FloatArray, width: Int): Double {
    val first = logSum(want, width)
    val second = logSum(have, width)
    return (0 until width).sumOf { exp(want[it] - first) * ((want[it] - first) - (have[it] - second)) }
}

private fun logSum(row: FloatArray, width: Int): Double {
    val largest = (0 until width).maxOf { row[it] }.toDouble()
    return largest + ln((0 until width).sumOf { exp(row[it] - largest) })
}
