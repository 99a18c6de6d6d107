package dev.parcae.app

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import android.os.SystemClock
import dev.parcae.core.Heat
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put

/** What the phone says about itself: memory, heat, battery. */
class Phone(private val context: Context) {
    /** Bytes that the system can still give before it ends other apps. */
    val availableBytes: Long
        get() {
            val info = ActivityManager.MemoryInfo()
            (context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(info)
            return maxOf(info.availMem - info.threshold, 0)
        }

    /** The app's own proportional set size in bytes, the greatest seen so far beside it. Read again after a second: reading takes long. */
    val memory: Pair<Long, Long>
        @Synchronized get() {
            val now = SystemClock.elapsedRealtime()
            if (read == 0L || now - read > MILLIS) {
                size = Debug.getPss() * KIB
                peak = maxOf(peak, size)
                read = now
            }
            return size to peak
        }
    private var read = 0L
    private var size = 0L
    private var peak = 0L

    /** The system's thermal status; before Android 10 phones do not tell. */
    val heat: Heat
        get() {
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return Heat.NONE
            val status = (context.getSystemService(Context.POWER_SERVICE) as PowerManager).currentThermalStatus
            return Heat.entries.getOrElse(status) { Heat.NONE }
        }

    /** Percent of the battery, null while it is charged. */
    val battery: Int?
        get() {
            val manager = context.getSystemService(Context.BATTERY_SERVICE) as BatteryManager
            return if (manager.isCharging) null else manager.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)
        }

    /** Degrees Celsius of the battery, null where the phone does not tell. */
    val temperature: Double?
        get() {
            val state: Intent? = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
            return state?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0)?.takeIf { it > 0 }?.let { it / 10.0 }
        }

    /** Maker, model, system and cores. */
    fun facts() = buildJsonObject {
        put("maker", Build.MANUFACTURER)
        put("model", Build.MODEL)
        put("hardware", Build.HARDWARE)
        put("android", Build.VERSION.SDK_INT)
        put("cores", Runtime.getRuntime().availableProcessors())
    }

    private companion object {
        const val KIB = 1024L
        const val MILLIS = 1000L
    }
}
