package android.content;

import android.database.Cursor;
import android.net.Uri;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;

/** Folders on disk as document trees. */
public class ContentResolver {
    public InputStream openInputStream(Uri uri) throws java.io.FileNotFoundException {
        return new FileInputStream(uri.file);
    }

    public Cursor query(Uri uri, String[] columns, String selection, String[] arguments, String order) {
        File[] all = uri.file.listFiles();
        return new Cursor() {
            private int place = -1;

            public boolean moveToNext() {
                return all != null && ++place < all.length;
            }

            public String getString(int column) {
                return column == 0 ? all[place].getPath() : all[place].getName();
            }

            public void close() {}
        };
    }
}
