package android.content;

import android.app.ActivityManager;
import android.content.res.AssetManager;
import android.content.res.Resources;
import android.os.BatteryManager;
import android.os.PowerManager;
import java.io.File;
import java.util.HashMap;
import java.util.Map;

/** A folder on disk as the app's private files, and strings as the driver read them from the APK. */
public class Context {
    public static final String ACTIVITY_SERVICE = "activity";
    public static File files;
    public static final Map<Integer, String> strings = new HashMap<>();
    private static final Map<String, SharedPreferences> preferences = new HashMap<>();

    public Context getApplicationContext() {
        return this;
    }

    public File getFilesDir() {
        return files;
    }

    public AssetManager getAssets() {
        return new AssetManager();
    }

    public Resources getResources() {
        return new Resources();
    }

    public ContentResolver getContentResolver() {
        return new ContentResolver();
    }

    public Object getSystemService(String name) {
        switch (name) {
            case "activity": return new ActivityManager();
            case "power": return new PowerManager();
            case "batterymanager": return new BatteryManager();
            default: throw new IllegalArgumentException(name);
        }
    }

    public SharedPreferences getSharedPreferences(String name, int mode) {
        return preferences.computeIfAbsent(name, key -> new SharedPreferences.Memory());
    }

    public Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter) {
        return new Intent("").putExtra("temperature", 310);
    }

    public final String getString(int id) {
        String found = strings.get(id);
        if (found == null) throw new IllegalArgumentException("string " + Integer.toHexString(id));
        return found;
    }

    public final String getString(int id, Object... given) {
        return String.format(getString(id), given);
    }
}
