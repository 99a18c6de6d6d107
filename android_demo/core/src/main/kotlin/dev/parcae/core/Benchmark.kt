package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Times of one loop count and context: of the prompt up to the first token, and of single decoding steps after it. */
data class BenchRow(val loops: Int, val context: Int, val firstTokenSeconds: Double, val steps: List<Double>, val cacheBytes: Long) {
    /** Median seconds of a decoding step. */
    val decodeSeconds: Double get() = quantile(0.5)

    /** The step time that this [share] of the steps does not exceed. */
    fun quantile(share: Double): Double = steps.sorted()[((steps.size - 1) * share).toInt()]
}

/**
 * What held while it was measured. Temperatures are the battery's in degrees Celsius; [battery] is null while charging.
 *
 * Cold is the first load of the model and the first token after it, warm a second load; the rows' times are all warm.
 */
data class Conditions(
    val loadSecondsCold: Double,
    val firstTokenSecondsCold: Double,
    val loadSecondsWarm: Double,
    val temperatureBefore: Double?,
    val temperatureAfter: Double?,
    val heat: Heat,
    val battery: Int?,
    val peakBytes: Long,
)

/** A whole benchmark: rows, threads of the runtime, bytes per second of one thread, conditions. */
class Measured(val rows: List<BenchRow>, val threads: Int, val bandwidth: Double, val conditions: Conditions)

private val LOOPS = listOf(1, 4, 8)
private val CONTEXTS = listOf(128, 512)
private const val STEPS = 32
private const val WARM = 2

/**
 * T = 1, 4, 8 (those that the model has) at contexts that fit: a prompt of the context less the steps, then single steps.
 *
 * A prompt of each T is given once before anything is timed. [progress] is told what begins. Leaves the engine empty.
 */
fun benchmark(
    engine: Engine,
    stopped: () -> Boolean = { false },
    clock: () -> Double = { System.nanoTime() / 1e9 },
    progress: (Int, Int) -> Unit = { _, _ -> },
): List<BenchRow> {
    val cache = engine.manifest.cache
    val loops = LOOPS.filter { it in engine.manifest.loops.counts }
    val rows = ArrayList<BenchRow>()
    for (context in CONTEXTS.filter { it <= cache.context }) {
        for (count in loops) {
            progress(count, context)
            val prompt = promptOf(engine, context - STEPS)
            repeat(WARM) {
                engine.rewind(0)
                engine.step(prompt.copyOf(minOf(prompt.size, cache.prefillChunk)), count, stopped = stopped)
                engine.step(intArrayOf(1), count, stopped = stopped)
            }
            engine.rewind(0)
            val begin = clock()
            prefill(engine, prompt, count, stopped)
            val first = clock() - begin
            val steps = List(STEPS) { place ->
                val start = clock()
                engine.step(intArrayOf((place * 13 + 5) % engine.manifest.vocabSize), count, stopped = stopped)
                clock() - start
            }
            rows.add(BenchRow(count, context, first, steps, engine.cacheBytes))
        }
    }
    engine.rewind(0)
    return rows
}

/**
 * Seconds to the first token of a short prompt at the trained T. Cold if it is the first that [engine] is asked after it was loaded.
 */
fun firstToken(engine: Engine, stopped: () -> Boolean = { false }, clock: () -> Double = { System.nanoTime() / 1e9 }): Double {
    val prompt = promptOf(engine, minOf(engine.manifest.cache.context, CONTEXTS.first()) - STEPS)
    val begin = clock()
    prefill(engine, prompt, engine.manifest.loops.choose(), stopped)
    return (clock() - begin).also { engine.rewind(0) }
}

private fun promptOf(engine: Engine, tokens: Int) = IntArray(tokens) { (it * 37 + 11) % engine.manifest.vocabSize }

private fun prefill(engine: Engine, prompt: IntArray, loops: Int, stopped: () -> Boolean) {
    val cache = engine.manifest.cache
    for (piece in promptPieces(0, prompt.size, cache.prefillChunk, cache.context)) {
        engine.step(prompt.copyOfRange(piece.from, piece.from + piece.length), loops, stopped = stopped)
    }
}

