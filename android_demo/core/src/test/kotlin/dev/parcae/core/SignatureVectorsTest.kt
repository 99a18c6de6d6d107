package dev.parcae.core

import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.ByteArrayInputStream
import java.io.File

class SignatureVectorsTest {
    private val cases = Vectors.cases("signature", "cases")

    private fun bytes(hex: String) = hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()

    @Test
    fun `takes and refuses what the kit does`() {
        for (case in cases) {
            val found = try {
                checkSignature(case.text("manifest").toByteArray(), case.textOrNull("signature")?.let(::bytes), case.text("key"))
                null
            } catch (failure: Failure) {
                failure.kind
            }
            val valid = (case.getValue("valid") as JsonPrimitive).boolean
            assertEquals(if (valid) null else Kind.SIGNATURE, found, case.text("case"))
        }
    }

    @Test
    fun `a key that is none is refused`() {
        assertEquals(Kind.SIGNATURE, assertThrows(Failure::class.java) { checkSignature(ByteArray(0), ByteArray(64), "xyz") }.kind)
    }

    @Test
    fun `a store that pins a key refuses an unsigned model before it reads it`(@TempDir folder: File) {
        val source = object : FileSource {
            override fun open(name: String) = if (name == APP_MANIFEST) ByteArrayInputStream("{".toByteArray()) else null
        }
        val key = cases.first().text("key")
        val failure = assertThrows(Failure::class.java) { ModelStore(folder, key).add(source, accept = {}) }
        assertEquals(Kind.SIGNATURE, failure.kind)
        assertEquals(emptyList<String>(), folder.list()!!.toList())
    }
}
