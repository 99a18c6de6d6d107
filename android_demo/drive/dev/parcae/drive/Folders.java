package dev.parcae.drive;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Intent;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.DocumentsContract;
import android.provider.DocumentsContract.Document;
import java.io.File;
import java.io.FileNotFoundException;
import org.robolectric.Robolectric;

/** Folders of this machine, as the phone's files app gives them to the app that picked one: a document's id is its path. */
public class Folders extends ContentProvider {
    private static final String AUTHORITY = "dev.parcae.drive.folders";

    /** Let the framework find this provider. */
    static void register() {
        Robolectric.buildContentProvider(Folders.class).create(AUTHORITY);
    }

    /** What the file picker gives back for a folder. */
    static Intent picked(File folder) {
        return new Intent().setData(DocumentsContract.buildTreeDocumentUri(AUTHORITY, folder.getPath()));
    }

    @Override
    public boolean onCreate() {
        return true;
    }

    /** The documents in one. */
    @Override
    public Cursor query(Uri children, String[] columns, String selection, String[] given, String order) {
        MatrixCursor found = new MatrixCursor(new String[] {Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME});
        for (File file : new File(DocumentsContract.getDocumentId(children)).listFiles()) {
            found.addRow(new Object[] {file.getPath(), file.getName()});
        }
        return found;
    }

    @Override
    public ParcelFileDescriptor openFile(Uri document, String mode) throws FileNotFoundException {
        return ParcelFileDescriptor.open(new File(DocumentsContract.getDocumentId(document)), ParcelFileDescriptor.MODE_READ_ONLY);
    }

    @Override
    public String getType(Uri document) {
        return "application/octet-stream";
    }

    @Override
    public Uri insert(Uri document, ContentValues values) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int delete(Uri document, String selection, String[] given) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int update(Uri document, ContentValues values, String selection, String[] given) {
        throw new UnsupportedOperationException();
    }
}
