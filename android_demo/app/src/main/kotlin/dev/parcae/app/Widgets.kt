package dev.parcae.app

import android.content.Context
import android.view.Gravity
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.CheckBox
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.SeekBar
import android.widget.TextView

/** Small constructors of framework widgets. Text sizes are the system's, so large fonts work; all that can be touched is 48 dp high. */
class Widgets(private val context: Context) {
    private val density = context.resources.displayMetrics.density

    private fun dp(count: Int) = (count * density).toInt()

    fun column(vararg children: View) = stack(LinearLayout.VERTICAL, *children)

    fun row(vararg children: View) = stack(LinearLayout.HORIZONTAL, *children).apply { gravity = Gravity.CENTER_VERTICAL }

    private fun stack(way: Int, vararg children: View) = LinearLayout(context).apply {
        orientation = way
        for (child in children) addView(child)
    }

    /** Make [child] take what is left of a row or column. */
    fun <V : View> wide(child: V, vertical: Boolean = false): V = child.apply {
        // a slider's own height is less than a finger needs
        val high = if (child is SeekBar) dp(TOUCH) else ViewGroup.LayoutParams.WRAP_CONTENT
        val fill = ViewGroup.LayoutParams.MATCH_PARENT
        layoutParams = if (vertical) LinearLayout.LayoutParams(fill, 0, 1f) else LinearLayout.LayoutParams(0, high, 1f)
    }

    fun scrolling(child: View) = ScrollView(context).apply { addView(child) }

    fun text(value: String, selectable: Boolean = false) = TextView(context).apply {
        text = value
        setTextAppearance(android.R.style.TextAppearance_DeviceDefault)
        setTextIsSelectable(selectable)
        setPadding(dp(PADDING), dp(PADDING / 2), dp(PADDING), dp(PADDING / 2))
    }

    /** [what] is read aloud after the label, where several buttons of a screen have the same. */
    fun button(label: String, what: String = "", pressed: () -> Unit) = Button(context).apply {
        text = label
        if (what.isNotEmpty()) contentDescription = "$label: $what"
        minHeight = dp(TOUCH)
        setOnClickListener { pressed() }
    }

    fun field(label: String, lines: Int = 1) = EditText(context).apply {
        hint = label
        minHeight = dp(TOUCH)
        maxLines = lines
    }

    fun check(label: String, on: Boolean, changed: (Boolean) -> Unit) = CheckBox(context).apply {
        text = label
        isChecked = on
        minHeight = dp(TOUCH)
        setOnCheckedChangeListener { _, now -> changed(now) }
    }

    /** The view of a whole screen, clear of the system's bars. */
    fun screen(content: View): View = content.apply {
        fitsSystemWindows = true
        setPadding(dp(PADDING), dp(PADDING), dp(PADDING), dp(PADDING))
    }

    private companion object {
        const val PADDING = 8
        const val TOUCH = 48
    }
}
