package android.provider;

import android.net.Uri;
import java.io.File;

public class DocumentsContract {
    public static String getTreeDocumentId(Uri tree) {
        return tree.file.getPath();
    }

    public static Uri buildChildDocumentsUriUsingTree(Uri tree, String document) {
        return new Uri(new File(document));
    }

    public static Uri buildDocumentUriUsingTree(Uri tree, String document) {
        return new Uri(new File(document));
    }
}
