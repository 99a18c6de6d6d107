package dev.parcae.app

import ai.onnxruntime.OrtEnvironment
import dev.parcae.core.AppManifest
import dev.parcae.core.Engine
import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.StoredModel
import dev.parcae.core.checkRuntime
import dev.parcae.ort.OrtEngine

/** The engines that this app has. */
object Engines {
    const val PLATFORM = "android"

    /** Throw a [Failure] for a model that none of the engines can run. */
    fun accept(manifest: AppManifest) = checkRuntime(manifest, PLATFORM, "onnxruntime", version())

    fun open(model: StoredModel, threads: Int): Engine = OrtEngine(model.folder, model.manifest, threads)

    private fun version(): String =
        try {
            OrtEnvironment.getEnvironment().version
        } catch (error: UnsatisfiedLinkError) {
            throw Failure(Kind.ENGINE, "This app was built without onnxruntime's libraries for this phone; install a complete build.", cause = error)
        } catch (error: NoClassDefFoundError) {
            // the second try after the one above
            throw Failure(Kind.ENGINE, "This app was built without onnxruntime's libraries for this phone; install a complete build.", cause = error)
        }
}
