package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.long
import java.io.File

/** The app kit's vectors, the same for every language. */
object Vectors {
    val kit = File(System.getProperty("parcae.kit"))

    fun read(name: String): JsonObject = parseJson(File(kit, "vectors/$name.json").readText()) as JsonObject

    fun cases(name: String, list: String): List<JsonObject> = (read(name)[list] as JsonArray).map { it as JsonObject }
        .also { check(it.isNotEmpty()) { "$name has no $list" } }
}

fun JsonObject.text(name: String): String = (getValue(name) as JsonPrimitive).content

fun JsonObject.textOrNull(name: String): String? = get(name)?.let { it as? JsonPrimitive }?.takeIf { it.isString }?.content

fun JsonObject.number(name: String): Int = (getValue(name) as JsonPrimitive).int

fun JsonObject.large(name: String): Long = (getValue(name) as JsonPrimitive).long

fun JsonObject.real(name: String): Double = (getValue(name) as JsonPrimitive).double

fun JsonObject.numbers(name: String): List<Int> = (getValue(name) as JsonArray).map { (it as JsonPrimitive).int }

fun JsonObject.texts(name: String): List<String> = (getValue(name) as JsonArray).map { (it as JsonPrimitive).content }

fun JsonObject.parts(name: String): List<JsonObject> = (getValue(name) as JsonArray).map { it as JsonObject }

fun JsonElement.numbers(): List<Int> = (this as JsonArray).map { (it as JsonPrimitive).int }
