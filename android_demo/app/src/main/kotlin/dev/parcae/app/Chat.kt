package dev.parcae.app

import dev.parcae.core.Answer
import dev.parcae.core.Conversation
import dev.parcae.core.Ending
import dev.parcae.core.Failure
import dev.parcae.core.Kind
import dev.parcae.core.Message
import dev.parcae.core.Metrics
import dev.parcae.core.Request
import dev.parcae.core.Sampling
import dev.parcae.core.Token
import dev.parcae.core.savedLoops
import java.util.UUID

/** An answer while it grows, or afterwards: what the screen shows of it. */
class Shown(val fromUser: Boolean, val loops: Int) {
    val text = StringBuilder()

    /** Of each token: how far its last loop still moved the state. */
    val changes = ArrayList<Float>()
    var message: Message? = null
}

/** What the screen is told, always on the main thread. */
interface ChatScreen {
    /** Messages came, went, or were replaced. */
    fun messages()

    /** The last message grew. */
    fun grew(shown: Shown)

    /** A sentence about what happens or why something did not. */
    fun say(sentence: String)

    /** An answer began or ended. */
    fun busy(now: Boolean)

    /** What the last answer took, so far while it grows. */
    fun took(metrics: Metrics)
}

/**
 * The conversation on the screen. It outlives the screen: an answer goes on while the phone is turned or the app is behind another.
 *
 * Everything here is called and read on the main thread; what takes long happens on the [Workplace]'s worker.
 */
class Chat(private val place: Workplace) {
    var screen: ChatScreen? = null
    val shown = ArrayList<Shown>()
    var busy = false
        private set
    var id: String = UUID.randomUUID().toString()
        private set

    @Volatile private var stopping = false

    /** The model that the conversation was made with, null while there is no answer. */
    private var model: String? = null

    /** Stop within one loop. */
    fun stop() {
        stopping = true
    }

    /** Answer a message at [loops] loops, fewer where the saver says so. */
    fun send(text: String, loops: Int) {
        if (busy || text.isEmpty()) return
        val asked = add(true, 0)
        asked.text.append(text)
        begin(asked, loops)
    }

    /** Replace the last answer by one at another T. */
    fun again(loops: Int) {
        if (busy || shown.lastOrNull()?.fromUser != false) return
        shown.removeAt(shown.size - 1)
        screen?.messages()
        begin(shown.last { it.fromUser }, loops)
    }

    /** Load the model that was used last, so that the first message need not wait. */
    fun warm() = task({ place.model(::progress) }) { loaded ->
        say("ready", loaded)
    }

    /** Answer a message at several T, one after the other. Nothing of it stays in the conversation. */
    fun compare(text: String, all: List<Int>) {
        if (busy || text.isEmpty()) return
        val answers = ArrayList<Pair<Int, Answer>>()
        task({
            val loaded = place.model(::progress)
            val generator = loaded.generator
            val before = generator.ids.toList()
            try {
                for (loops in all.filter { it in loaded.model.manifest.loops.counts }) {
                    if (stopping) break
                    place.show { screen?.say("T = $loops") }
                    answers.add(loops to generator.answer(generator.messageIds(text), Request(loops, COMPARED), { stopping }))
                    generator.restore(before)
                }
            } finally {
                generator.restore(before)
            }
        }) {
            compared = answers
            screen?.say(text)
            screen?.messages()
        }
    }

    /** Answers of the last comparison, by T. */
    var compared: List<Pair<Int, Answer>> = emptyList()
        private set

    /** Begin anew; the old conversation is kept. */
    fun fresh() {
        if (busy) return
        show(Conversation(UUID.randomUUID().toString(), "", 0, emptyList()))
    }

    /** Go on with a kept conversation. Its caches are filled again with the next message. */
    fun open(kept: String) {
        if (busy || (kept == id && shown.isNotEmpty())) return
        task({
            place.conversations.find(kept)?.also { found ->
                if (place.installed().any { it.manifest.name == found.model }) place.settings.model = found.model
            }
        }) { found -> if (found != null) show(found) }
    }

    /** The system needs memory: the model goes unless it is at work. */
    fun trim(sentence: String) {
        if (busy) return
        task({ place.loaded != null && true.also { place.close() } }) { closed -> if (closed) screen?.say(sentence) }
    }

    private fun show(conversation: Conversation) {
        id = conversation.id
        model = conversation.model.takeIf { it.isNotEmpty() }
        shown.clear()
        compared = emptyList()
        for (message in conversation.messages) {
            add(message.fromUser, message.loops).apply {
                text.append(message.text)
                this.message = message
            }
        }
        place.run({ place.loaded?.generator?.restore(conversation.ids) }, {}, {})
        screen?.messages()
    }

