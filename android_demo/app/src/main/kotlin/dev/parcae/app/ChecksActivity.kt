package dev.parcae.app

import android.app.Activity
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import dev.parcae.core.BenchRow
import dev.parcae.core.Conditions
import dev.parcae.core.Measured
import dev.parcae.core.SelfTestRow
import dev.parcae.core.benchmark
import dev.parcae.core.memoryBandwidth
import dev.parcae.core.report
import dev.parcae.core.selfTest
import kotlinx.serialization.json.JsonObject

/** Does this phone compute what the model's maker says, and how fast: self-test, benchmark, and both as JSON for the share sheet. */
class ChecksActivity : Activity() {
    private lateinit var place: Workplace
    private lateinit var widgets: Widgets
    private lateinit var list: LinearLayout
    private lateinit var status: TextView
    private lateinit var stop: Button
    private var tests: List<SelfTestRow> = emptyList()
    private var report: JsonObject? = null

    @Volatile private var stopping = false

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        place = Workplace.of(this)
        widgets = Widgets(this)
        list = widgets.column()
        status = widgets.text("")
        stop = widgets.button(getString(R.string.stop)) { stopping = true }
        val buttons = widgets.column(
            widgets.button(getString(R.string.self_test)) { test() },
            widgets.button(getString(R.string.benchmark)) { measure() },
            stop,
            widgets.button(getString(R.string.share_results)) { report?.let { share(it.toString(), "application/json") } },
        )
        setContentView(widgets.screen(widgets.column(widgets.wide(widgets.scrolling(list), vertical = true), status, buttons)))
    }

    private fun progress(model: String, percent: Int) = place.show { status.text = getString(R.string.loading, model, percent) }

    private fun test() {
        stopping = false
        place.run({
            val loaded = place.model(::progress)
            val rows = selfTest(loaded.engine, loaded.model.folder, { stopping }) { loops ->
                place.show {
                    status.text =
                        getString(R.string.loops, loops)
                }
            }
            loaded.generator.restore(loaded.generator.ids.toList())
            rows to report(loaded.model.manifest, loaded.engine.runtime, place.phone.facts(), rows, null)
        }, { (rows, json) ->
            tests = rows
            report = json
            list.removeAllViews()
            for (row in rows) list.addView(widgets.text(line(row), selectable = true))
            status.text = ""
        }, { status.text = it })
    }

    private fun line(row: SelfTestRow): String {
        val verdict = when (row.passed) {
            true -> R.string.passed
            false -> R.string.failed
            null -> R.string.undecided
        }
        return getString(
            R.string.row_test, row.loops, getString(verdict), row.maxAbs, row.klMean, PERCENT * row.top1, row.tokensEqual, row.tokens,
        )
    }

    private fun measure() {
        stopping = false
        val phone = place.phone
        place.run({
            place.close()
            val before = phone.temperature
            val start = SystemClock.elapsedRealtime()
            val loaded = place.model(::progress)
            val loadSeconds = (SystemClock.elapsedRealtime() - start) / MILLIS
            val rows = benchmark(loaded.engine, { stopping }) { loops, context ->
                place.show { status.text = "${getString(R.string.loops, loops)}, $context" }
            }
            val conditions = Conditions(loadSeconds, before, phone.temperature, phone.heat, phone.battery, phone.memory.second)
            val measured = Measured(rows, place.settings.threads, memoryBandwidth(), conditions)
            rows to report(loaded.model.manifest, loaded.engine.runtime, phone.facts(), tests, measured)
        }, { (rows, json) ->
            report = json
            list.removeAllViews()
            for (row in rows) list.addView(widgets.text(line(row), selectable = true))
            status.text = ""
        }, { status.text = it })
    }

    private fun line(row: BenchRow): String =
        getString(R.string.row_bench, row.loops, row.context, MILLIS * row.firstTokenSeconds, MILLIS * row.decodeSeconds)

    private companion object {
        const val MILLIS = 1000.0
        const val PERCENT = 100.0
    }
}
