package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.double
import kotlinx.serialization.json.float
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class LoopVectorsTest {
    /** Gives prepared states and writes down the calls. */
    private class Told(private val states: List<FloatArray>, override val stateWidth: Int) : Stages {
        val calls = ArrayList<Map<String, Any>>()

        override fun prelude(ids: IntArray, past: Int) {
            calls.add(mapOf("graph" to "prelude"))
        }

        override fun recur(loop: Int, slot: Int) {
            calls.add(mapOf("graph" to "recur", "loop" to loop, "reads_state" to loop - 1, "writes_state" to loop))
        }

        override fun state(number: Int) = if (number == 0) FloatArray(states[0].size) else states[number - 1]

        override fun coda(number: Int): FloatArray {
            calls.add(mapOf("graph" to "coda", "reads_state" to number))
            return FloatArray(1)
        }

        override fun fillAbove(slot: Int, start: Int, stop: Int) = Unit
    }

    @Test
    fun `chooses the loops of a message`() {
        for (case in Vectors.cases("loops", "choose")) {
            val given = case.getValue("loops") as JsonObject
            val range = LoopRange(given.text("form"), given.number("min"), given.number("max"), given.number("trained"), given.numbers("built"))
            val asked = case.getValue("asked").let { if (it is JsonNull) null else case.number("asked") }
            if (case["chosen"] is JsonNull) {
                assertEquals(Kind.SETTING, assertThrows(Failure::class.java) { range.choose(asked) }.kind)
            } else {
                assertEquals(case.number("chosen"), range.choose(asked), case.toString())
            }
        }
    }

    @Test
    fun `calls the graphs in the kit's order`() {
        for (case in Vectors.cases("loops", "calls")) {
            val used = case.number("used")
            // A state that moves until loop `used`, and not in it.
            val states = List(case.number("loops")) { floatArrayOf(if (it < used - 1) it + 1f else maxOf(used - 1f, 1f)) }
            val told = Told(states, 1)
            val threshold = if (used < case.number("loops")) 0.01 else 0.0
            LoopScheduler(told, CacheLayout("full", 16), 64).run(intArrayOf(1), case.number("loops"), threshold)
            val expected = case.parts("calls").map { call -> call.mapValues { (it.value as JsonPrimitive).content } }
            assertEquals(expected, told.calls.map { call -> call.mapValues { it.value.toString() } })
        }
    }

    @Test
    fun `leaves the loop where the kit does`() {
        val tolerance = Vectors.read("loops").real("tolerance")
        for (case in Vectors.cases("loops", "exit")) {
            val rows = (case.getValue("states") as JsonArray).map { it as JsonArray }
            val width = (rows[0][0] as JsonArray).size
            val states = rows.map { state -> state.flatMap { row -> (row as JsonArray).map { (it as JsonPrimitive).float } }.toFloatArray() }
            val told = Told(states, width)
            val ids = IntArray(rows[0].size)
            val from = if ("exit_from" in case) case.number("exit_from") else 1
            val scheduler = LoopScheduler(told, CacheLayout("full", 16), 64)
            val step = scheduler.run(ids, case.number("loops"), case.real("threshold"), from, measure = true)
            assertEquals(case.number("used"), step.loopsUsed, case.text("case"))
            val changes = (case.getValue("changes") as JsonArray).map { (it as JsonPrimitive).double }
            assertEquals(changes.size, step.changes.size, case.text("case"))
            for ((expected, found) in changes.zip(step.changes.toList())) {
                assertEquals(expected, found.toDouble(), tolerance * maxOf(1.0, expected), case.text("case"))
            }
        }
        for (case in Vectors.cases("loops", "bad_thresholds")) {
            val told = Told(listOf(floatArrayOf(1f)), 1)
            assertThrows(Failure::class.java) { LoopScheduler(told, CacheLayout("full", 1), 4).run(intArrayOf(0), 1, case.real("threshold")) }
        }
    }
}
