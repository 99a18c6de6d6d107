package dev.parcae.core

import java.io.File
import java.io.InputStream
import java.security.MessageDigest

private val NUMBERS = Regex("^[0-9.]*")
private const val BLOCK = 1 shl 16

/** Throw a [Failure] of kind PLATFORM or RUNTIME if an app of this platform and runtime cannot run the model. */
fun checkRuntime(manifest: AppManifest, platform: String, name: String, version: String) {
    if (manifest.platform != platform) {
        val message = "This model was bundled for ${manifest.platform}, this app is for $platform; bundle it for $platform."
        throw Failure(Kind.PLATFORM, message, "platform")
    }
    val need = manifest.runtime
    if (need.name != name || !isAtLeast(version, need.minimum)) {
        val message = "This model needs ${need.name} ${need.minimum} (${need.reason}); this app has $name $version. " +
            "Update the app or export the model again."
        throw Failure(Kind.RUNTIME, message, "runtime")
    }
}

/** Whether a version is not below another, by its leading numbers; missing ones are 0. */
fun isAtLeast(version: String, minimum: String): Boolean {
    val (have, need) = listOf(version, minimum).map { text ->
        NUMBERS.find(text)!!.value.split(".").filter { it.isNotEmpty() }.map { it.toLong() }
    }
    for (place in 0 until maxOf(have.size, need.size)) {
        val difference = have.getOrElse(place) { 0 }.compareTo(need.getOrElse(place) { 0 })
        if (difference != 0) return difference > 0
    }
    return true
}

/**
 * Throw a [Failure] of kind MISSING, SIZE or CHECKSUM for the first listed file that is not as listed.
 *
 * [progress] is told how many bytes of all were read.
 */
fun checkFiles(manifest: AppManifest, folder: File, progress: (Long) -> Unit = {}) {
    var done = 0L
    for ((name, entry) in manifest.files.toSortedMap()) {
        val file = File(folder, name)
        if (!file.isFile) throw Failure(Kind.MISSING, "$name is missing; copy the model again.", name)
        if (file.length() != entry.bytes) {
            throw Failure(Kind.SIZE, "$name has ${file.length()} bytes, not ${entry.bytes}; copy the model again.", name)
        }
        val found = file.inputStream().use { stream -> sha256(stream) { progress(done + it) } }
        if (found != entry.sha256) {
            throw Failure(Kind.CHECKSUM, "$name is not what was bundled (its SHA-256 differs); copy the model again.", name)
        }
        done += entry.bytes
    }
}

/** SHA-256 of a stream in small hexadecimal digits; [progress] is told how many bytes were read. */
fun sha256(stream: InputStream, progress: (Long) -> Unit = {}): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val block = ByteArray(BLOCK)
    var read = 0L
    while (true) {
        val count = stream.read(block)
        if (count < 0) break
        digest.update(block, 0, count)
        read += count
        progress(read)
    }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
