package dev.parcae.app

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.text.format.DateUtils
import android.widget.EditText
import android.widget.LinearLayout
import dev.parcae.core.Conversation

/** Kept conversations: search, open, share, delete. */
class HistoryActivity : Activity() {
    private lateinit var place: Workplace
    private lateinit var widgets: Widgets
    private lateinit var list: LinearLayout
    private lateinit var words: EditText

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        place = Workplace.of(this)
        widgets = Widgets(this)
        list = widgets.column()
        words = widgets.field(getString(R.string.search))
        val search = widgets.row(widgets.wide(words), widgets.button(getString(R.string.search)) { refresh() })
        setContentView(widgets.screen(widgets.column(widgets.wide(widgets.scrolling(list), vertical = true), search)))
        refresh()
    }

    private fun refresh() {
        val sought = words.text.toString()
        place.run({ place.conversations.list(sought) }, { show(it) }, { list.addView(widgets.text(it)) })
    }

    private fun show(conversations: List<Conversation>) {
        list.removeAllViews()
        for (conversation in conversations) {
            val time = DateUtils.getRelativeTimeSpanString(conversation.changed)
            list.addView(widgets.text("${conversation.title}\n$time, ${conversation.model}"))
            list.addView(
                widgets.row(
                    widgets.button(getString(R.string.open), conversation.title) { open(conversation) },
                    widgets.button(getString(R.string.share), conversation.title) { share(conversation.plainText(), "text/plain") },
                    widgets.button(getString(R.string.delete), conversation.title) { delete(conversation) },
                ),
            )
        }
    }

    private fun delete(conversation: Conversation) {
        if (place.chat.id == conversation.id) place.chat.fresh()
        place.run({ place.conversations.delete(conversation.id) }, { refresh() }, {})
    }

    private fun open(conversation: Conversation) {
        val intent = Intent(this, ChatActivity::class.java).putExtra(ChatActivity.CONVERSATION, conversation.id)
        startActivity(intent)
        finish()
    }
}

/** Give a text to the system's share sheet. */
fun Activity.share(text: String, type: String) {
    val given = Intent(Intent.ACTION_SEND).setType(type).putExtra(Intent.EXTRA_TEXT, text)
    startActivity(Intent.createChooser(given, getString(R.string.share)))
}
