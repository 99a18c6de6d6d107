package dev.parcae.et

import java.io.Closeable

/**
 * What the engine needs of ExecuTorch: `org.pytorch.executorch.Module.execute(method, EValue...)` of executorch-android does it.
 *
 * Declared here, because Maven Central did not serve that package where this was written: no class of this repository calls the
 * real one. The tests run the engine over the runtime of the executorch package for Python.
 */
interface Program : Closeable {
    /** Name and version of the runtime. */
    val runtime: String

    /** Run a method; outputs in its order. Throws [ProgramError] where the runtime refuses. */
    fun execute(method: String, inputs: List<Value>): List<Value>
}

/** A tensor: int64 where [longs] has its numbers, else fp32. */
class Value private constructor(val shape: LongArray, val longs: LongArray?, val floats: FloatArray?) {
    companion object {
        fun of(numbers: LongArray, vararg shape: Long) = Value(shape, numbers, null)

        fun of(numbers: FloatArray, vararg shape: Long) = Value(shape, null, numbers)
    }
}

/** What the runtime says where it cannot load or run. */
class ProgramError(message: String, cause: Throwable? = null) : Exception(message, cause)
