package dev.parcae.ort

import dev.parcae.core.Conditions
import dev.parcae.core.Heat
import dev.parcae.core.Measured
import dev.parcae.core.benchmark
import dev.parcae.core.firstToken
import dev.parcae.core.memoryBandwidth
import dev.parcae.core.readAppManifest
import dev.parcae.core.report
import dev.parcae.core.selfTest
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File

/** The benchmark as a person sends it back. `android_demo/tools/check.py` gives the table to `parcae-export bench --show`. */
class ReportTest {
    private val folder = File(System.getProperty("parcae.models"), "parcae-tiny")
    private val manifest = readAppManifest(File(folder, "app.json").readText())

    @Test
    fun `measures a real model at every T and context, and writes the table that bench reads`() {
        val device = buildJsonObject {
            put("maker", "JVM")
            put("model", System.getProperty("os.arch"))
            put("cores", 1)
        }
        OrtEngine(folder, manifest, threads = 1).use { engine ->
            val cold = firstToken(engine)
            assertTrue(cold > 0 && engine.length == 0)
            val tests = selfTest(engine, folder)
            val rows = benchmark(engine)
            assertEquals(listOf(1, 4, 8, 1, 4, 8), rows.map { it.loops })
            assertEquals(listOf(128, 128, 128, 512, 512, 512), rows.map { it.context })
            assertTrue(rows.all { it.firstTokenSeconds > 0 && it.quantile(0.25) > 0 && it.quantile(0.25) <= it.quantile(0.75) })
            assertEquals(0, engine.length)
            val conditions = Conditions(0.1, cold, 0.05, 31.0, 32.5, Heat.LIGHT, null, 1)
            val told = report(manifest, engine.runtime, device, tests, Measured(rows, 1, memoryBandwidth(), conditions))
            assertEquals(setOf("format", "device", "model", "runtime", "self_test", "conditions", "table"), told.keys)
            val table = File(System.getProperty("parcae.out"), "bench/bench.json")
            table.parentFile.mkdirs()
            table.writeText((told.getValue("table") as JsonObject).toString())
        }
    }
}
