package dev.parcae.et

import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.readAppManifest
import dev.parcae.core.selfTest
import dev.parcae.testing.compareAnswers
import dev.parcae.testing.refusesBeyondTheContext
import dev.parcae.testing.stopsBetweenLoops
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** The engine over the Python package's runtime of the same file; executorch-android's native library is not run. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class EtEngineTest {
    private val models = File(System.getProperty("parcae.models"))
    private val folder = File(models, "parcae-tiny-pte")
    private val manifest = readAppManifest(File(folder, "app.json").readText())
    private val engine = EtEngine(PythonProgram(File(folder, "model.pte")), manifest)

    @AfterAll
    fun close() = engine.close()

    @Test
    fun `gives Python's greedy tokens at every T, early exit, rewind, chunks and the end of the context`() {
        val compared = compareAnswers(engine, File(models, "parcae-tiny-pte.answers.json"))
        println("parcae-tiny-pte: $compared greedy tokens equal Python's, ${engine.runtime}")
    }

    @Test
    fun `passes the self-test that came with the model`() {
        val rows = selfTest(engine, folder)
        assertTrue(rows.isNotEmpty() && rows.none { it.passed == false }, rows.toString())
    }

    @Test
    fun `stops between two loops and holds nothing of the chunk`() = stopsBetweenLoops(engine)

    @Test
    fun `refuses what a program's own caches cannot do, and goes on`() {
        val apart = manifest.copy(loops = manifest.loops.copy(earlyExit = false), cache = manifest.cache.copy(policy = "full"))
        val other = EtEngine(PythonProgram(File(folder, "model.pte")), apart)
        other.use {
            it.step(intArrayOf(0), 1)
            assertEquals(Kind.SETTING, assertThrows(Failure::class.java) { it.step(intArrayOf(5), 4) }.kind)
            assertEquals(Kind.SETTING, assertThrows(Failure::class.java) { it.step(intArrayOf(5), 1, threshold = 0.1) }.kind)
            assertEquals(manifest.paddedVocabSize, it.step(intArrayOf(5), 1).logits.size)
        }
    }

    @Test
    fun `says in a sentence that a program is damaged`(@TempDir copy: File) {
        val damaged = File(copy, "model.pte").apply { writeBytes(File(folder, "model.pte").readBytes().copyOf(1000)) }
        assertTrue("again" in assertThrows(ProgramError::class.java) { PythonProgram(damaged) }.message!!)
    }

    @Test
    fun `says that the context is full, and goes on afterwards`() = refusesBeyondTheContext(engine)
}
