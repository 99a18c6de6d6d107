package dev.parcae.drive;

import android.content.Intent;
import android.content.pm.ProviderInfo;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.CancellationSignal;
import android.os.ParcelFileDescriptor;
import android.provider.DocumentsContract;
import android.provider.DocumentsContract.Document;
import android.provider.DocumentsProvider;
import java.io.File;
import java.io.FileNotFoundException;
import org.robolectric.Robolectric;

/** Folders of this machine, as the phone's files app gives them to the app that picked one: a document's id is its path. */
public class Folders extends DocumentsProvider {
    private static final String AUTHORITY = "dev.parcae.drive.folders";
    private static final String[] COLUMNS = {Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME};

    /** Let the framework find this provider. */
    static void register() {
        ProviderInfo info = new ProviderInfo();
        info.authority = AUTHORITY;
        info.exported = true;
        info.grantUriPermissions = true;
        info.readPermission = android.Manifest.permission.MANAGE_DOCUMENTS;
        info.writePermission = android.Manifest.permission.MANAGE_DOCUMENTS;
        Robolectric.buildContentProvider(Folders.class).create(info);
    }

    /** What the file picker gives back for a folder. */
    static Intent picked(File folder) {
        Uri tree = DocumentsContract.buildTreeDocumentUri(AUTHORITY, folder.getPath());
        return new Intent().setData(tree);
    }

    @Override
    public boolean onCreate() {
        return true;
    }

    @Override
    public boolean isChildDocument(String parent, String document) {
        return document.startsWith(parent);
    }

    @Override
    public Cursor queryRoots(String[] columns) {
        return new MatrixCursor(COLUMNS);
    }

    @Override
    public Cursor queryDocument(String document, String[] columns) {
        MatrixCursor found = new MatrixCursor(COLUMNS);
        found.addRow(new Object[] {document, new File(document).getName()});
        return found;
    }

    @Override
    public Cursor queryChildDocuments(String parent, String[] columns, String order) {
        MatrixCursor found = new MatrixCursor(COLUMNS);
        for (File file : new File(parent).listFiles()) found.addRow(new Object[] {file.getPath(), file.getName()});
        return found;
    }

    @Override
    public ParcelFileDescriptor openDocument(String document, String mode, CancellationSignal signal) throws FileNotFoundException {
        return ParcelFileDescriptor.open(new File(document), ParcelFileDescriptor.MODE_READ_ONLY);
    }
}
