package dev.parcae.core

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.intOrNull
import kotlinx.serialization.json.longOrNull

/** The value of a JSON text, null if it is none. */
fun parseJson(text: String): JsonElement? =
    try {
        Json.parseToJsonElement(text)
    } catch (_: SerializationException) {
        null
    } catch (_: StackOverflowError) {
        null
    }

/**
 * Typed access to the fields of a JSON object, each of which has to be there. Unknown ones are ignored.
 *
 * Every method throws a [Failure] of [kind] that names the field.
 */
class Fields(val values: JsonObject, private val path: String = "", private val kind: Kind = Kind.FIELD) {
    fun refuse(name: String, why: String): Nothing {
        val where = if (path.isEmpty()) name else "$path.$name"
        throw Failure(kind, "This file is damaged: $where $why. Copy it again.", where)
    }

    private fun primitive(name: String): JsonPrimitive =
        values[name] as? JsonPrimitive ?: refuse(name, "is missing or no plain value")

    fun isNull(name: String): Boolean = (values[name] ?: refuse(name, "is missing")) is JsonNull

    fun has(name: String): Boolean = values[name].let { it != null && it !is JsonNull }

    fun text(name: String): String =
        primitive(name).takeIf { it.isString }?.content ?: refuse(name, "is no text")

    fun text(name: String, pattern: Regex): String =
        text(name).also { if (!pattern.matches(it)) refuse(name, "is not of the form $pattern") }

    fun text(name: String, choices: Set<String>): String =
        text(name).also { if (it !in choices) refuse(name, "is none of ${choices.joinToString()}") }

    fun flag(name: String): Boolean =
        primitive(name).takeIf { !it.isString }?.booleanOrNull ?: refuse(name, "is neither true nor false")

    fun count(name: String, least: Int = 0): Int = whole(name, primitive(name), least)

    fun long(name: String): Long =
        primitive(name).takeIf { !it.isString }?.longOrNull?.takeIf { it >= 0 } ?: refuse(name, "is no count")

    fun number(name: String): Double? {
        if (isNull(name)) return null
        return primitive(name).takeIf { !it.isString }?.doubleOrNull ?: refuse(name, "is no number")
    }

    fun counts(name: String, least: Int = 0): List<Int> =
        list(name).map { whole(name, it as? JsonPrimitive ?: refuse(name, "holds no plain values"), least) }

    fun list(name: String): JsonArray = values[name] as? JsonArray ?: refuse(name, "is no list")

    fun part(name: String): Fields {
        val found = values[name] as? JsonObject ?: refuse(name, "is missing or no object")
        return Fields(found, if (path.isEmpty()) name else "$path.$name", kind)
    }

    fun parts(name: String): Map<String, Fields> = part(name).let { group ->
        group.values.keys.associateWith { group.part(it) }
    }

    fun texts(name: String): Map<String, String> = part(name).let { group ->
        group.values.keys.associateWith { group.text(it) }
    }

    private fun whole(name: String, value: JsonPrimitive, least: Int): Int =
        value.takeIf { !it.isString }?.intOrNull?.takeIf { it >= least } ?: refuse(name, "is no count of at least $least")
}