/** Bytes per second that one thread reads. */
fun memoryBandwidth(): Double {
    val block = ByteBuffer.allocateDirect(1 shl 26).order(ByteOrder.nativeOrder()).asLongBuffer()
    val row = LongArray(1 shl 13)
    val best = (0 until 4).minOf {
        val start = System.nanoTime()
        (block as java.nio.Buffer).rewind()
        while (block.hasRemaining()) block.get(row)
        (System.nanoTime() - start) / 1e9
    }
    return (1 shl 26) / best
}

/**
 * The JSON that a person sends back: device, self-test, and `table`, which is what `parcae-export bench --out` keeps in `bench.json`.
 */
fun report(manifest: AppManifest, runtime: String, device: JsonObject, tests: List<SelfTestRow>, measured: Measured?): JsonObject = buildJsonObject {
    put("format", 1)
    put("device", device)
    put("model", manifest.name)
    put("runtime", runtime)
    put("self_test", JsonArray(tests.map { testJson(it) }))
    put("conditions", measured?.let { conditionsJson(it.conditions) } ?: JsonNull)
    put("table", measured?.let { tableJson(manifest, runtime, device, it) } ?: JsonNull)
}

private fun testJson(row: SelfTestRow) = buildJsonObject {
    put("loops", row.loops)
    put("max_abs", row.maxAbs)
    put("kl_mean", row.klMean)
    put("top1", row.top1)
    put("tokens_equal", row.tokensEqual)
    put("tokens", row.tokens)
    put("passed", row.passed)
}

private fun conditionsJson(found: Conditions) = buildJsonObject {
    put("load_seconds_cold", found.loadSecondsCold)
    put("first_token_seconds_cold", found.firstTokenSecondsCold)
    put("load_seconds_warm", found.loadSecondsWarm)
    put("temperature_before", found.temperatureBefore)
    put("temperature_after", found.temperatureAfter)
    put("thermal_status", found.heat.name.lowercase())
    put("battery_percent", found.battery)
    put("peak_pss_bytes", found.peakBytes)
}

private fun tableJson(manifest: AppManifest, runtime: String, device: JsonObject, measured: Measured) = buildJsonObject {
    put("format", 1)
    val run = buildJsonObject {
        put("processor", "${(device["maker"] as? JsonPrimitive)?.content} ${(device["model"] as? JsonPrimitive)?.content}")
        put("cores", device["cores"] ?: JsonPrimitive(Runtime.getRuntime().availableProcessors()))
        put("bandwidth", measured.bandwidth)
        put("rounds", 1)
        put("tools", buildJsonObject { put(runtime.substringBefore(' '), runtime.substringAfter(' ')) })
    }
    put("runs", buildJsonObject { put("1", run) })
    put("rows", JsonArray(measured.rows.map { rowJson(manifest, measured.threads, it) }))
}

private fun rowJson(manifest: AppManifest, threads: Int, row: BenchRow) = buildJsonObject {
    put("variant", variantJson(manifest, row.loops))
    put("context", row.context)
    put("threads", threads)
    put("weight_bytes", manifest.files["weights.data"]?.bytes ?: manifest.bytes)
    put("model_bytes", manifest.bytes)
    put("cache_bytes", row.cacheBytes)
    val speed = buildJsonObject {
        put("run", 1)
        put("first_token_ms", row.firstTokenSeconds * 1e3)
        put("decode_ms", row.decodeSeconds * 1e3)
        put("decode_quartiles_ms", JsonArray(listOf(0.25, 0.75).map { JsonPrimitive(row.quantile(it) * 1e3) }))
        put("steps", row.steps.size)
    }
    put("speeds", JsonArray(listOf(speed)))
}

private fun variantJson(manifest: AppManifest, loops: Int) = buildJsonObject {
    put("kind", "artifact")
    put("model", manifest.model)
    put("target", manifest.target)
    put("loop_form", manifest.loops.form)
    put("quant", manifest.recipe)
    put("compute", manifest.compute)
    put("kv_policy", manifest.cache.policy)
    put("kv_dtype", manifest.cache.dtype)
    put("portable", manifest.portable)
    put("loops", loops)
}
