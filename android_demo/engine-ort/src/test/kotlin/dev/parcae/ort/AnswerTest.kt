package dev.parcae.ort

import dev.parcae.core.Ending
import dev.parcae.core.Failure
import dev.parcae.core.Generator
import dev.parcae.core.Kind
import dev.parcae.core.Request
import dev.parcae.core.Sampling
import dev.parcae.core.Tokenizer
import dev.parcae.core.readAppManifest
import dev.parcae.core.selfTest
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** Whole answers: messages, sampling, stopping, regenerating, and the self-test, on the real model. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class AnswerTest {
    private val folder = File(System.getProperty("parcae.models"), "parcae-tiny")
    private val manifest = readAppManifest(File(folder, "app.json").readText())
    private val tokenizer = Tokenizer.read(File(folder, "tokenizer.json"))
    private val engine = OrtEngine(folder, manifest, threads = 1)

    @AfterAll
    fun close() = engine.close()

    private fun generator() = Generator(engine, tokenizer).apply { restore(emptyList()) }

    @Test
    fun `shows the text that its tokens are, with the loops and the convergence of each`() {
        val generator = generator()
        val shown = StringBuilder()
        val loops = ArrayList<Int>()
        val answer = generator.answer(generator.messageIds("import os\n\n\ndef "), Request(8, 24)) { token ->
            shown.append(token.text)
            loops.add(token.loops)
            assertEquals(loops, token.metrics.loops)
            if (token.change != null) assertTrue(token.change!! in 0f..2f)
        }
        assertEquals(Ending.LENGTH, answer.ending)
        assertEquals(24, answer.ids.size)
        assertEquals(answer.text, shown.toString())
        assertEquals(tokenizer.decode(answer.ids), answer.text)
        assertTrue(loops.all { it == 8 })
        assertEquals(24, answer.metrics.tokens)
        assertTrue(answer.metrics.firstTokenSeconds > 0 && answer.metrics.tokenRate > 0 && answer.metrics.loopRate > answer.metrics.tokenRate)
    }

    @Test
    fun `regenerates at another T from the same message`() {
        val generator = generator()
        val message = generator.messageIds("class Stack:\n    def __init__(self):\n")
        val first = generator.answer(message, Request(1, 16)).text
        generator.rewind(0)
        val second = generator.answer(message, Request(8, 16)).text
        generator.rewind(0)
        assertEquals(first, generator.answer(message, Request(1, 16)).text)
        assertNotEquals(first, second)
    }

    @Test
    fun `a kept conversation goes on as if it had not been closed`() {
        val generator = generator()
        generator.answer(generator.messageIds("def area("), Request(4, 1))
        val kept = generator.ids.toList()
        val here = generator.answer(generator.messageIds("self"), Request(4, 12)).ids
        val later = Generator(engine, tokenizer)
        later.restore(kept)
        assertEquals(here, later.answer(later.messageIds("self"), Request(4, 12)).ids)
    }

    @Test
    fun `stops when asked, keeps what was shown, and goes on`() {
        val generator = generator()
        var tokens = 0
        val answer = generator.answer(generator.messageIds("import os\n"), Request(8, 200), { tokens >= 5 }) { tokens++ }
        assertEquals(Ending.STOPPED, answer.ending)
        assertEquals(5, answer.ids.size)
        assertEquals(Ending.LENGTH, generator.answer(generator.messageIds("\nimport"), Request(2, 3)).ending)
    }

    @Test
    fun `ends at a stop text and at the end of the context`() {
        val generator = generator()
        val free = generator.answer(generator.messageIds("import os\n\n\ndef "), Request(4, 20)).text
        val stop = free.substring(6, 9)
        generator.restore(emptyList())
        val answer = generator.answer(generator.messageIds("import os\n\n\ndef "), Request(4, 20, stops = listOf(stop)))
        assertEquals(Ending.STOP_TEXT, answer.ending)
        assertFalse(stop in answer.text)
        generator.restore(List(manifest.cache.context - 4) { 5 })
        assertEquals(Ending.CONTEXT, generator.answer(listOf(5), Request(1, 100)).ending)
        assertEquals(Kind.CONTEXT, assertThrows(Failure::class.java) { generator.answer(listOf(5, 5), Request(1, 1)) }.kind)
    }

    @Test
    fun `a seed gives the same answer, another seed another one`() {
        val texts = listOf(1L, 1L, 2L).map { seed ->
            val generator = generator()
            generator.answer(generator.messageIds("def "), Request(4, 24, Sampling(temperature = 1.2, topK = 40, seed = seed))).text
        }
        assertEquals(texts[0], texts[1])
        assertNotEquals(texts[0], texts[2])
    }

    @Test
    fun `the self-test passes on the model, and fails on a model that computes something else`(@TempDir copy: File) {
        val rows = selfTest(engine, folder)
        assertTrue(rows.isNotEmpty() && rows.all { it.passed == true && it.tokensEqual == it.tokens }, rows.toString())
        folder.copyRecursively(copy, overwrite = true)
        val weights = File(copy, "weights.data").readBytes()
        for (place in weights.size / 2 until weights.size / 2 + 20_000) weights[place] = (weights[place].toInt() xor 0x11).toByte()
        File(copy, "weights.data").writeBytes(weights)
        OrtEngine(copy, manifest, threads = 1).use { other -> assertTrue(selfTest(other, copy).any { it.passed == false }) }
    }
}
