package android.content;

import android.net.Uri;
import java.util.HashMap;
import java.util.Map;

public class Intent {
    public final String action;
    public Class<?> target;
    public Uri data;
    private final Map<String, Object> extras = new HashMap<>();

    public Intent(String action) {
        this.action = action;
    }

    public Intent(Context context, Class<?> target) {
        this.action = "";
        this.target = target;
    }

    public Intent putExtra(String name, String value) {
        extras.put(name, value);
        return this;
    }

    public Intent putExtra(String name, int value) {
        extras.put(name, value);
        return this;
    }

    public String getStringExtra(String name) {
        return (String) extras.get(name);
    }

    public int getIntExtra(String name, int fallback) {
        return extras.containsKey(name) ? (Integer) extras.get(name) : fallback;
    }

    public Intent setType(String type) {
        return this;
    }

    public Uri getData() {
        return data;
    }

    public static Intent createChooser(Intent given, CharSequence title) {
        return given;
    }
}
