package dev.parcae.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import java.io.File

class StopVectorsTest {
    @Test
    fun `stops at texts wherever pieces are cut`() {
        for (case in Vectors.cases("stop", "texts")) {
            val stop = StopTexts(case.texts("stops"))
            assertEquals(case.texts("shown"), case.texts("pieces").map { stop.feed(it) }, case.text("case"))
            assertEquals(case.text("rest"), stop.finish(), case.text("case"))
            assertEquals(case.textOrNull("found"), stop.found, case.text("case"))
        }
    }

    @Test
    fun `ends an answer at a text or at an id, and shows no more than what came before`() {
        val tokenizer = Tokenizer.read(File(System.getProperty("parcae.embedded"), "tokenizer.json"))
        val bundled = readAppManifest(File(System.getProperty("parcae.models"), "parcae-tiny/app.json").readText())
        for (case in Vectors.cases("stop", "tokens")) {
            val manifest = bundled.copy(tokenizer = bundled.tokenizer!!.copy(stop = case.numbers("stop_ids")))
            val shown = StringBuilder()
            val generator = Generator(Told(manifest, case.numbers("ids")), tokenizer)
            val request = Request(1, case.numbers("ids").size, stops = case.texts("stops"))
            val answer = generator.answer(listOf(5), request) { shown.append(it.text) }
            assertEquals(case.text("text"), answer.text, case.text("case"))
            assertEquals(answer.text, shown.toString(), case.text("case"))
            assertEquals(case.numbers("ids").take(case.number("used")), answer.ids, case.text("case"))
            val ending = mapOf("text" to Ending.STOP_TEXT, "id" to Ending.STOP_TOKEN, null to Ending.LENGTH)
            assertEquals(ending.getValue(case.textOrNull("ended_by")), answer.ending, case.text("case"))
        }
    }

    @Test
    fun `refuses an empty stop`() {
        for (case in Vectors.cases("stop", "bad")) assertThrows(Failure::class.java) { StopTexts(case.texts("stops")) }
    }

    /** Prefers [ids] one after the other, as a vector says that a model does. */
    private class Told(override val manifest: AppManifest, private val ids: List<Int>) : Engine {
        override val runtime = "vector"
        override val cacheBytes = 0L
        override var length = 0
        private var calls = 0

        override fun step(ids: IntArray, loops: Int, threshold: Double, measure: Boolean, stopped: () -> Boolean): Step {
            length += ids.size
            val logits = FloatArray(manifest.paddedVocabSize).also { it[this.ids[calls++]] = 1f }
            return Step(logits, loops, FloatArray(0))
        }

        override fun rewind(held: Int) {
            length = held
        }

        override fun close() = Unit
    }
}
