package dev.parcae.core

import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import java.io.File

class TokenizerVectorsTest {
    private val tokenizers = (Vectors.read("tokenizer").getValue("tokenizers") as JsonObject).mapValues { (name, entry) ->
        val file = if (name ==
            "embedded"
        ) {
            File(System.getProperty("parcae.embedded"), "tokenizer.json")
        } else {
            File(Vectors.kit, (entry as JsonObject).text("file"))
        }
        assertEquals((entry as JsonObject).text("sha256"), file.inputStream().use { sha256(it) }, "the file of $name")
        Tokenizer.read(file)
    }

    private fun of(case: JsonObject) = tokenizers.getValue(case.text("tokenizer"))

    private fun name(case: JsonObject) = "${case.text("tokenizer")}: ${case.text("case")}"

    @Test
    fun `encodes every text`() {
        for (case in Vectors.cases("tokenizer", "encode")) {
            assertEquals(case.numbers("ids"), of(case).encode(case.text("text")).toList(), name(case))
            assertEquals(case.text("decoded"), of(case).decode(case.numbers("ids")), name(case))
        }
    }

    @Test
    fun `reads lone halves of surrogate pairs as U+FFFD`() {
        for (case in Vectors.cases("tokenizer", "encode_utf16")) {
            val text = String(CharArray(case.numbers("utf16").size) { case.numbers("utf16")[it].toChar() })
            assertEquals(case.numbers("ids"), of(case).encode(text).toList(), name(case))
        }
    }

    @Test
    fun `decodes`() {
        for (case in Vectors.cases("tokenizer", "decode")) {
            assertEquals(case.text("decoded"), of(case).decode(case.numbers("ids")), name(case))
        }
    }

    @Test
    fun `streams text that never ends inside of a character`() {
        for (case in Vectors.cases("tokenizer", "stream")) {
            val stream = TextStream(of(case))
            val pieces = case.numbers("ids").map { stream.feed(it) } + stream.finish()
            assertEquals(case.text("text"), pieces.joinToString(""), name(case))
            if (case["pieces"] !is JsonNull) assertEquals(case.texts("pieces"), pieces, name(case))
        }
    }

    @Test
    fun `refuses what it does not know by name`() {
        val file = File(System.getProperty("parcae.embedded"), "tokenizer.json").readText()
        val metaspace = file.replaceFirst("\"ByteLevel\"", "\"Metaspace\"")
        assertEquals(Kind.TOKENIZER, assertThrows(Failure::class.java) { Tokenizer.parse(metaspace) }.kind)
        assertEquals(Kind.TOKENIZER, assertThrows(Failure::class.java) { Tokenizer.parse("{\"model\": 1}") }.kind)
        assertEquals(Kind.TOKENIZER, assertThrows(Failure::class.java) { Tokenizer.parse("nothing") }.kind)
    }
}
