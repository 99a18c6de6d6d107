package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.int
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.Base64

class ManifestVectorsTest {
    private val vectors = Vectors.read("manifest")

    private fun changed(value: JsonElement?, path: List<String>, set: JsonElement?): JsonElement? {
        if (path.isEmpty()) return set
        if (value is JsonArray) {
            return JsonArray(
                value.mapIndexed { place, item ->
                    if (place ==
                        path[0].toInt()
                    ) {
                        changed(item, path.drop(1), set)!!
                    } else {
                        item
                    }
                },
            )
        }
        val fields = (value as JsonObject).toMutableMap()
        val new = changed(fields[path[0]], path.drop(1), set)
        if (new == null) fields.remove(path[0]) else fields[path[0]] = new
        return JsonObject(fields)
    }

    private fun refusal(case: JsonObject, folder: File): Failure? {
        val contents = (vectors.getValue("contents") as JsonObject) + (case["files"] as? JsonObject ?: JsonObject(emptyMap()))
        for ((name, content) in contents) {
            if (content is JsonNull) continue
            File(folder, name).apply { parentFile.mkdirs() }.writeBytes(Base64.getDecoder().decode((content as JsonPrimitive).content))
        }
        val text = case.textOrNull("text") ?: case["changes"].let { changes ->
            (changes as? JsonArray).orEmpty().fold(vectors.getValue("base")) { value, change ->
                val path = (change as JsonObject).texts("path")
                changed(value, path, change["set"])!!
            }.toString()
        }
        val app = vectors.getValue("app") as JsonObject
        return try {
            val spaces = (case["bytes"]?.let { case.number("bytes") } ?: 0) - text.toByteArray().size
            val manifest = readAppManifest(text + " ".repeat(maxOf(0, spaces)))
            checkRuntime(manifest, app.text("platform"), app.text("runtime"), app.text("version"))
            checkFiles(manifest, folder)
            null
        } catch (failure: Failure) {
            failure
        }
    }

    @Test
    fun `takes and refuses what the kit does, by kind`(@TempDir folder: File) {
        Vectors.cases("manifest", "cases").forEachIndexed { place, case ->
            val found = refusal(case, File(folder, "$place").apply { mkdirs() })
            val name = case.text("case")
            if (case["kind"] is JsonNull) {
                assertNull(found, name)
            } else {
                assertEquals(case.text("kind").uppercase(), found?.kind?.name, "$name: ${found?.message}")
                case.textOrNull("where")?.let { assertEquals(it, found?.where, name) }
            }
        }
    }

    @Test
    fun `compares versions`() {
        for (case in Vectors.cases("manifest", "versions")) {
            val enough = (case.getValue("enough") as JsonPrimitive).boolean
            assertEquals(enough, isAtLeast(case.text("version"), case.text("minimum")), case.toString())
        }
    }

    @Test
    fun `estimates memory in whole bytes`() {
        for (case in Vectors.cases("memory", "estimates")) {
            val given = case.getValue("memory") as JsonObject
            val need = MemoryNeed(
                given.large("weights"), given.large("cache_per_token"), given.large("cache_per_token_and_slot"), given.number("slots"),
                given.large("work_per_chunk_token"), given.large("work"), given.large("overhead_percent"),
            )
            assertEquals(case.large("bytes"), need.estimate(case.number("loops"), case.number("tokens"), case.number("chunk")), case.toString())
        }
    }
}
