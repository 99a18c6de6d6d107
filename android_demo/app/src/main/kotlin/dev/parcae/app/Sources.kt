package dev.parcae.app

import android.content.ContentResolver
import android.content.res.AssetManager
import android.net.Uri
import android.provider.DocumentsContract
import dev.parcae.core.FileSource
import java.io.FileNotFoundException
import java.io.InputStream

/** A model among the app's assets. */
class AssetSource(private val assets: AssetManager, private val folder: String) : FileSource {
    override fun open(name: String): InputStream? =
        try {
            assets.open("$folder/$name")
        } catch (_: FileNotFoundException) {
            null
        }
}

/** A folder that the user picked. Only names that were listed in it are opened. */
class PickedSource(private val resolver: ContentResolver, private val tree: Uri) : FileSource {
    override fun open(name: String): InputStream? {
        var document = DocumentsContract.getTreeDocumentId(tree)
        for (part in name.split("/")) document = child(document, part) ?: return null
        return resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, document))
    }

    private fun child(document: String, name: String): String? {
        val children = DocumentsContract.buildChildDocumentsUriUsingTree(tree, document)
        val wanted = arrayOf(DocumentsContract.Document.COLUMN_DOCUMENT_ID, DocumentsContract.Document.COLUMN_DISPLAY_NAME)
        val cursor = resolver.query(children, wanted, null, null, null) ?: return null
        try {
            while (cursor.moveToNext()) if (cursor.getString(1) == name) return cursor.getString(0)
            return null
        } finally {
            cursor.close()
        }
    }
}
