package dev.parcae.ort

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Memory outside of the Java heap, and the tensor of [type] and [shape] that onnxruntime sees in it. Zeros at first. */
internal class Array(environment: OrtEnvironment, type: OnnxJavaType, private val shape: LongArray) : Closeable {
    private val count = shape.fold(1L) { product, size -> product * size }
    private val item = type.size
    val bytes: ByteBuffer = ByteBuffer.allocateDirect((count * item).toInt()).order(ByteOrder.nativeOrder())
    val tensor: OnnxTensor = when (type) {
        OnnxJavaType.FLOAT -> OnnxTensor.createTensor(environment, bytes.asFloatBuffer(), shape)
        OnnxJavaType.INT32 -> OnnxTensor.createTensor(environment, bytes.asIntBuffer(), shape)
        OnnxJavaType.INT64 -> OnnxTensor.createTensor(environment, bytes.asLongBuffer(), shape)
        else -> OnnxTensor.createTensor(environment, bytes, shape, type)
    }

    fun floats(): FloatArray = FloatArray(count.toInt()).also { bytes.asFloatBuffer().get(it) }

    fun clear() {
        val zeros = ByteArray(bytes.capacity())
        view(0, bytes.capacity()).put(zeros)
    }

    /** Copy the places from [start] to before [stop] of another cache (1, heads, tokens, head size); the token counts may differ. */
    fun copyPlaces(other: Array, start: Int, stop: Int) {
        val row = (shape[3] * item).toInt()
        for (head in 0 until shape[1].toInt()) {
            val from = ((head * other.shape[2] + start) * row).toInt()
            val to = ((head * shape[2] + start) * row).toInt()
            view(to, to + (stop - start) * row).put(other.view(from, from + (stop - start) * row))
        }
    }

    /** Casts: the methods of ByteBuffer return ByteBuffer since Java 9 only, and Android may have the older ones. */
    private fun view(start: Int, stop: Int): ByteBuffer {
        val view = bytes.duplicate()
        (view as java.nio.Buffer).limit(stop)
        (view as java.nio.Buffer).position(start)
        return view
    }

    override fun close() = tensor.close()
}
