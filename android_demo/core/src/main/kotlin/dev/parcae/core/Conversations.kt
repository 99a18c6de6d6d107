package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import java.io.File
import java.io.IOException

/** One message: who wrote it, its text, its ids, and for answers the loops, what they took, and why they ended. */
data class Message(
    val fromUser: Boolean,
    val text: String,
    val ids: List<Int>,
    val loops: Int = 0,
    val meanLoops: Double = 0.0,
    val tokensPerSecond: Double = 0.0,
    val ending: String = "",
)

/** A conversation as it is kept: messages with their ids, never caches, which are filled again when it goes on. */
data class Conversation(val id: String, val model: String, val changed: Long, val messages: List<Message>) {
    val title: String get() = messages.firstOrNull { it.fromUser }?.text?.trim()?.lineSequence()?.firstOrNull().orEmpty().take(TITLE)

    /** Ids of all messages, which a model goes on from. */
    val ids: List<Int> get() = messages.flatMap { it.ids }

    /** The conversation as plain text, for the share sheet. */
    fun plainText(): String = messages.joinToString("\n\n") { message ->
        if (message.fromUser) "> ${message.text}" else "${message.text}\n(T=${message.loops}, $model)"
    } + "\n"

    private companion object {
        const val TITLE = 60
    }
}

/** Conversations in an app's private folder, one JSON file for each. A file that cannot be read is left alone and left out. */
class Conversations(private val folder: File) {
    /** All conversations whose text has [search] in it, the last changed first. */
    fun list(search: String = ""): List<Conversation> = folder.listFiles { file -> file.name.endsWith(SUFFIX) }.orEmpty()
        .mapNotNull { read(it) }
        .filter { conversation -> conversation.messages.any { it.text.contains(search, ignoreCase = true) } }
        .sortedByDescending { it.changed }

    fun find(id: String): Conversation? = File(folder, id + SUFFIX).takeIf { it.isFile }?.let { read(it) }

    /** Write a conversation in one step. */
    fun keep(conversation: Conversation) {
        folder.mkdirs()
        val part = File(folder, conversation.id + PART)
        part.writeText(toJson(conversation).toString())
        if (!part.renameTo(File(folder, conversation.id + SUFFIX))) throw Failure(Kind.IMPORT, "The conversation could not be kept; free some space.")
    }

    fun delete(id: String) {
        File(folder, id + SUFFIX).delete()
    }

    private fun read(file: File): Conversation? =
        try {
            (parseJson(file.readText()) as? JsonObject)?.let { fromJson(Fields(it)) }
        } catch (_: Failure) {
            null
        } catch (_: IOException) {
            null
        }

    private fun toJson(conversation: Conversation) = buildJsonObject {
        put("format", 1)
        put("id", conversation.id)
        put("model", conversation.model)
        put("changed", conversation.changed)
        put("messages", JsonArray(conversation.messages.map { messageJson(it) }))
    }

    private fun messageJson(message: Message) = buildJsonObject {
        put("from_user", message.fromUser)
        put("text", message.text)
        put("ids", JsonArray(message.ids.map { JsonPrimitive(it) }))
        put("loops", message.loops)
        put("mean_loops", message.meanLoops)
        put("tokens_per_second", message.tokensPerSecond)
        put("ending", message.ending)
    }

    private fun fromJson(fields: Fields) = Conversation(
        fields.text("id"),
        fields.text("model"),
        fields.long("changed"),
        fields.list("messages").map { item ->
            val message = Fields(item as? JsonObject ?: fields.refuse("messages", "are damaged"))
            Message(
                message.flag("from_user"), message.text("text"), message.counts("ids"), message.count("loops"),
                message.number("mean_loops") ?: 0.0, message.number("tokens_per_second") ?: 0.0, message.text("ending"),
            )
        },
    )

    private companion object {
        const val SUFFIX = ".json"
        const val PART = ".partial"
    }
}
