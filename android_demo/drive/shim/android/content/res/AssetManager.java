package android.content.res;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.util.Enumeration;
import java.util.TreeSet;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** The assets of the APK itself. */
public class AssetManager {
    public static ZipFile apk;

    public InputStream open(String name) throws IOException {
        ZipEntry entry = apk.getEntry("assets/" + name);
        if (entry == null) throw new FileNotFoundException(name);
        return apk.getInputStream(entry);
    }

    public String[] list(String folder) {
        TreeSet<String> names = new TreeSet<>();
        String start = "assets/" + folder + "/";
        for (Enumeration<? extends ZipEntry> all = apk.entries(); all.hasMoreElements();) {
            String name = all.nextElement().getName();
            if (name.startsWith(start)) names.add(name.substring(start.length()).split("/")[0]);
        }
        return names.toArray(new String[0]);
    }
}
