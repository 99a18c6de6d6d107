package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class CacheVectorsTest {
    /** One recurrent layer whose keys and values are names: the piece of text, and the loop, that gave them. */
    private class Symbols(slots: Int) : Stages {
        val slots = List(slots) { ArrayList<String>() }
        val reads = ArrayList<Map<String, Any>>()
        var piece = 0
        private var past = 0
        private var count = 0
        override val stateWidth = 1

        /** States that stop moving after this loop. */
        var settles = Int.MAX_VALUE

        override fun prelude(ids: IntArray, past: Int) {
            piece++
            this.past = past
            count = ids.size
            reads.clear()
        }

        override fun recur(loop: Int, slot: Int) {
            val held = slots[slot]
            while (held.size > past) held.removeAt(held.size - 1)
            reads.add(mapOf("loop" to loop, "slot" to slot, "past" to held.toList()))
            repeat(count) { held.add("$piece.$loop") }
        }

        override fun state(number: Int) = FloatArray(count) { minOf(number, settles - 1).toFloat() }

        override fun coda(number: Int) = FloatArray(1)

        override fun fillAbove(slot: Int, start: Int, stop: Int) {
            for (above in slots.drop(slot + 1)) {
                while (above.size > start) above.removeAt(above.size - 1)
                above.addAll(slots[slot].subList(start, stop))
            }
        }
    }

    @Test
    fun `lays slots out`() {
        for (case in Vectors.cases("cache", "layouts")) {
            val layout = CacheLayout(case.text("policy"), case.number("max_loops"))
            assertEquals(case.number("slots"), layout.slots)
            assertEquals(case.numbers("slot_of_loop"), (1..case.number("max_loops")).map { layout.slotOf(it) })
        }
    }

    @Test
    fun `reads and holds what the stories tell`() {
        for (case in Vectors.cases("cache", "stories")) {
            val name = "${case.text("policy")}: ${case.text("case")}"
            val layout = CacheLayout(case.text("policy"), case.number("max_loops"))
            val symbols = Symbols(layout.slots)
            val scheduler = LoopScheduler(symbols, layout, 64)
            for (step in case.parts("steps")) {
                when (step.text("step")) {
                    "run" -> {
                        scheduler.run(IntArray(step.number("tokens")), step.number("loops"))
                    }

                    "exit" -> {
                        symbols.settles = step.number("used")
                        val used = scheduler.run(IntArray(1), step.number("loops"), 1e-6).loopsUsed
                        assertEquals(step.number("used"), used, name)
                        symbols.settles = Int.MAX_VALUE
                    }

                    "cancel" -> {
                        var asked = 0
                        assertThrows(Stopped::class.java) {
                            scheduler.run(IntArray(step.number("tokens")), case.number("max_loops")) { asked++ >= step.number("loops_done") }
                        }
                    }

                    else -> {
                        scheduler.rewind(step.number("length"))
                    }
                }
                if ("reads" in step) assertEquals(step.parts("reads").map { readsOf(it) }, symbols.reads.toList(), name)
                assertEquals(step.number("held"), scheduler.length, name)
                val slots = (step.getValue("slots") as JsonArray).map { slot -> (slot as JsonArray).map { (it as JsonPrimitive).content } }
                assertEquals(slots, symbols.slots.map { it.take(scheduler.length) }, name)
            }
        }
    }

    private fun readsOf(read: JsonObject): Map<String, Any> =
        mapOf("loop" to read.number("loop"), "slot" to read.number("slot"), "past" to read.texts("past"))

    @Test
    fun `cuts prompts into pieces`() {
        for (case in Vectors.cases("cache", "chunks")) {
            val cut = {
                promptPieces(case.number("held"), case.number("prompt"), case.number("chunk"), case.number("context"), case.number("new_tokens"))
            }
            if (case["calls"] is JsonNull) {
                assertEquals(Kind.CONTEXT, assertThrows(Failure::class.java) { cut() }.kind, case.toString())
            } else {
                assertEquals(case.parts("calls").map { Piece(it.number("from"), it.number("length"), it.number("total")) }, cut())
            }
        }
    }
}
