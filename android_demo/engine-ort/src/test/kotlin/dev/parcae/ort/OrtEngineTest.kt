package dev.parcae.ort

import dev.parcae.core.Engine
import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.parseJson
import dev.parcae.core.readAppManifest
import dev.parcae.testing.all
import dev.parcae.testing.argmax
import dev.parcae.testing.compareAnswers
import dev.parcae.testing.int
import dev.parcae.testing.ints
import dev.parcae.testing.prefill
import dev.parcae.testing.real
import dev.parcae.testing.refusesBeyondTheContext
import dev.parcae.testing.stopsBetweenLoops
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance
import org.junit.jupiter.api.io.TempDir
import java.io.File

private val MODELS = File(System.getProperty("parcae.models"))

/** The engine on the desktop's onnxruntime of the same version, against the answers of this repository's Python host. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class OrtEngineTest {
    private val folder = File(MODELS, "parcae-tiny")
    private val manifest = readAppManifest(File(folder, "app.json").readText())
    private val engine = OrtEngine(folder, manifest, threads = 1)

    @AfterAll
    fun close() = engine.close()

    @Test
    fun `gives Python's greedy tokens at every T, early exit, rewind, chunks and the end of the context`() {
        for (name in listOf("parcae-tiny", "parcae-tiny-fp32-shared", "parcae-tiny-fp32-full")) {
            val place = File(MODELS, name)
            OrtEngine(place, readAppManifest(File(place, "app.json").readText()), threads = 1).use { engine ->
                val compared = compareAnswers(engine, File(MODELS, "$name.answers.json"))
                println("$name: $compared greedy tokens equal Python's")
            }
        }
    }

    @Test
    fun `answers as the app kit's fp32 conversations do, under both policies`() {
        val kit = parseJson(File(System.getProperty("parcae.kit"), "vectors/model.json").readText()) as JsonObject
        for (policy in listOf("shared", "full")) {
            val place = File(MODELS, "parcae-tiny-fp32-$policy")
            OrtEngine(place, readAppManifest(File(place, "app.json").readText()), threads = 1).use { engine ->
                golden(engine, kit)
                val mine = { case: JsonObject -> (case["policy"] as JsonPrimitive).content == policy }
                var compared = 0
                for (greedy in kit.all("greedy").filter(mine)) {
                    val turn = JsonObject(greedy + mapOf("threshold" to JsonPrimitive(0.0)))
                    compared += conversation(engine, listOf(turn), "${greedy["prompt"]} ${greedy["loops"]}")
                }
                for (talk in kit.all("conversations").filter(mine)) {
                    compared += conversation(engine, talk.all("turns"), talk["case"].toString())
                }
                println("app kit: $compared tokens under $policy equal the kit's")
                assertTrue(compared > 0)
            }
        }
    }

    private fun golden(engine: Engine, kit: JsonObject) {
        for (golden in kit.all("golden")) {
            engine.rewind(0)
            val logits = engine.step(kit.ints("input_ids").toIntArray(), golden.int("loops")).logits
            assertEquals(golden.int("argmax"), argmax(logits))
            (golden.getValue("logits") as JsonArray).forEachIndexed { row, value ->
                assertEquals(value.real(), logits[row * kit.int("every")].toDouble(), kit["tolerance"].real() + 5e-6)
            }
        }
    }

    private fun conversation(engine: Engine, turns: List<JsonObject>, name: String): Int {
        engine.rewind(0)
        var compared = 0
        for (turn in turns) {
            var step = prefill(engine, turn.ints("given"), turn.int("loops"))
            turn.ints("tokens").forEachIndexed { place, token ->
                if (place > 0) step = engine.step(intArrayOf(turn.ints("tokens")[place - 1]), turn.int("loops"), turn["threshold"].real())
                assertEquals(token, argmax(step.logits), "$name, token $place")
                if ("loops_used" in turn) assertEquals(turn.ints("loops_used")[place], step.loopsUsed, "$name, loops of token $place")
                compared++
            }
        }
        return compared
    }

    @Test
    fun `stops between two loops and holds nothing of the chunk`() = stopsBetweenLoops(engine)

    @Test
    fun `says that the context is full, and goes on afterwards`() = refusesBeyondTheContext(engine)

    @Test
    fun `a conversation that is built again gives the same logits`() {
        engine.rewind(0)
        engine.step(intArrayOf(0, 989, 918, 540), 6)
        engine.step(intArrayOf(199), 6)
        val grown = engine.step(intArrayOf(481), 6).logits
        engine.rewind(0)
        engine.step(intArrayOf(0, 989, 918, 540), 6)
        engine.step(intArrayOf(199), 6)
        assertTrue(grown.contentEquals(engine.step(intArrayOf(481), 6).logits))
    }

    @Test
    fun `refuses loops that the model does not have`() {
        for (loops in listOf(0, 17)) assertEquals(Kind.SETTING, assertThrows(Failure::class.java) { engine.step(intArrayOf(0), loops) }.kind)
    }

    @Test
    fun `says that a damaged graph cannot be loaded`(@TempDir copy: File) {
        folder.copyRecursively(copy, overwrite = true)
        File(copy, "model_recur.onnx").writeBytes(ByteArray(100) { 7 })
        assertEquals(Kind.ENGINE, assertThrows(Failure::class.java) { OrtEngine(copy, manifest) }.kind)
    }
}
