package dev.parcae.et

import dev.parcae.core.AppManifest
import dev.parcae.core.CacheLayout
import dev.parcae.core.Engine
import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.LoopScheduler
import dev.parcae.core.StageShape
import dev.parcae.core.Step

/**
 * An ExecuTorch artifact of the form `stages`: one program with the methods prelude, recur and coda, which keeps its caches inside.
 *
 * An app cannot copy those caches. So where loops have slots of their own, an answer may not have more loops than what is held was
 * computed with, and no token leaves the loop early.
 */
class EtEngine(private val program: Program, override val manifest: AppManifest) : Engine {
    private val stages = EtStages(program, manifest.stateWidth)
    private val layout = CacheLayout(manifest.cache.policy, manifest.loops.max)
    private val scheduler = LoopScheduler(stages, layout, manifest.cache.context)

    /** The fewest loops that a held token was computed with. */
    private var heldLoops = Int.MAX_VALUE

    override val runtime: String get() = program.runtime
    override val length: Int get() = scheduler.length
    override val cacheBytes: Long get() = manifest.cache.context * with(manifest.cache) { listOf(prelude, recur, coda).sumOf { rowBytes(it) } }

    init {
        if (manifest.target != "executorch" || manifest.loops.form != "stages") {
            val found = "${manifest.target}, ${manifest.loops.form}"
            throw Failure(Kind.RUNTIME, "This engine runs ExecuTorch models of the form stages, not $found; export with --loops dynamic.")
        }
    }

    override fun step(ids: IntArray, loops: Int, threshold: Double, measure: Boolean, stopped: () -> Boolean): Step {
        manifest.loops.choose(loops)
        if (threshold > 0 && !manifest.loops.earlyExit) {
            throw Failure(Kind.SETTING, "Tokens of this model cannot leave the loop early; export with --kv shared.")
        }
        if (length > 0 && minOf(loops, layout.slots) > heldLoops) {
            val message = "This conversation was computed with $heldLoops loops, so $loops are too many; start a new one or export with --kv shared."
            throw Failure(Kind.SETTING, message)
        }
        try {
            val step = scheduler.run(ids, loops, threshold, maxOf(manifest.loops.exitFrom, layout.slots), measure, stopped)
            heldLoops = if (length == ids.size) loops else minOf(heldLoops, loops)
            return step
        } catch (error: ProgramError) {
            throw Failure(Kind.ENGINE, "ExecuTorch stopped (${error.message}); load the model again.", cause = error)
        } catch (error: OutOfMemoryError) {
            throw Failure(Kind.MEMORY, "The phone has no memory left for ${length + ids.size} tokens; start a new conversation.", cause = error)
        }
    }

    override fun rewind(held: Int) = scheduler.rewind(held)

    override fun close() = program.close()

    private fun rowBytes(shape: StageShape) = KEYS_AND_VALUES * Float.SIZE_BYTES * shape.layers * shape.heads * shape.headSize * shape.slots

    private companion object {
        const val KEYS_AND_VALUES = 2L
    }
}
