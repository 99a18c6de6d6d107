package dev.parcae.core

import kotlin.math.log10

private const val BLOCKS = "▁▂▃▄▅▆▇█"
private const val SHOWN = 40

/**
 * A line with one block for each of the last tokens: how far its last loop still moved the state, from below 0.1 % (lowest) to 100 %.
 */
fun convergence(changes: List<Float>): String = changes.takeLast(SHOWN).map { change ->
    val level = if (change <= 0) 0.0 else (log10(change.toDouble()) + 3) / 3
    BLOCKS[(level * BLOCKS.length).toInt().coerceIn(0, BLOCKS.length - 1)]
}.joinToString("")
