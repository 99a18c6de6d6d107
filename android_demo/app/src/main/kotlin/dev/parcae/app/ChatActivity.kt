package dev.parcae.app

import android.app.Activity
import android.content.ComponentCallbacks2
import android.content.Intent
import android.os.Bundle
import android.view.Gravity
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.HorizontalScrollView
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.SeekBar
import android.widget.TextView
import dev.parcae.core.Ending
import dev.parcae.core.Metrics
import dev.parcae.core.convergence

/** The first screen: messages above, all controls below, within reach of one hand. */
class ChatActivity : Activity(), ChatScreen {
    private lateinit var place: Workplace
    private lateinit var widgets: Widgets
    private lateinit var list: LinearLayout
    private lateinit var scroll: ScrollView
    private lateinit var input: EditText
    private lateinit var status: TextView
    private lateinit var strip: TextView
    private lateinit var slider: SeekBar
    private lateinit var sliderLabel: TextView
    private lateinit var send: Button
    private lateinit var again: Button
    private var growing: TextView? = null
    private var following = true
    private val loops get() = slider.progress + 1

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        place = Workplace.of(this)
        widgets = Widgets(this)
        setContentView(widgets.screen(build()))
        state?.getString(DRAFT)?.let { input.setText(it) }
        slider.progress = (state?.getInt(LOOPS) ?: place.settings.loops.takeIf { it > 0 } ?: DEFAULT_LOOPS) - 1
        place.chat.screen = this
        opened(state?.getString(CONVERSATION) ?: intent.getStringExtra(CONVERSATION))
        messages()
        busy(place.chat.busy)
        if (!place.chat.busy) place.chat.warm()
    }

    override fun onNewIntent(given: Intent) {
        super.onNewIntent(given)
        opened(given.getStringExtra(CONVERSATION))
    }

    private fun opened(id: String?) {
        if (id != null) place.chat.open(id)
    }

    private fun build(): View {
        list = widgets.column()
        scroll = widgets.wide(widgets.scrolling(list), vertical = true)
        follow()
        status = widgets.text("").apply { accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE }
        strip = widgets.text("")
        input = widgets.field(getString(R.string.message), LINES)
        send = widgets.button(getString(R.string.send)) { sendOrStop() }
        return widgets.column(scroll, status, strip, tools(), sliderRow(), widgets.row(widgets.wide(input), send))
    }

    private fun sliderRow(): View {
        sliderLabel = widgets.text("")
        slider = SeekBar(this).apply {
            max = MOST_LOOPS - 1
            contentDescription = getString(R.string.loops_label)
            setOnSeekBarChangeListener(
                object : SeekBar.OnSeekBarChangeListener {
                    override fun onProgressChanged(bar: SeekBar, progress: Int, fromUser: Boolean) = chosen()

                    override fun onStartTrackingTouch(bar: SeekBar) = Unit

                    override fun onStopTrackingTouch(bar: SeekBar) = Unit
                },
            )
        }
        return widgets.row(sliderLabel, widgets.wide(slider))
    }

    private fun tools(): View {
        again = widgets.button("") { place.chat.again(loops) }
        val settings = place.settings
        return HorizontalScrollView(this).apply {
            addView(
                widgets.row(
                    again,
                    widgets.button(getString(R.string.compare)) { place.chat.compare(input.text.toString(), COMPARED) },
                    widgets.button(getString(R.string.fresh)) { place.chat.fresh() },
                    widgets.button(getString(R.string.history)) { startActivity(Intent(this@ChatActivity, HistoryActivity::class.java)) },
                    widgets.button(getString(R.string.models)) { startActivity(Intent(this@ChatActivity, ModelsActivity::class.java)) },
                    widgets.button(getString(R.string.checks)) { startActivity(Intent(this@ChatActivity, ChecksActivity::class.java)) },
                    widgets.check(getString(R.string.saver), settings.saver) { settings.saver = it },
                    widgets.check(getString(R.string.early), settings.early) { settings.early = it },
                    widgets.check(getString(R.string.creative), settings.creative) { settings.creative = it },
                ),
            )
        }
    }

    private fun chosen() {
        place.settings.loops = loops
        sliderLabel.text = getString(R.string.loops, loops)
        again.text = getString(R.string.again, loops)
    }

    private fun sendOrStop() {
        if (place.chat.busy) {
            place.chat.stop()
        } else {
            place.chat.send(input.text.toString(), loops)
            input.setText("")
        }
    }

    override fun messages() {
        chosen()
        list.removeAllViews()
        growing = null
        for (shown in place.chat.shown) {
            val text = widgets.text("", selectable = true)
            list.addView(text)
            draw(text, shown)
            growing = text
        }
        if (place.chat.compared.isNotEmpty()) {
            val columns = place.chat.compared.map { (loops, answer) ->
                val facts = getString(R.string.compared, loops, answer.metrics.firstTokenSeconds, answer.metrics.tokenRate)
                val text = widgets.text(answer.text, selectable = true)
                text.contentDescription = getString(R.string.answer_label, loops, answer.text)
                widgets.wide(widgets.column(widgets.text(facts), text))
            }
            list.addView(widgets.row(*columns.toTypedArray()).apply { gravity = Gravity.TOP })
        }
        place.chat.returned?.let { input.setText(it) }
        place.chat.returned = null
        following = true
        scroll.scrollTo(0, list.height)
    }

    /** Keep the end of the conversation in sight while it grows, until the reader scrolls up. */
    private fun follow() {
        scroll.setOnScrollChangeListener { _, _, now, _, before ->
            following = !scroll.canScrollVertically(1) || (following && now >= before)
        }
        val laidOut = View.OnLayoutChangeListener { _, _, _, _, _, _, _, _, _ -> if (following) scroll.scrollTo(0, list.height) }
        list.addOnLayoutChangeListener(laidOut)
        scroll.addOnLayoutChangeListener(laidOut)
    }

    private fun draw(view: TextView, shown: Shown) {
        if (shown.fromUser) {
            view.text = getString(R.string.from_user, shown.text)
            return
        }
        val message = shown.message
        val facts = if (message == null) {
            ""
        } else {
            "\n" + getString(
                R.string.answer_facts, shown.loops, message.meanLoops, message.tokensPerSecond, ending(place.chat.ending(shown)),
            )
        }
        val meter = if (shown.changes.isEmpty()) "" else "\n" + getString(R.string.convergence, convergence(shown.changes))
        view.text = "${shown.text}$meter$facts"
        view.contentDescription = getString(R.string.answer_label, shown.loops, shown.text)
    }

    private fun ending(ending: Ending?): String = getString(
        when (ending) {
            Ending.LENGTH -> R.string.ended_length
            Ending.CONTEXT -> R.string.ended_context
            Ending.STOPPED -> R.string.ended_stopped
            else -> R.string.ended_stop
        },
    )

    override fun grew(shown: Shown) {
        growing?.let { draw(it, shown) }
    }

    override fun say(sentence: String) {
        status.text = sentence
    }

    override fun busy(now: Boolean) {
        send.text = getString(if (now) R.string.stop else R.string.send)
        val range = place.loaded?.model?.manifest?.loops ?: return
        slider.max = range.counts.last() - 1
        if (!now && loops !in range.counts) slider.progress = range.choose() - 1
    }

    override fun took(metrics: Metrics) {
        val loaded = place.loaded ?: return
        val (now, most) = place.phone.memory
        strip.text = getString(
            R.string.strip, metrics.firstTokenSeconds, metrics.tokenRate, metrics.loopRate, now / MB, most / MB,
            loaded.engine.length, loaded.model.manifest.cache.context, place.phone.heat.name.lowercase(),
        )
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putString(DRAFT, input.text.toString())
        state.putString(CONVERSATION, place.chat.id)
        state.putInt(LOOPS, loops)
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND) place.chat.trim(getString(R.string.put_away))
    }

    override fun onLowMemory() {
        super.onLowMemory()
        place.chat.trim(getString(R.string.put_away))
    }

    override fun onDestroy() {
        if (place.chat.screen === this) place.chat.screen = null
        super.onDestroy()
    }

    companion object {
        const val CONVERSATION = "conversation"
        private const val DRAFT = "draft"
        private const val LOOPS = "loops"
        private const val LINES = 6
        private const val MB = 1_000_000L
        private const val MOST_LOOPS = 16
        private const val DEFAULT_LOOPS = 6
        private val COMPARED = listOf(1, 4, 8)
    }
}
