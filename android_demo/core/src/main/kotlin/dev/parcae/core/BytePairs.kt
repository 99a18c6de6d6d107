package dev.parcae.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonPrimitive
import java.util.PriorityQueue

/** Byte pair encoding of one word: the pair that was learned first is merged first, the leftmost of several. */
internal class BytePairs private constructor(
    private val vocabulary: Map<String, Int>,
    private val merges: Map<Long, LongArray>,
    private val unknown: Int?,
    private val fuseUnknown: Boolean,
    private val byteFallback: Boolean,
    private val wholeWords: Boolean,
) {
    private class Candidate(val rank: Long, val left: Int, val right: Int, val leftId: Int, val rightId: Int, val merged: Int)

    /** Append the ids of [word] to [ids]. */
    fun encode(word: String, ids: MutableList<Int>) {
        val whole = if (wholeWords) vocabulary[word] else null
        if (whole != null) ids.add(whole) else ids.addAll(merged(symbols(word)))
    }

    private fun symbols(word: String): IntArray {
        val symbols = ArrayList<Int>()
        var place = 0
        var fusing = false
        while (place < word.length) {
            val size = Character.charCount(word.codePointAt(place))
            val character = word.substring(place, place + size)
            place += size
            val known = vocabulary[character]?.let { listOf(it) } ?: bytesOf(character)
            if (known != null) {
                symbols.addAll(known)
                fusing = false
            } else if (unknown != null) {
                if (!(fusing && fuseUnknown)) symbols.add(unknown)
                fusing = true
            }
        }
        return symbols.toIntArray()
    }

    private fun bytesOf(character: String): List<Int>? {
        if (!byteFallback) return null
        val tokens = character.toByteArray(Charsets.UTF_8).map { vocabulary["<0x%02X>".format(it)] }
        return if (null in tokens) null else tokens.filterNotNull()
    }

    private fun merged(symbols: IntArray): List<Int> {
        val next = IntArray(symbols.size) { it + 1 }
        val previous = IntArray(symbols.size) { it - 1 }
        val alive = BooleanArray(symbols.size) { true }
        val queue = PriorityQueue<Candidate>(compareBy<Candidate> { it.rank }.thenBy { it.left })

        fun offer(left: Int) {
            val right = if (left >= 0) next[left] else return
            if (right >= symbols.size) return
            val merge = merges[key(symbols[left], symbols[right])] ?: return
            queue.add(Candidate(merge[0], left, right, symbols[left], symbols[right], merge[1].toInt()))
        }
        for (place in 0 until symbols.size - 1) offer(place)
        while (true) {
            val best = queue.poll() ?: break
            val stale = !alive[best.left] || !alive[best.right] || symbols[best.left] != best.leftId || symbols[best.right] != best.rightId
            if (stale) continue
            symbols[best.left] = best.merged
            alive[best.right] = false
            next[best.left] = next[best.right]
            if (next[best.left] < symbols.size) previous[next[best.left]] = best.left
            offer(previous[best.left])
            offer(best.left)
        }
        return symbols.indices.filter { alive[it] }.map { symbols[it] }
    }

    companion object {
        private fun key(left: Int, right: Int): Long = left.toLong() shl 32 or right.toLong()

        fun of(model: Fields, vocabulary: Map<String, Int>): BytePairs {
            for (name in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
                if (model.has(name) && model.text(name).isNotEmpty()) unknownPart("a $name")
            }
            val merges = HashMap<Long, LongArray>()
            model.list("merges").forEachIndexed { rank, merge ->
                val (left, right) = pair(merge)
                val found = listOf(left, right, left + right).map { vocabulary[it] ?: unknownPart("a merge of unknown tokens, $left and $right") }
                merges.getOrPut(key(found[0], found[1])) { longArrayOf(rank.toLong(), found[2].toLong()) }
            }
            return BytePairs(
                vocabulary,
                merges,
                unknown = if (model.has("unk_token")) vocabulary[model.text("unk_token")] else null,
                fuseUnknown = model.has("fuse_unk") && model.flag("fuse_unk"),
                byteFallback = model.has("byte_fallback") && model.flag("byte_fallback"),
                wholeWords = model.has("ignore_merges") && model.flag("ignore_merges"),
            )
        }

        private fun pair(merge: JsonElement): List<String> {
            val parts = when (merge) {
                is JsonArray -> merge.map { (it as? JsonPrimitive)?.content ?: unknownPart("damaged merges") }
                is JsonPrimitive -> merge.content.split(" ")
                else -> unknownPart("damaged merges")
            }
            return if (parts.size == 2) parts else unknownPart("damaged merges")
        }
    }
}
