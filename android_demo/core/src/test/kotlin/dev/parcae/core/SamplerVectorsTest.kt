package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.double
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class SamplerVectorsTest {
    private fun settings(values: JsonObject) = Sampling(
        temperature = values["temperature"]?.let { values.real("temperature") } ?: 0.0,
        topK = values["top_k"]?.let { values.number("top_k") } ?: 0,
        topP = values["top_p"]?.let { values.real("top_p") } ?: 1.0,
        minP = values["min_p"]?.let { values.real("min_p") } ?: 0.0,
        repetitionPenalty = values["repetition_penalty"]?.let { values.real("repetition_penalty") } ?: 1.0,
        seed = values["seed"]?.let { values.large("seed") } ?: 0,
    )

    private fun logits(value: JsonElement): FloatArray {
        if (value is JsonObject) {
            val random = Random(value.large("seed"))
            return FloatArray(value.number("count")) { (random.uniform() * 20 - 10).toFloat() }
        }
        return (value as JsonArray).map {
            when {
                it is JsonNull -> Float.NEGATIVE_INFINITY
                (it as JsonPrimitive).content == "nan" -> Float.NaN
                it.content == "inf" -> Float.POSITIVE_INFINITY
                it.content == "-inf" -> Float.NEGATIVE_INFINITY
                else -> it.double.toFloat()
            }
        }.toFloatArray()
    }

    @Test
    fun `the generator gives the kit's words and numbers`() {
        for (case in Vectors.cases("sampler", "random")) {
            val words = Random(case.large("seed"))
            val expected = (case.getValue("words") as JsonArray).map { (it as JsonPrimitive).content }
            assertEquals(expected, expected.map { words.word().toUInt().toString() })
            val numbers = Random(case.large("seed"))
            for (uniform in case.getValue("uniforms") as JsonArray) assertEquals((uniform as JsonPrimitive).double, numbers.uniform())
        }
    }

    @Test
    fun `draws the kit's tokens`() {
        for (case in Vectors.cases("sampler", "choose")) {
            val sampler = Sampler(settings(case.getValue("settings") as JsonObject))
            val values = logits(case.getValue("logits"))
            val history = case.numbers("history").toMutableList()
            val drawn = case.numbers("tokens").map { sampler.choose(values, history).also { token -> history.add(token) } }
            assertEquals(case.numbers("tokens"), drawn, case.text("case"))
        }
    }

    @Test
    fun `refuses settings that make no sense`() {
        for (case in Vectors.cases("sampler", "bad_settings")) {
            val failure = assertThrows(Failure::class.java, { settings(case.getValue("settings") as JsonObject) }, case.text("case"))
            assertEquals(Kind.SETTING, failure.kind)
        }
    }

    @Test
    fun `refuses logits that are no numbers`() {
        for (case in Vectors.cases("sampler", "bad_logits")) {
            for (temperature in listOf(0.0, 1.0)) {
                val failure = assertThrows(Failure::class.java, {
                    Sampler(Sampling(temperature)).choose(logits(case.getValue("logits")))
                }, case.text("case"))
                assertEquals(Kind.LOGITS, failure.kind)
            }
        }
    }
}
