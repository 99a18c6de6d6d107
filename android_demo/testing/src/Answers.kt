package dev.parcae.testing

import dev.parcae.core.Engine
import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.Step
import dev.parcae.core.Stopped
import dev.parcae.core.parseJson
import dev.parcae.core.promptPieces
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import java.io.File

fun JsonObject.int(name: String) = (getValue(name) as JsonPrimitive).int

fun JsonObject.ints(name: String) = (getValue(name) as JsonArray).map { (it as JsonPrimitive).int }

fun JsonObject.all(name: String) = (getValue(name) as JsonArray).map { it as JsonObject }

fun JsonElement?.real() = (this as JsonPrimitive).double

fun argmax(logits: FloatArray) = logits.indices.maxWith(compareBy<Int> { logits[it] }.thenByDescending { it })

/** Give a prompt in the chunks of the model; the last chunk's step. */
fun prefill(engine: Engine, given: List<Int>, loops: Int): Step {
    val cache = engine.manifest.cache
    return promptPieces(engine.length, given.size, cache.prefillChunk, cache.context).map { piece ->
        engine.step(given.subList(piece.from, piece.from + piece.length).toIntArray(), loops)
    }.last()
}

/** A stop between two loops: nothing of the chunk is held, and what follows is as if it had never been given. */
fun stopsBetweenLoops(engine: Engine) {
    engine.rewind(0)
    engine.step(intArrayOf(0, 989, 918), 4)
    val undisturbed = engine.step(intArrayOf(540), 4).logits
    engine.rewind(3)
    var asked = 0
    assertThrows(Stopped::class.java) { engine.step(intArrayOf(540), 8) { ++asked == 3 } }
    assertEquals(3, engine.length)
    assertEquals(3, asked)
    assertTrue(undisturbed.contentEquals(engine.step(intArrayOf(540), 4).logits))
}

/** A full context is a failure of its kind, and the engine goes on afterwards. */
fun refusesBeyondTheContext(engine: Engine) {
    engine.rewind(0)
    val cache = engine.manifest.cache
    for (start in 0 until cache.context step cache.prefillChunk) {
        engine.step(IntArray(minOf(cache.prefillChunk, cache.context - start)) { 5 }, 1)
    }
    assertEquals(Kind.CONTEXT, assertThrows(Failure::class.java) { engine.step(intArrayOf(7), 1) }.kind)
    engine.rewind(0)
    assertEquals(engine.manifest.paddedVocabSize, engine.step(intArrayOf(0), 1).logits.size)
}

/** How many greedy tokens of an engine equal the answers of this repository's Python host (`tools/answers.py`); all, or the test fails. */
fun compareAnswers(engine: Engine, answers: File): Int {
    val cases = (parseJson(answers.readText()) as JsonObject).all("cases")
    assertEquals(9, cases.count { (it["case"] as JsonPrimitive).content.contains("at T=") })
    assertTrue(cases.size > 10)
    return cases.sumOf { compare(engine, it) }
}

private fun compare(engine: Engine, case: JsonObject): Int {
    engine.rewind(0)
    return case.all("turns").sumOf { turn ->
        engine.rewind(minOf(turn.int("held"), engine.length))
        var step = prefill(engine, turn.ints("given"), turn.int("loops"))
        val tokens = ArrayList<Int>()
        val used = ArrayList<Int>()
        for (place in turn.ints("tokens").indices) {
            tokens.add(argmax(step.logits))
            used.add(step.loopsUsed)
            if (place + 1 < turn.ints("tokens").size) step = engine.step(intArrayOf(tokens.last()), turn.int("loops"), turn["threshold"].real())
        }
        assertEquals(turn.ints("tokens"), tokens, "${case["case"]}: tokens")
        assertEquals(turn.ints("loops_used"), used, "${case["case"]}: loops used")
        tokens.size
    }
}
