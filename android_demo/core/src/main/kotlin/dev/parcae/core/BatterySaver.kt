package dev.parcae.core

/** How hot a phone says that it is; the order is Android's, from PowerManager.THERMAL_STATUS_NONE on. */
enum class Heat { NONE, LIGHT, MODERATE, SEVERE, CRITICAL, EMERGENCY, SHUTDOWN }

/** The loops that a message gets, and why they are fewer than asked (null: they are not). */
data class Thrift(val loops: Int, val reason: String?)

/**
 * Lowers T when the phone gets warm or the battery low: time and energy of a token grow with its loops, memory does not.
 *
 * At moderate heat or below 20 % half of what was asked, at severe heat or below 10 % a quarter, and never below the model's least.
 * [battery] is in percent, null where it is unknown or the phone is charging.
 */
fun savedLoops(asked: Int, range: LoopRange, heat: Heat, battery: Int?): Thrift {
    val byHeat = if (heat >= Heat.SEVERE) {
        4
    } else if (heat == Heat.MODERATE) {
        2
    } else {
        1
    }
    val byBattery = if (battery == null || battery >= 20) {
        1
    } else if (battery < 10) {
        4
    } else {
        2
    }
    val share = maxOf(byHeat, byBattery)
    val chosen = range.counts.filter { it <= maxOf(asked / share, range.counts.first()) }.max()
    if (chosen >= asked) return Thrift(asked, null)
    val reason = if (byHeat >= byBattery) "the phone is warm" else "the battery is at $battery %"
    return Thrift(chosen, "$chosen loops in place of $asked: $reason")
}
