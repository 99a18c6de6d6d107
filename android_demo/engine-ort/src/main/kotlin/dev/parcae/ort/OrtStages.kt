package dev.parcae.ort

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import dev.parcae.core.CacheLayout
import dev.parcae.core.CacheShape
import dev.parcae.core.StageShape
import dev.parcae.core.Stages
import dev.parcae.core.grownCapacity
import java.io.Closeable

/**
 * The three graphs of an artifact, bound to arrays that they share: what a graph gives lies where the next one reads it.
 *
 * Caches are given as past and as present, so that attention appends in place. A chunk of one token, which is decoding, finds
 * everything bound already.
 */
internal class OrtStages(
    private val environment: OrtEnvironment,
    private val sessions: Map<String, OrtSession>,
    private val cache: CacheShape,
) : Stages, Closeable {
    private val shapes = mapOf("prelude" to cache.prelude, "recur" to cache.recur, "coda" to cache.coda)
    private val caches = HashMap<String, ArrayList<Array>>()
    private val ports = sessions.mapValues { (_, session) -> portsOf(session) }
    private var capacity = 0
    private var slots = 0
    private var chunk = Chunk(0)
    private var single: Chunk? = null

    override val stateWidth = ports.getValue("recur").inputs.getValue("state").shape.last().toInt()
    val cacheBytes: Long get() = caches.values.sumOf { all -> all.sumOf { it.bytes.capacity().toLong() } }

    /** Names, shapes and types of a graph's inputs and outputs. */
    private class Ports(val inputs: Map<String, TensorInfo>, val outputs: Map<String, TensorInfo>)

    /** Arrays by the names of the ports that share them, for chunks of [length] tokens. */
    private inner class Chunk(val length: Int) : Closeable {
        private val arrays = HashMap<String, Array>()
        private val calls = HashMap<List<Any>, Pair<Map<String, OnnxTensor>, Map<String, OnnxTensor>>>()

        fun array(name: String, info: TensorInfo): Array = arrays.getOrPut(name) {
            val sizes = info.shape.mapIndexed { place, size ->
                if (size >= 0) {
                    size
                } else if (info.dimensionNames[place] == "positions") {
                    1L
                } else {
                    length.toLong()
                }
            }
            Array(environment, info.type, sizes.toLongArray())
        }

        fun call(graph: String, slot: Int, state: Int): Pair<Map<String, OnnxTensor>, Map<String, OnnxTensor>> =
            calls.getOrPut(listOf(graph, slot, state % 2)) {
                fun bind(all: Map<String, TensorInfo>) = all.mapValues { (name, info) -> place(this, graph, slot, state % 2, name, info).tensor }
                Pair(bind(ports.getValue(graph).inputs), bind(ports.getValue(graph).outputs))
            }

        override fun close() {
            arrays.values.forEach { it.close() }
            arrays.clear()
            calls.clear()
        }
    }

    /**
     * Let the caches hold [tokens] tokens of [loops] loops. A slot that is new starts with what the last one holds.
     *
     * Where memory ends on the way, the old caches stay as they are.
     */
    fun reserve(tokens: Int, loops: Int) {
        val needed = maxOf(slots, minOf(loops, cache.recur.slots))
        val grown = grownCapacity(capacity, tokens, cache.context)
        if (grown == capacity && needed == slots) return
        val fresh = HashMap<String, ArrayList<Array>>()
        try {
            for ((graph, shape) in shapes) {
                val held = if (graph == "recur") needed else 1
                for (layer in 0 until shape.layers) {
                    for (part in listOf("key", "value")) {
                        val name = "$graph.$layer.$part"
                        grow(caches[name].orEmpty(), fresh.getOrPut(name) { ArrayList() }, graph, shape, grown, held)
                    }
                }
            }
        } catch (error: OutOfMemoryError) {
            fresh.values.flatten().forEach { it.close() }
            throw error
        }
        single?.close()
        single = null
        for ((name, all) in fresh) caches.put(name, all)?.forEach { it.close() }
        capacity = grown
        slots = needed
    }

    private fun grow(old: List<Array>, fresh: MutableList<Array>, graph: String, shape: StageShape, tokens: Int, held: Int) {
        val info = ports.getValue(graph).inputs.entries.first { it.key.startsWith("past.") }.value
        val size = longArrayOf(1, shape.heads.toLong(), tokens.toLong(), shape.headSize.toLong())
        for (slot in 0 until held) {
            val array = Array(environment, info.type, size)
            fresh.add(array)
            val source = old.getOrNull(slot) ?: old.lastOrNull()
            if (source != null) array.copyPlaces(source, 0, capacity)
        }
    }

    override fun prelude(ids: IntArray, past: Int) {
        if (chunk !== single) chunk.close()
        chunk = if (ids.size > 1) Chunk(ids.size) else single ?: Chunk(1).also { single = it }
        val inputs = ports.getValue("prelude").inputs
        val given = chunk.array("input_ids", inputs.getValue("input_ids")).bytes.asLongBuffer()
        ids.forEachIndexed { place, id -> given.put(place, id.toLong()) }
        chunk.array("total", inputs.getValue("total")).bytes.asIntBuffer().put(0, past + ids.size)
        val recurrent = ports.getValue("recur").inputs.getValue("state")
        for (turn in 0..1) chunk.array("state $turn", recurrent).clear()
        run("prelude", 0, 0)
    }

    override fun recur(loop: Int, slot: Int) = run("recur", slot, loop - 1)

    override fun state(number: Int): FloatArray =
        chunk.array("state ${number % 2}", ports.getValue("recur").inputs.getValue("state")).floats()

    override fun coda(number: Int): FloatArray {
        val ends = ports.getValue("coda")
        chunk.array("positions", ends.inputs.getValue("positions")).bytes.asLongBuffer().put(0, chunk.length - 1L)
        run("coda", 0, number)
        return chunk.array("logits", ends.outputs.getValue("logits")).floats()
    }

    override fun fillAbove(slot: Int, start: Int, stop: Int) {
        for ((name, all) in caches) {
            if (name.startsWith("recur.")) for (above in slot + 1 until all.size) all[above].copyPlaces(all[slot], start, stop)
        }
    }

    private fun run(graph: String, slot: Int, state: Int) {
        val (inputs, outputs) = chunk.call(graph, slot, state)
        sessions.getValue(graph).run(inputs, emptySet(), outputs).close()
    }

    /** The array of a port: a cache, one of the two states, or what ports of the same name share. */
    private fun place(chunk: Chunk, graph: String, slot: Int, turn: Int, name: String, info: TensorInfo): Array = when {
        name.startsWith("past.") || name.startsWith("present.") -> caches.getValue("$graph.${name.substringAfter('.')}")[slot]
        name == "state" -> chunk.array("state $turn", info)
        name == "next_state" -> chunk.array("state ${1 - turn}", info)
        else -> chunk.array(name, info)
    }

    override fun close() {
        chunk.close()
        single?.close()
        caches.values.flatten().forEach { it.close() }
    }

    private fun portsOf(session: OrtSession) = Ports(
        session.inputInfo.mapValues { it.value.info as TensorInfo },
        session.outputInfo.mapValues { it.value.info as TensorInfo },
    )
}
