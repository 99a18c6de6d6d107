package dev.parcae.et

import dev.parcae.core.parseJson
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.long
import kotlinx.serialization.json.put
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64

/** A program in the runtime of the executorch package for Python, spoken to in lines: `android_demo/tools/pte_bridge.py`. */
class PythonProgram(file: File) : Program {
    private val process = ProcessBuilder(System.getProperty("parcae.python"), System.getProperty("parcae.bridge"), file.path)
        .redirectError(ProcessBuilder.Redirect.INHERIT).start()
    private val given = process.outputStream.bufferedWriter()
    private val told = process.inputStream.bufferedReader()

    override val runtime: String = "executorch " + (line()["version"] as JsonPrimitive).content

    override fun execute(method: String, inputs: List<Value>): List<Value> {
        val call = buildJsonObject {
            put("method", method)
            put("inputs", JsonArray(inputs.map { toJson(it) }))
        }
        given.write(call.toString() + "\n")
        given.flush()
        return (line().getValue("outputs") as JsonArray).map { fromJson(it as JsonObject) }
    }

    private fun line(): JsonObject {
        val text = told.readLine() ?: throw ProgramError("the runtime ended with ${process.waitFor()}")
        val answer = parseJson(text) as JsonObject
        answer["error"]?.let { throw ProgramError((it as JsonPrimitive).content) }
        return answer
    }

    private fun toJson(value: Value) = buildJsonObject {
        val bytes = ByteBuffer.allocate(Long.SIZE_BYTES * (value.longs?.size ?: value.floats!!.size)).order(ByteOrder.LITTLE_ENDIAN)
        value.longs?.forEach { bytes.putLong(it) }
        value.floats?.forEach { bytes.putFloat(it) }
        put("dtype", if (value.longs != null) "int64" else "float32")
        put("shape", JsonArray(value.shape.map { JsonPrimitive(it) }))
        put("data", Base64.getEncoder().encodeToString(bytes.array().copyOf(bytes.position())))
    }

    private fun fromJson(value: JsonObject): Value {
        val bytes = ByteBuffer.wrap(Base64.getDecoder().decode((value.getValue("data") as JsonPrimitive).content)).order(ByteOrder.LITTLE_ENDIAN)
        val floats = FloatArray(bytes.remaining() / Float.SIZE_BYTES).also { bytes.asFloatBuffer().get(it) }
        return Value.of(floats, *(value.getValue("shape") as JsonArray).map { (it as JsonPrimitive).long }.toLongArray())
    }

    override fun close() {
        given.close()
        process.waitFor()
    }
}
