package dev.parcae.ort

import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import ai.onnxruntime.OrtSession.SessionOptions
import dev.parcae.core.AppManifest
import dev.parcae.core.CacheLayout
import dev.parcae.core.Engine
import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.LoopScheduler
import dev.parcae.core.Step
import java.io.File

/** Ends the name of an initializer that is stored in fp16, which loading has to widen. */
private val HALF = ".half".toByteArray()

/**
 * An ONNX artifact of the form `stages` on onnxruntime: three graphs over one weights file, caches updated in place.
 *
 * The constructor loads; it throws a [Failure] of kind ENGINE for files that onnxruntime does not take, and of kind RUNTIME for a
 * form that an app cannot drive. [threads] 0 leaves the number to onnxruntime.
 */
class OrtEngine(folder: File, override val manifest: AppManifest, threads: Int = 0) : Engine {
    private val environment = OrtEnvironment.getEnvironment()
    private val sessions = LinkedHashMap<String, OrtSession>()
    private val stages: OrtStages
    private val scheduler: LoopScheduler

    override val runtime: String get() = "onnxruntime ${environment.version}"
    override val length: Int get() = scheduler.length
    override val cacheBytes: Long get() = stages.cacheBytes

    init {
        if (manifest.target != "onnx" || manifest.loops.form != "stages") {
            val found = "${manifest.target}, ${manifest.loops.form}"
            throw Failure(Kind.RUNTIME, "This engine runs ONNX models of the form stages, not $found; export with --loops dynamic.")
        }
        try {
            for (role in listOf("coda", "prelude", "recur")) { // coda first: loading the head takes the most, in passing
                val file = File(folder, manifest.graphs.getValue(role).file)
                sessions[role] = options(file, threads).use { environment.createSession(file.path, it) }
            }
            stages = OrtStages(environment, sessions, manifest.cache)
        } catch (error: OrtException) {
            sessions.values.forEach { it.close() }
            throw Failure(Kind.ENGINE, "onnxruntime cannot load this model (${error.message}); copy it again or update the app.", cause = error)
        }
        scheduler = LoopScheduler(stages, CacheLayout(manifest.cache.policy, manifest.loops.max), manifest.cache.context)
    }

    private fun options(file: File, threads: Int) = SessionOptions().apply {
        setSessionLogLevel(ai.onnxruntime.OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
        setInterOpNumThreads(1)
        if (threads > 0) setIntraOpNumThreads(threads)
        // Contrib graphs are written as they shall run, but for matrices in fp16; standard operators have to be fused.
        if (!manifest.portable && !file.readBytes().holds(HALF)) setOptimizationLevel(SessionOptions.OptLevel.NO_OPT)
        // Three pools of threads that spin against each other are slower than one.
        addConfigEntry("session.force_spinning_stop", "1")
        for ((name, value) in manifest.runtime.settings) addConfigEntry(name, value)
    }

    override fun step(ids: IntArray, loops: Int, threshold: Double, measure: Boolean, stopped: () -> Boolean): Step {
        manifest.loops.choose(loops)
        try {
            if (scheduler.length + ids.size <= manifest.cache.context) stages.reserve(scheduler.length + ids.size, loops)
            return scheduler.run(ids, loops, threshold, manifest.loops.exitFrom, measure, stopped)
        } catch (error: OrtException) {
            throw Failure(Kind.ENGINE, "onnxruntime stopped (${error.message}); load the model again.", cause = error)
        } catch (error: OutOfMemoryError) {
            throw Failure(Kind.MEMORY, "The phone has no memory left for ${length + ids.size} tokens; start a new conversation.", cause = error)
        }
    }

    override fun rewind(held: Int) = scheduler.rewind(held)

    override fun close() {
        stages.close()
        sessions.values.forEach { it.close() }
    }
}

private fun ByteArray.holds(part: ByteArray): Boolean =
    (0..size - part.size).any { start -> part.indices.all { this[start + it] == part[it] } }
