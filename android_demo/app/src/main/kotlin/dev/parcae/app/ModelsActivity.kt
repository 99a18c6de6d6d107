package dev.parcae.app

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.widget.LinearLayout
import android.widget.TextView
import dev.parcae.core.StoredModel

/** The models on this phone: use one, delete one, import a folder that `parcae-export bundle` wrote. */
class ModelsActivity : Activity() {
    private lateinit var place: Workplace
    private lateinit var widgets: Widgets
    private lateinit var list: LinearLayout
    private lateinit var status: TextView

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        place = Workplace.of(this)
        widgets = Widgets(this)
        list = widgets.column()
        status = widgets.text("")
        val pick = widgets.button(getString(R.string.import_folder)) {
            startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), PICKED)
        }
        setContentView(widgets.screen(widgets.column(widgets.wide(widgets.scrolling(list), vertical = true), status, pick)))
        refresh()
    }

    private fun refresh() = place.run({ place.installed() }, { show(it) }, { status.text = it })

    private fun show(models: List<StoredModel>) {
        list.removeAllViews()
        for (model in models) {
            val manifest = model.manifest
            val loops = manifest.loops.choose()
            list.addView(
                widgets.text(
                    getString(
                        R.string.model_facts, manifest.name, manifest.recipe, manifest.bytes / MB, manifest.memoryNeeded(loops) / MB, loops,
                        manifest.cache.context, manifest.promise,
                    ),
                ),
            )
            list.addView(
                widgets.row(
                    widgets.button(getString(R.string.use), manifest.name) { use(manifest.name) },
                    widgets.button(getString(R.string.delete), manifest.name) { delete(manifest.name) },
                ),
            )
        }
    }

    private fun use(name: String) {
        place.settings.model = name
        place.run({ place.model { model, percent -> place.show { status.text = getString(R.string.loading, model, percent) } } }, { loaded ->
            status.text = getString(R.string.loaded, loaded.model.manifest.name, loaded.engine.runtime)
            place.chat.fresh()
        }, { status.text = it })
    }

    private fun delete(name: String) = place.run({
        if (place.loaded?.model?.manifest?.name == name) place.close()
        place.store.remove(name)
    }, { refresh() }, { status.text = it })

    @Deprecated("The newer way is part of AndroidX, which this app does without.")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val tree = data?.data
        if (request != PICKED || result != RESULT_OK || tree == null) return
        val told = { done: Long, all: Long -> place.show { status.text = getString(R.string.loading, "", (PERCENT * done / maxOf(all, 1)).toInt()) } }
        place.run(
            { place.store.add(PickedSource(contentResolver, tree), { Engines.accept(it) }, progress = told) },
            { added ->
                use(added.manifest.name)
                refresh()
            },
            { status.text = it },
        )
    }

    private companion object {
        const val PICKED = 1
        const val MB = 1_000_000L
        const val PERCENT = 100L
    }
}
