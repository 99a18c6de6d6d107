package dev.parcae.ort

import dev.parcae.core.Failure
import dev.parcae.core.FileSource
import dev.parcae.core.Generator
import dev.parcae.core.Kind
import dev.parcae.core.LEAST_CAPACITY
import dev.parcae.core.ModelStore
import dev.parcae.core.Request
import dev.parcae.core.Tokenizer
import dev.parcae.core.checkFiles
import dev.parcae.core.checkRuntime
import dev.parcae.core.readAppManifest
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer

/** What can go wrong on a phone: each is a sentence, and the model in memory answers afterwards as before. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class HostileTest {
    private val folder = File(System.getProperty("parcae.models"), "parcae-tiny")
    private val manifest = readAppManifest(File(folder, "app.json").readText())
    private val tokenizer = Tokenizer.read(File(folder, "tokenizer.json"))
    private val engine = OrtEngine(folder, manifest, threads = 1)
    private val expected = answer()

    @AfterAll
    fun close() = engine.close()

    private fun answer(): List<Int> {
        val generator = Generator(engine, tokenizer).apply { restore(emptyList()) }
        return generator.answer(generator.messageIds("import os\n\n\ndef "), Request(4, 16)).ids
    }

    private fun refused(kind: Kind, work: () -> Unit) {
        val failure = assertThrows(Failure::class.java, { work() }, kind.name)
        assertEquals(kind, failure.kind, failure.message)
        assertTrue(failure.message.length > 20 && failure.message.endsWith("."), failure.message)
        assertEquals(expected, answer(), "the answer after: ${failure.message}")
    }

    private fun source(from: File) = object : FileSource {
        override fun open(name: String) = File(from, name).takeIf { it.isFile }?.inputStream()
    }

    @Test
    fun `truncated weights`(@TempDir copy: File, @TempDir models: File) {
        folder.copyRecursively(copy, overwrite = true)
        RandomAccessFile(File(copy, "weights.data"), "rw").use { it.setLength(it.length() / 2) }
        refused(Kind.SIZE) { checkFiles(manifest, copy) }
        refused(Kind.SIZE) { ModelStore(models).add(source(copy), {}) }
        refused(Kind.ENGINE) { OrtEngine(copy, manifest, threads = 1) }
    }

    @Test
    fun `a wrong hash`(@TempDir copy: File) {
        folder.copyRecursively(copy, overwrite = true)
        RandomAccessFile(File(copy, "weights.data"), "rw").use { file ->
            val first = file.read()
            file.seek(0)
            file.write(first xor 1)
        }
        refused(Kind.CHECKSUM) { checkFiles(manifest, copy) }
    }

    @Test
    fun `a runtime older than the model needs`() {
        refused(Kind.RUNTIME) { checkRuntime(manifest, "android", "onnxruntime", "1.20.0") }
        refused(Kind.RUNTIME) { checkRuntime(manifest, "android", "executorch", "1.4.1") }
    }

    @Test
    fun `a zip in place of a folder`(@TempDir picked: File, @TempDir models: File) {
        File(picked, "parcae-tiny.zip").writeBytes(byteArrayOf(0x50, 0x4b, 3, 4))
        refused(Kind.IMPORT) { ModelStore(models).add(source(picked), {}) }
        File(picked, "app.json").writeBytes(byteArrayOf(0x50, 0x4b, 3, 4))
        refused(Kind.JSON) { ModelStore(models).add(source(picked), {}) }
    }

    @Test
    fun `the end of the context`() {
        refused(Kind.CONTEXT) {
            val generator = Generator(engine, tokenizer).apply { restore(List(manifest.cache.context) { 5 }) }
            generator.answer(listOf(7), Request(1, 1))
        }
    }

    @Test
    fun `no memory left for a longer conversation`() {
        OrtEngine(folder, manifest, threads = 1).use { other ->
            for (start in 0 until LEAST_CAPACITY step CHUNK) other.step(IntArray(CHUNK) { 5 }, 4)
            other.rewind(LEAST_CAPACITY - 1)
            val before = other.step(intArrayOf(9), 4).logits
            val taken = ArrayList<ByteBuffer>()
            assertThrows(OutOfMemoryError::class.java) { while (true) taken.add(ByteBuffer.allocateDirect(BLOCK)) }
            val failure = assertThrows(Failure::class.java) { other.step(intArrayOf(9), 4) }
            assertEquals(Kind.MEMORY, failure.kind, failure.message)
            assertTrue("start a new conversation" in failure.message, failure.message)
            other.rewind(LEAST_CAPACITY - 1)
            assertTrue(before.contentEquals(other.step(intArrayOf(9), 4).logits), "the old caches, with no memory to be had")
            taken.clear()
            repeat(3) { other.step(IntArray(CHUNK) { 5 }, 4) }
            assertEquals(LEAST_CAPACITY + 3 * CHUNK, other.length)
        }
        assertEquals(expected, answer())
    }

    private companion object {
        const val CHUNK = 128
        const val BLOCK = 1 shl 14
    }
}
