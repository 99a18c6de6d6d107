package dev.parcae.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream

/** Files that can be read by name: an app's assets, or a folder that a user picked. */
interface FileSource {
    /** The stream of a file, null if there is none of that name. */
    fun open(name: String): InputStream?
}

/**
 * The first bytes of a stream, one more than [most] at the most: whoever gets those refuses the file by their number, and the
 * rest of it is not read. (`InputStream.readNBytes` came with Android 13.)
 */
fun InputStream.readStart(most: Int): ByteArray {
    val content = ByteArrayOutputStream()
    val block = ByteArray(minOf(most + 1, 1 shl 16))
    while (content.size() <= most) {
        val count = read(block, 0, minOf(block.size, most + 1 - content.size()))
        if (count < 0) break
        content.write(block, 0, count)
    }
    return content.toByteArray()
}

/** A model that is in the store, whole and checked when it came in. */
data class StoredModel(val folder: File, val manifest: AppManifest)

/**
 * The models in an app's private folder, `DIR/NAME/` with `app.json` in each. A model appears there whole or not at all.
 *
 * With [signedBy], an Ed25519 public key in hexadecimal, only models that bear its signature are taken.
 */
class ModelStore(private val folder: File, private val signedBy: String? = null) {
    /** Models that can be read, by name. Folders that cannot are left out. */
    fun list(): List<StoredModel> = folder.listFiles().orEmpty().filter { !it.name.endsWith(PART) }.sortedBy { it.name }.mapNotNull {
        try {
            val bytes = File(it, APP_MANIFEST).inputStream().use { stream -> stream.readStart(MOST_MANIFEST) }
            StoredModel(it, readAppManifest(String(bytes, Charsets.UTF_8)))
        } catch (_: Failure) {
            null
        } catch (_: IOException) {
            null
        }
    }

    /**
     * Copy a model in: the manifest and the runtime first, then sizes and SHA-256 of all files as they are copied, then one rename.
     *
     * [accept] throws a [Failure] for a manifest that the app cannot run. [free] are the bytes that may be used. A failure leaves
     * nothing behind. A model of the same name is replaced.
     */
    fun add(
        source: FileSource,
        accept: (AppManifest) -> Unit,
        free: Long = folder.apply { mkdirs() }.usableSpace,
        stopped: () -> Boolean = { false },
        progress: (Long, Long) -> Unit = { _, _ -> },
    ): StoredModel {
        val bytes = source.open(APP_MANIFEST)?.use { it.readStart(MOST_MANIFEST) } ?: throw Failure(
            Kind.IMPORT,
            "There is no $APP_MANIFEST in this folder. Choose the folder that parcae-export bundle wrote; a zip has to be unpacked first.",
            APP_MANIFEST,
        )
        checkManifestSize(bytes.size)
        val signature = source.open(APP_SIGNATURE)?.use { it.readStart(SIGNATURE_BYTES) }
        if (signedBy != null) checkSignature(bytes, signature, signedBy)
        val manifest = readAppManifest(String(bytes, Charsets.UTF_8))
        accept(manifest)
        if (manifest.bytes > free) {
            val message = "This model has ${manifest.bytes} bytes, the phone has $free free; delete something first."
            throw Failure(Kind.IMPORT, message)
        }
        val part = File(folder, manifest.name + PART)
        part.deleteRecursively()
        try {
            var done = 0L
            for ((name, entry) in manifest.files.toSortedMap()) {
                val target = File(part, name)
                target.parentFile!!.mkdirs()
                val stream = source.open(name) ?: throw Failure(Kind.MISSING, "$name is missing; copy the model again.", name)
                val told = { copied: Long -> progress(done + copied, manifest.bytes) }
                stream.use { input -> target.outputStream().use { output -> copy(input, output, entry.bytes, name, stopped, told) } }
                done += entry.bytes
            }
            checkFiles(manifest, part)
            signature?.let { File(part, APP_SIGNATURE).writeBytes(it) }
            File(part, APP_MANIFEST).writeBytes(bytes)
            val final = File(folder, manifest.name)
            final.deleteRecursively()
            if (!part.renameTo(final)) throw Failure(Kind.IMPORT, "The phone did not let the model be stored; free some space and try again.")
            return StoredModel(final, manifest)
        } catch (error: IOException) {
            throw Failure(Kind.IMPORT, "Copying stopped (${error.message}); try again.", cause = error)
        } finally {
            part.deleteRecursively()
        }
    }

    /** Take a model out. */
    fun remove(name: String) {
        File(folder, name).deleteRecursively()
    }

    private fun copy(
        input: InputStream,
        output: java.io.OutputStream,
        most: Long,
        name: String,
        stopped: () -> Boolean,
        progress: (Long) -> Unit,
    ) {
        val block = ByteArray(1 shl 16)
        var copied = 0L
        while (true) {
            if (stopped()) throw Stopped()
            val count = input.read(block)
            if (count < 0) return
            copied += count
            if (copied > most) throw Failure(Kind.SIZE, "$name is larger than listed; copy the model again.", name)
            output.write(block, 0, count)
            progress(copied)
        }
    }

    private companion object {
        const val PART = ".partial"
    }
}

/**
 * Throw a [Failure] of kind MEMORY if a model does not fit in [available] bytes at [loops] loops with its whole context.
 */
fun checkMemory(manifest: AppManifest, loops: Int, available: Long) {
    val needed = manifest.memoryNeeded(loops)
    if (needed > available) {
        val (need, have) = listOf(needed, available).map { (it + 999_999) / 1_000_000 }
        throw Failure(Kind.MEMORY, "This model needs $need MB at T=$loops and a full context, the phone has $have MB to give; close other apps.")
    }
}
