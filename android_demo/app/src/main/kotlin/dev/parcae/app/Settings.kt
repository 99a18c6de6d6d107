package dev.parcae.app

import android.content.SharedPreferences

/** What the user chose, kept between starts. */
class Settings(private val kept: SharedPreferences) {
    /** Name of the model that was used last; empty: none. */
    var model: String
        get() = kept.getString("model", "").orEmpty()
        set(value) = kept.edit().putString("model", value).apply()

    /** Loops of the next message; 0: what the model was trained at. */
    var loops: Int
        get() = kept.getInt("loops", 0)
        set(value) = kept.edit().putInt("loops", value).apply()

    var saver: Boolean
        get() = kept.getBoolean("saver", true)
        set(value) = kept.edit().putBoolean("saver", value).apply()

    var early: Boolean
        get() = kept.getBoolean("early", false)
        set(value) = kept.edit().putBoolean("early", value).apply()

    var creative: Boolean
        get() = kept.getBoolean("creative", false)
        set(value) = kept.edit().putBoolean("creative", value).apply()

    /** Threads of the runtime: half of the cores, which on most phones are the fast ones. */
    val threads: Int get() = maxOf(Runtime.getRuntime().availableProcessors() / 2, 1)
}
