package dev.parcae.core

/** Why something was refused. The names of the first nine are those of the app kit's manifest vectors. */
enum class Kind {
    JSON,
    FORMAT,
    PATH,
    FIELD,
    PLATFORM,
    RUNTIME,
    MISSING,
    SIZE,
    CHECKSUM,
    SIGNATURE,
    TOKENIZER,
    SETTING,
    CONTEXT,
    MEMORY,
    LOGITS,
    IMPORT,
    ENGINE,
}

/**
 * A refusal that a user reads: [message] is a whole sentence that names the thing and the next step, [where] the file or field.
 */
class Failure(val kind: Kind, override val message: String, val where: String = "", cause: Throwable? = null) :
    RuntimeException(message, cause)
