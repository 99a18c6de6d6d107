package dev.parcae.core

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** Tokens to text, by the steps of a `tokenizer.json`. */
internal class TokenDecoder private constructor(private val steps: List<(List<String>) -> List<String>>) {
    fun decode(tokens: List<String>): String = steps.fold(tokens) { value, step -> step(value) }.joinToString("")

    companion object {
        private val BYTE = Regex("<0x([0-9A-Fa-f]{2})>")

        fun of(part: JsonElement?) = TokenDecoder(sequence(part, "decoders").map { step(it) })

        private fun step(part: JsonObject): (List<String>) -> List<String> {
            val fields = Fields(part, "decoder", Kind.TOKENIZER)
            return when (val type = typeOf(part)) {
                "ByteLevel" -> { tokens -> listOf(readBytes(tokens)) }
                "Replace" -> plainPattern(part).let { old -> fields.text("content").let { new -> { tokens -> tokens.map { it.replace(old, new) } } } }
                "ByteFallback" -> { tokens -> joinBytes(tokens) }
                "Fuse" -> { tokens -> listOf(tokens.joinToString("")) }
                "Strip" -> strip(fields.text("content"), fields.count("start"), fields.count("stop"))
                else -> unknownPart("the decoder $type")
            }
        }

        private fun readBytes(tokens: List<String>): String {
            val bytes = ByteArrayOutputStream()
            for (token in tokens) bytes.write(ByteAlphabet.read(token))
            return Utf8.text(bytes.toByteArray())
        }

        /** Runs of byte tokens become their text, or one U+FFFD for each byte if they have none. */
        private fun joinBytes(tokens: List<String>): List<String> {
            val joined = ArrayList<String>()
            val run = ByteArrayOutputStream()

            fun endRun() {
                if (run.size() > 0) joined.add(Utf8.strict(run.toByteArray()) ?: "\uFFFD".repeat(run.size()))
                run.reset()
            }
            for (token in tokens) {
                val byte = BYTE.matchEntire(token)
                if (byte != null) {
                    run.write(byte.groupValues[1].toInt(16))
                } else {
                    endRun()
                    joined.add(token)
                }
            }
            endRun()
            return joined
        }

        private fun strip(content: String, start: Int, stop: Int): (List<String>) -> List<String> = { tokens ->
            tokens.map { token ->
                var text = token
                for (turn in 0 until start) text = text.removePrefix(content)
                for (turn in 0 until stop) text = text.removeSuffix(content)
                text
            }
        }
    }
}

/** UTF-8 to text, the same on every Java: one U+FFFD for each longest beginning of a character that never becomes whole. */
internal object Utf8 {
    fun strict(bytes: ByteArray): String? =
        try {
            Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
        } catch (_: CharacterCodingException) {
            null
        }

    fun text(bytes: ByteArray): String {
        val text = StringBuilder(bytes.size)
        var place = 0
        while (place < bytes.size) {
            val length = wholeLength(bytes, place)
            if (length > 0) text.append(String(bytes, place, length, Charsets.UTF_8)) else text.append('\uFFFD')
            place += if (length > 0) length else -length
        }
        return text.toString()
    }

    /** Bytes of the character at [place], or minus the bytes of a beginning that is none. */
    private fun wholeLength(bytes: ByteArray, place: Int): Int {
        val first = bytes[place].toInt() and 0xFF
        val length = when (first) {
            in 0x00..0x7F -> return 1
            in 0xC2..0xDF -> 2
            in 0xE0..0xEF -> 3
            in 0xF0..0xF4 -> 4
            else -> return -1
        }
        for (step in 1 until length) {
            val following = if (place + step < bytes.size) bytes[place + step].toInt() and 0xFF else return -step
            if (following !in allowed(first, step)) return -step
        }
        return length
    }

    private fun allowed(first: Int, step: Int): IntRange = when {
        step > 1 -> 0x80..0xBF
        first == 0xE0 -> 0xA0..0xBF
        first == 0xED -> 0x80..0x9F
        first == 0xF0 -> 0x90..0xBF
        first == 0xF4 -> 0x80..0x8F
        else -> 0x80..0xBF
    }
}
