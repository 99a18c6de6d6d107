package android.app;

public class ActivityManager {
    public static long available = 4_000_000_000L;

    public static class MemoryInfo {
        public long availMem;
        public long threshold;
    }

    public void getMemoryInfo(MemoryInfo info) {
        info.availMem = available;
    }
}
