package dev.parcae.core

import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.NoSuchAlgorithmException
import java.security.Signature
import java.security.spec.X509EncodedKeySpec

/** The signature beside [APP_MANIFEST]: Ed25519 over its bytes, which list every file with its SHA-256. */
const val APP_SIGNATURE = "app.sig"
const val SIGNATURE_BYTES = 64

private const val ALGORITHM = "Ed25519"
private const val SHOWN = 16
private val KEY = Regex("[0-9a-f]{64}")

// SubjectPublicKeyInfo of an Ed25519 key up to the 32 bytes of the key (RFC 8410).
private val PREFIX = bytesOf("302a300506032b6570032100")

/**
 * Throw a [Failure] of kind SIGNATURE unless [manifest] bears the [signature] of [key], an Ed25519 public key in hexadecimal.
 *
 * A device that cannot check refuses too: Android has Ed25519 from version 13 on.
 */
fun checkSignature(manifest: ByteArray, signature: ByteArray?, key: String) {
    if (!KEY.matches(key)) throw refusal("the pinned key is not 64 hexadecimal digits; build the app with a right one.")
    val shown = key.take(SHOWN)
    if (signature == null) throw refusal("it has no $APP_SIGNATURE; sign it with the key $shown.")
    val valid = try {
        val public = KeyFactory.getInstance(ALGORITHM).generatePublic(X509EncodedKeySpec(PREFIX + bytesOf(key)))
        signature.size == SIGNATURE_BYTES && Signature.getInstance(ALGORITHM).run {
            initVerify(public)
            update(manifest)
            verify(signature)
        }
    } catch (error: NoSuchAlgorithmException) {
        throw refusal("this device cannot check Ed25519 signatures; it needs Android 13.", error)
    } catch (_: GeneralSecurityException) {
        false // of a form that no signature has
    }
    if (!valid) throw refusal("it does not bear the signature of $shown; do not use it.")
}

private fun bytesOf(hex: String) = hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()

private fun refusal(why: String, cause: Throwable? = null) = Failure(Kind.SIGNATURE, "This model was refused: $why", APP_SIGNATURE, cause)
