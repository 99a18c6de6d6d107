package dev.parcae.app

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import dev.parcae.core.BenchRow
import dev.parcae.core.Conditions
import dev.parcae.core.Measured
import dev.parcae.core.SelfTestRow
import dev.parcae.core.benchmark
import dev.parcae.core.firstToken
import dev.parcae.core.memoryBandwidth
import dev.parcae.core.report
import dev.parcae.core.selfTest
import kotlinx.serialization.json.JsonObject

/**
 * Does this phone compute what the model's maker says, and how fast: self-test, benchmark, and both as JSON for the share sheet.
 *
 * One of them runs at a time; leaving the screen ends it, turning the phone does not (the manifest keeps this screen then).
 */
class ChecksActivity : Activity() {
    private lateinit var place: Workplace
    private lateinit var widgets: Widgets
    private lateinit var list: LinearLayout
    private lateinit var status: TextView
    private lateinit var begin: List<Button>
    private lateinit var stop: Button
    private lateinit var send: Button
    private var tests: List<SelfTestRow> = emptyList()
    private var report: JsonObject? = null

    @Volatile private var stopping = false

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        place = Workplace.of(this)
        widgets = Widgets(this)
        list = widgets.column()
        status = widgets.text("").apply { accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE }
        begin = listOf(
            widgets.button(getString(R.string.self_test)) { run(::test, { line(it) }) { tests = it } },
            widgets.button(getString(R.string.benchmark)) { run(::measure, { line(it) }) {} },
        )
        stop = widgets.button(getString(R.string.stop)) { stopping = true }
        send = widgets.button(getString(R.string.share_results)) { report?.let { share(it.toString(), "application/json") } }
        running(false)
        val results = widgets.wide(widgets.scrolling(list), vertical = true)
        setContentView(widgets.screen(widgets.column(results, status, *begin.toTypedArray(), stop, send)))
    }

    override fun onDestroy() {
        stopping = true
        super.onDestroy()
    }

    private fun running(now: Boolean) {
        for (button in begin) button.isEnabled = !now
        stop.isEnabled = now
        send.isEnabled = !now && report != null
    }

    /** Do [work] on the worker; it gives rows, which are shown, and the report. */
    private fun <R> run(work: () -> Pair<List<R>, JsonObject>, line: (R) -> String, done: (List<R>) -> Unit) {
        stopping = false
        running(true)
        place.run(work, { (rows, json) ->
            report = json
            done(rows)
            list.removeAllViews()
            for (row in rows) list.addView(widgets.text(line(row), selectable = true))
            status.text = ""
            running(false)
        }, {
            status.text = it
            running(false)
        })
    }

    private fun say(sentence: String) = place.show { status.text = sentence }

    private fun progress(model: String, percent: Int) = say(getString(R.string.loading, model, percent))

    private fun test(): Pair<List<SelfTestRow>, JsonObject> {
        val loaded = place.model(::progress)
        val kept = loaded.generator.ids.toList()
        try {
            val rows = selfTest(loaded.engine, loaded.model.folder, { stopping }) { loops -> say(getString(R.string.loops, loops)) }
            return rows to report(loaded.model.manifest, loaded.engine.runtime, place.phone.facts(), rows, null)
        } finally {
            loaded.generator.restore(kept)
        }
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

    private fun measure(): Pair<List<BenchRow>, JsonObject> {
        val phone = place.phone
        val before = phone.temperature
        val (_, coldLoad) = load()
        val coldToken = firstToken(checkNotNull(place.loaded).engine, { stopping })
        val (loaded, warmLoad) = load()
        try {
            val rows = benchmark(loaded.engine, { stopping }) { loops, context -> say("${getString(R.string.loops, loops)}, $context") }
            val conditions = Conditions(coldLoad, coldToken, warmLoad, before, phone.temperature, phone.heat, phone.battery, phone.memory.second)
            val measured = Measured(rows, place.settings.threads, memoryBandwidth(), conditions)
            return rows to report(loaded.model.manifest, loaded.engine.runtime, phone.facts(), tests, measured)
        } finally {
            loaded.generator.restore(emptyList())
        }
    }

    /** The model, put away and loaded again, and the seconds that this took. */
    private fun load(): Pair<Loaded, Double> {
        place.close()
        val start = System.nanoTime()
        return place.model(::progress) to (System.nanoTime() - start) / NANOS
    }

    private fun line(row: BenchRow): String =
        getString(R.string.row_bench, row.loops, row.context, MILLIS * row.firstTokenSeconds, MILLIS * row.decodeSeconds)

    private companion object {
        const val MILLIS = 1000.0
        const val NANOS = 1e9
        const val PERCENT = 100.0
    }
}
