package dev.parcae.core

/** What a message asks for. [threshold] 0 keeps every token for all [loops]. */
data class Request(
    val loops: Int,
    val newTokens: Int,
    val sampling: Sampling = Sampling(),
    val threshold: Double = 0.0,
    val stops: List<String> = emptyList(),
)

/** One token of an answer: the [text] that it completes, its loops, how far its last loop still moved the state, and what the answer took so far. */
class Token(val id: Int, val text: String, val loops: Int, val change: Float?, val metrics: Metrics)

/** Why an answer ended. */
enum class Ending { STOP_TOKEN, STOP_TEXT, LENGTH, CONTEXT, STOPPED }

/** An answer: its text, the ids that it added to the conversation, why it ended, and what it took. */
class Answer(val text: String, val ids: List<Int>, val ending: Ending, val metrics: Metrics)

/**
 * Answers messages on an engine that holds one conversation.
 *
 * [ids] are those of the conversation so far; the engine may hold fewer of them, never others. [clock] gives seconds.
 */
class Generator(
    private val engine: Engine,
    private val tokenizer: Tokenizer,
    private val clock: () -> Double = { System.nanoTime() / 1e9 },
) {
    private val facts = engine.manifest.tokenizer
        ?: throw Failure(Kind.TOKENIZER, "This model has no tokenizer; export one that has.")
    private val conversation = ArrayList<Int>()

    /** Ids of the conversation so far, the last answer's last token included. */
    val ids: List<Int> get() = conversation

    /** Begin with the ids of a kept conversation; the caches are filled when the next message comes. */
    fun restore(kept: List<Int>) {
        engine.rewind(0)
        conversation.clear()
        conversation.addAll(kept)
    }

    /** Forget the ids after the first [count]; for another answer to a message, what was there before the message. */
    fun rewind(count: Int) {
        engine.rewind(minOf(count, engine.length))
        while (conversation.size > count) conversation.removeAt(conversation.size - 1)
    }

    /** The ids that a message adds, with the first token of a text where the conversation is new. */
    fun messageIds(text: String): List<Int> {
        val first = if (conversation.isEmpty() && facts.addBos) listOf(facts.bos) else emptyList()
        return first + tokenizer.encode(text).toList()
    }

    /**
     * Answer [message] (ids), telling [show] each token as it comes.
     *
     * Throws a [Failure] before anything is computed if the message does not fit. [stopped] ends the answer within one loop.
     */
    fun answer(message: List<Int>, request: Request, stopped: () -> Boolean = { false }, show: (Token) -> Unit = {}): Answer {
        val given = conversation.drop(engine.length) + message
        val cache = engine.manifest.cache
        val pieces = promptPieces(engine.length, given.size, cache.prefillChunk, cache.context)
        val begin = clock()
        conversation.addAll(message)
        val turn = Turn(request, begin, given.size)
        try {
            var step: Step? = null
            for (piece in pieces) {
                val part = given.subList(piece.from, piece.from + piece.length).toIntArray()
                step = engine.step(part, request.loops, measure = piece == pieces.last(), stopped = stopped)
            }
            return turn.run(checkNotNull(step), stopped, show)
        } catch (_: Stopped) {
            return turn.end(Ending.STOPPED, show)
        }
    }

    /** The state of one answer while it grows. */
    private inner class Turn(private val request: Request, private val begin: Double, private val promptTokens: Int) {
        private val sampler = Sampler(request.sampling)
        private val stream = TextStream(tokenizer)
        private val stops = StopTexts(request.stops)
        private val text = StringBuilder()
        private val ids = ArrayList<Int>()
        private val loops = ArrayList<Int>()
        private var first = 0.0
        private var last = 0.0

        fun run(prompt: Step, stopped: () -> Boolean, show: (Token) -> Unit): Answer {
            var step = prompt
            while (true) {
                val logits = step.logits.copyOf(engine.manifest.vocabSize) // padding is no token
                val token = sampler.choose(logits, conversation)
                last = clock()
                if (ids.isEmpty()) first = last
                loops.add(step.loopsUsed)
                ids.add(token)
                conversation.add(token)
                if (token in facts.stop) return end(Ending.STOP_TOKEN, show)
                val piece = stops.feed(stream.feed(token))
                text.append(piece)
                show(Token(token, piece, step.loopsUsed, step.changes.lastOrNull(), metrics()))
                if (stops.found != null) return end(Ending.STOP_TEXT, show)
                if (ids.size >= request.newTokens) return end(Ending.LENGTH, show)
                if (engine.length >= engine.manifest.cache.context) return end(Ending.CONTEXT, show)
                if (stopped()) throw Stopped()
                step = engine.step(intArrayOf(token), request.loops, request.threshold, measure = true, stopped = stopped)
            }
        }

        fun end(ending: Ending, show: (Token) -> Unit): Answer {
            val rest = if (stops.found == null) stops.feed(stream.finish()) + stops.finish() else ""
            if (rest.isNotEmpty()) {
                text.append(rest)
                show(Token(ids.last(), rest, loops.last(), null, metrics()))
            }
            return Answer(text.toString(), ids, ending, metrics())
        }

        private fun metrics() = Metrics(promptTokens, ids.size, maxOf(first - begin, 0.0), last - first, loops.toList())
    }
}
