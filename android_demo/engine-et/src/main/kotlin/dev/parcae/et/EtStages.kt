package dev.parcae.et

import dev.parcae.core.Stages

/**
 * The methods of a program: prelude(ids, past) gives what every loop is given, recur(state, that, past, slot) the next state,
 * coda(state, ids, past, positions) logits. Ids are (1, tokens), states (1, tokens, width).
 */
internal class EtStages(private val program: Program, override val stateWidth: Int) : Stages {
    private var ids = Value.of(LongArray(0), 1, 0)
    private var past = Value.of(LongArray(1), 1)
    private var injected: List<Value> = emptyList()
    private val states = arrayOfNulls<Value>(2)

    override fun prelude(ids: IntArray, past: Int) {
        this.ids = Value.of(LongArray(ids.size) { ids[it].toLong() }, 1, ids.size.toLong())
        this.past = Value.of(longArrayOf(past.toLong()), 1)
        states[0] = Value.of(FloatArray(ids.size * stateWidth), 1, ids.size.toLong(), stateWidth.toLong())
        injected = program.execute("prelude", listOf(this.ids, this.past))
    }

    override fun recur(loop: Int, slot: Int) {
        val place = Value.of(longArrayOf(slot.toLong()), 1)
        val inputs = listOf(value(loop - 1), injected.first(), past, place) + injected.drop(1)
        states[loop % 2] = program.execute("recur", inputs).single()
    }

    override fun state(number: Int): FloatArray = checkNotNull(value(number).floats)

    override fun coda(number: Int): FloatArray {
        val last = Value.of(longArrayOf(ids.shape[1] - 1), 1)
        return checkNotNull(program.execute("coda", listOf(value(number), ids, past, last)).single().floats)
    }

    /** The caches are the program's own. [EtEngine] refuses what would need this. */
    override fun fillAbove(slot: Int, start: Int, stop: Int) = Unit

    private fun value(number: Int): Value = checkNotNull(states[number % 2])
}