    private fun add(fromUser: Boolean, loops: Int) = Shown(fromUser, loops).also {
        shown.add(it)
        screen?.messages()
    }

    private fun begin(question: Shown, asked: Int) {
        val kept = shown.filter { it !== question }.mapNotNull { it.message }
        val made = model
        task({
            val loaded = place.model(::progress)
            sameModel(made, loaded.model.manifest.name)
            val thrift = savedLoops(loaded.model.manifest.loops.choose(asked), loaded.model.manifest.loops, place.phone.heat, place.phone.battery)
            val loops = if (place.settings.saver) thrift.loops else asked
            if (place.settings.saver && thrift.reason != null) place.show { screen?.say(thrift.reason!!) }
            answer(loaded, kept, question, loops)
        }) { }
    }

    /** Ids of one model mean nothing to another. */
    private fun sameModel(made: String?, now: String) {
        if (made == null || made == now) return
        val next = "choose $made under Models, or start a new conversation"
        throw Failure(Kind.SETTING, "This conversation was made with $made, and $now is in use; $next.")
    }

    /** On the worker. */
    private fun answer(loaded: Loaded, kept: List<Message>, question: Shown, loops: Int) {
        val generator = loaded.generator
        val held = kept.flatMap { it.ids }
        if (generator.ids != held) {
            if (generator.ids.take(held.size) == held) generator.rewind(held.size) else generator.restore(held)
        }
        // The whole message is given again for another answer, so that the answer does not depend on how the first one was made.
        val ids = question.message?.ids ?: generator.messageIds(question.text.toString())
        val growing = Shown(false, loops)
        place.show {
            shown.add(growing)
            screen?.messages()
        }
        val answer = generator.answer(ids, request(loops), { stopping }) { token -> place.show { grow(growing, token) } }
        val metrics = answer.metrics
        val message = Message(false, answer.text, answer.ids, loops, metrics.meanLoops, metrics.tokenRate, answer.ending.name)
        place.show {
            question.message = Message(true, question.text.toString(), ids)
            growing.message = message
            model = loaded.model.manifest.name
            keep(loaded.model.manifest.name)
            screen?.grew(growing)
            screen?.took(metrics)
        }
    }

    private fun request(loops: Int) = Request(
        loops,
        ANSWER,
        if (place.settings.creative) Sampling(temperature = 0.8, topK = 40, seed = id.hashCode().toLong() and 0xFFFFFFFFL) else Sampling(),
        threshold = if (place.settings.early) EXIT else 0.0,
    )

    private fun grow(growing: Shown, token: Token) {
        growing.text.append(token.text)
        token.change?.let { growing.changes.add(it) }
        screen?.grew(growing)
        screen?.took(token.metrics)
    }

    private fun keep(model: String) {
        val messages = shown.mapNotNull { it.message }
        val conversation = Conversation(id, model, System.currentTimeMillis(), messages)
        place.run({ place.conversations.keep(conversation) }, {}, { screen?.say(it) })
    }

    private fun say(word: String, loaded: Loaded) {
        screen?.say("${loaded.model.manifest.name} $word: ${loaded.engine.runtime}")
    }

    private fun progress(model: String, percent: Int) = place.show { screen?.say("$model: $percent %") }

    private fun <T> task(work: () -> T, done: (T) -> Unit) {
        busy = true
        stopping = false
        screen?.busy(true)
        val ended = {
            busy = false
            screen?.busy(false)
        }
        place.run(
            work,
            { result ->
                ended()
                done(result)
            },
            { sentence ->
                ended()
                dropUnanswered()
                screen?.say(sentence)
            },
        )
    }

    /** A message that was refused goes back, so that it can be changed and sent again. */
    private fun dropUnanswered() {
        while (shown.isNotEmpty() && shown.last().message == null) {
            val refused = shown.removeAt(shown.size - 1)
            if (refused.fromUser) returned = refused.text.toString()
        }
        screen?.messages()
    }

    /** The text of a message that was refused. */
    var returned: String? = null

    /** The ending of an answer, null while it grows. */
    fun ending(shown: Shown): Ending? = shown.message?.ending?.let { name -> Ending.entries.firstOrNull { it.name == name } }

    private companion object {
        const val ANSWER = 256
        const val COMPARED = 64
        const val EXIT = 0.05
    }
}
