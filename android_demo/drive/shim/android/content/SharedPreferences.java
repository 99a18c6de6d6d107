package android.content;

import java.util.HashMap;
import java.util.Map;

public interface SharedPreferences {
    String getString(String key, String fallback);

    int getInt(String key, int fallback);

    boolean getBoolean(String key, boolean fallback);

    Editor edit();

    interface Editor {
        Editor putString(String key, String value);

        Editor putInt(String key, int value);

        Editor putBoolean(String key, boolean value);

        void apply();
    }

    class Memory implements SharedPreferences, Editor {
        private final Map<String, Object> kept = new HashMap<>();

        public String getString(String key, String fallback) {
            return (String) kept.getOrDefault(key, fallback);
        }

        public int getInt(String key, int fallback) {
            return (Integer) kept.getOrDefault(key, fallback);
        }

        public boolean getBoolean(String key, boolean fallback) {
            return (Boolean) kept.getOrDefault(key, fallback);
        }

        public Editor edit() {
            return this;
        }

        public Editor putString(String key, String value) {
            kept.put(key, value);
            return this;
        }

        public Editor putInt(String key, int value) {
            kept.put(key, value);
            return this;
        }

        public Editor putBoolean(String key, boolean value) {
            kept.put(key, value);
            return this;
        }

        public void apply() {}
    }
}
