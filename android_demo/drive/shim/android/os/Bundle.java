package android.os;

import java.util.HashMap;
import java.util.Map;

public class Bundle {
    private final Map<String, Object> kept = new HashMap<>();

    public void putString(String key, String value) {
        kept.put(key, value);
    }

    public String getString(String key) {
        return (String) kept.get(key);
    }

    public void putInt(String key, int value) {
        kept.put(key, value);
    }

    public int getInt(String key) {
        return (Integer) kept.getOrDefault(key, 0);
    }
}
