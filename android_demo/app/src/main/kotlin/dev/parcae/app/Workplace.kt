package dev.parcae.app

import android.content.Context
import android.os.Handler
import android.os.Looper
import dev.parcae.core.Conversations
import dev.parcae.core.Engine
import dev.parcae.core.Failure
import dev.parcae.core.Generator
import dev.parcae.core.Kind
import dev.parcae.core.ModelStore
import dev.parcae.core.Stopped
import dev.parcae.core.StoredModel
import dev.parcae.core.Tokenizer
import dev.parcae.core.checkFiles
import dev.parcae.core.checkMemory
import java.io.File
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/** A model in memory. */
class Loaded(val model: StoredModel, val engine: Engine, val generator: Generator)

/**
 * The one place of the process where models are loaded and run: a single worker, so that nothing of it happens twice at once.
 *
 * It outlives activities. What it tells them comes on the main thread.
 */
class Workplace private constructor(private val context: Context) {
    val phone = Phone(context)
    val store = ModelStore(File(context.filesDir, "models"))
    val conversations = Conversations(File(context.filesDir, "conversations"))
    val settings = Settings(context.getSharedPreferences("settings", Context.MODE_PRIVATE))
    private val worker: ExecutorService = Executors.newSingleThreadExecutor()
    private val main = Handler(Looper.getMainLooper())

    /** The conversation on the screen. */
    val chat = Chat(this)

    /** The model in memory; the worker alone changes it. */
    @Volatile var loaded: Loaded? = null
        private set

    /** Do [work] on the worker, then tell [done] or, in a sentence, [failed] on the main thread. */
    fun <T> run(work: () -> T, done: (T) -> Unit, failed: (String) -> Unit) {
        worker.execute {
            try {
                val result = work()
                show { done(result) }
            } catch (failure: Failure) {
                show { failed(failure.message) }
            } catch (_: Stopped) {
                show { failed(context.getString(R.string.was_stopped)) }
            } catch (_: OutOfMemoryError) {
                close()
                show { failed("The phone has no memory left; close other apps or choose a smaller model.") }
            } catch (error: Exception) {
                // whatever it is, the app stays alive and says it
                show { failed("Something went wrong (${error.message ?: error.javaClass.simpleName}); try again.") }
            }
        }
    }

    /** Do [work] on the main thread. */
    fun show(work: () -> Unit) {
        main.post { work() }
    }

    /** On the worker: the model that was used last, loaded if it is not; [progress] is told percents. */
    fun model(progress: (String, Int) -> Unit): Loaded {
        val stored = installed()
        val wanted = stored.firstOrNull { it.manifest.name == settings.model } ?: stored.firstOrNull()
            ?: throw Failure(Kind.IMPORT, "There is no model; import the folder of one.")
        loaded?.let { if (it.model.manifest.name == wanted.manifest.name) return it }
        close()
        progress(wanted.manifest.name, 0)
        Engines.accept(wanted.manifest)
        checkMemory(wanted.manifest, wanted.manifest.loops.choose(), phone.availableBytes)
        checkFiles(wanted.manifest, wanted.folder) { progress(wanted.manifest.name, (READ * it / maxOf(wanted.manifest.bytes, 1)).toInt()) }
        val facts = wanted.manifest.tokenizer ?: throw Failure(Kind.TOKENIZER, "This model has no tokenizer; export one that has.")
        val tokenizer = Tokenizer.read(File(wanted.folder, facts.file))
        val engine = Engines.open(wanted, settings.threads)
        progress(wanted.manifest.name, DONE)
        return Loaded(wanted, engine, Generator(engine, tokenizer)).also { loaded = it }
    }

    /** On the worker: the models of the store, those of the APK copied in at the first start. */
    fun installed(): List<StoredModel> {
        val there = store.list()
        if (there.isNotEmpty()) return there
        for (name in context.assets.list(ASSETS).orEmpty()) store.add(AssetSource(context.assets, "$ASSETS/$name"), {})
        return store.list()
    }

    /** On the worker: put the model away. */
    fun close() {
        loaded?.engine?.close()
        loaded = null
    }

    companion object {
        const val ASSETS = "models"
        private const val READ = 80L
        private const val DONE = 100
        private var only: Workplace? = null

        /** The process's workplace; called on the main thread. */
        fun of(context: Context): Workplace = only ?: Workplace(context.applicationContext).also { only = it }
    }
}
