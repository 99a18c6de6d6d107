package dev.parcae.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.InputStream

class StoreTest {
    private val bundled = File(System.getProperty("parcae.models"), "parcae-tiny")

    private class Folder(private val folder: File, private val changed: Map<String, ByteArray?> = emptyMap()) : FileSource {
        override fun open(name: String) =
            if (name in changed) changed[name]?.inputStream() else File(folder, name).takeIf { it.isFile }?.inputStream()
    }

    private fun add(store: ModelStore, source: FileSource, free: Long = Long.MAX_VALUE, version: String = "1.29.0") =
        store.add(source, { checkRuntime(it, "android", "onnxruntime", version) }, free)

    @Test
    fun `takes a bundled model in whole, and again in its place`(@TempDir folder: File) {
        val store = ModelStore(folder)
        val told = ArrayList<Long>()
        store.add(Folder(bundled), {}, progress = { done, _ -> told.add(done) })
        add(store, Folder(bundled))
        assertEquals(listOf("parcae-tiny"), store.list().map { it.manifest.name })
        assertEquals(store.list()[0].manifest.bytes, told.last())
        checkFiles(store.list()[0].manifest, store.list()[0].folder)
        store.remove("parcae-tiny")
        assertTrue(store.list().isEmpty())
    }

    @Test
    fun `refuses what is damaged or cannot run, in a sentence, and leaves nothing behind`(@TempDir folder: File) {
        val store = ModelStore(folder)
        val weights = File(bundled, "weights.data").readBytes()
        val changed = weights.copyOf().also { it[1000] = (it[1000] + 1).toByte() }
        val cases = listOf(
            Kind.SIZE to Folder(bundled, mapOf("weights.data" to weights.copyOf(weights.size - 1))),
            Kind.SIZE to Folder(bundled, mapOf("weights.data" to weights.copyOf(weights.size + 1))),
            Kind.CHECKSUM to Folder(bundled, mapOf("weights.data" to changed)),
            Kind.MISSING to Folder(bundled, mapOf("model_coda.onnx" to null)),
            Kind.JSON to Folder(bundled, mapOf("app.json" to "PK\u0003\u0004".toByteArray())),
            Kind.JSON to Folder(bundled, mapOf("app.json" to File(bundled, "app.json").readBytes().copyOf(MOST_MANIFEST + 1))),
            Kind.IMPORT to Folder(folder),
        )
        for ((kind, source) in cases) {
            val failure = assertThrows(Failure::class.java, { add(store, source) }, kind.name)
            assertEquals(kind, failure.kind, failure.message)
            assertTrue(failure.message.endsWith(".") && failure.message.length > 20, failure.message)
        }
        assertEquals(Kind.RUNTIME, assertThrows(Failure::class.java) { add(store, Folder(bundled), version = "1.20.0") }.kind)
        assertEquals(Kind.IMPORT, assertThrows(Failure::class.java) { add(store, Folder(bundled), free = 1000) }.kind)
        assertTrue(folder.listFiles()!!.isEmpty())
    }

    @Test
    fun `reads no more of an endless file than its kind can have`(@TempDir folder: File) {
        class Endless : InputStream() {
            var taken = 0

            override fun read() = ' '.code.also { taken++ }
        }

        val files = mapOf(APP_MANIFEST to Endless(), APP_SIGNATURE to Endless())
        val source = object : FileSource {
            override fun open(name: String) = files[name]
        }
        val failure = assertThrows(Failure::class.java) { ModelStore(folder, "a".repeat(64)).add(source, accept = {}) }
        assertEquals(Kind.JSON, failure.kind)
        assertTrue("more than $MOST_MANIFEST bytes" in failure.message, failure.message)
        assertEquals(MOST_MANIFEST + 1, files.getValue(APP_MANIFEST).taken)
        assertEquals(SIGNATURE_BYTES + 1, files.getValue(APP_SIGNATURE).readStart(SIGNATURE_BYTES).size)
        assertEquals(SIGNATURE_BYTES + 1, files.getValue(APP_SIGNATURE).taken)
        assertArrayEquals(ByteArray(3), ByteArray(3).inputStream().readStart(3))
    }

    @Test
    fun `keeps, finds, searches and deletes conversations, and leaves out what it cannot read`(@TempDir folder: File) {
        val store = Conversations(File(folder, "kept"))
        val talk = Conversation(
            "one", "parcae-tiny", 5,
            listOf(Message(true, "Wörter \uD83D\uDE00\n\"x\"", listOf(0, 5)), Message(false, "answer", listOf(7), 8, 3.5, 12.25, "LENGTH")),
        )
        store.keep(talk)
        store.keep(talk.copy(id = "two", changed = 9, messages = talk.messages.take(1)))
        File(folder, "kept/broken.json").writeText("{")
        assertEquals(listOf("two", "one"), store.list().map { it.id })
        assertEquals(listOf("one"), store.list("ANSWER").map { it.id })
        assertEquals(talk, store.find("one"))
        assertEquals(listOf(0, 5, 7), store.find("one")!!.ids)
        assertTrue("(T=8, parcae-tiny)" in talk.plainText())
        store.delete("one")
        assertNull(store.find("one"))
        assertTrue(File(folder, "kept/broken.json").exists())
    }

    @Test
    fun `says what does not fit into memory before anything is loaded`() {
        val manifest = readAppManifest(File(bundled, "app.json").readText())
        checkMemory(manifest, 8, manifest.memoryNeeded(8))
        val failure = assertThrows(Failure::class.java) { checkMemory(manifest, 8, manifest.memoryNeeded(8) - 1) }
        assertEquals(Kind.MEMORY, failure.kind)
    }

    @Test
    fun `gives fewer loops to a warm phone or a low battery, never less than the least, and says why`() {
        val range = LoopRange("stages", 1, 16, 6, emptyList())
        assertEquals(Thrift(8, null), savedLoops(8, range, Heat.LIGHT, 90))
        assertEquals(4, savedLoops(8, range, Heat.MODERATE, null).loops)
        assertEquals(2, savedLoops(8, range, Heat.SEVERE, 15).loops)
        assertEquals(1, savedLoops(1, range, Heat.CRITICAL, 5).loops)
        assertEquals("4 loops in place of 8: the battery is at 15 %", savedLoops(8, range, Heat.NONE, 15).reason)
        assertEquals(2, savedLoops(6, LoopRange("unrolled", 2, 8, 4, listOf(2, 4, 8)), Heat.SEVERE, null).loops)
    }
}
