package android.os;

public class Build {
    public static final String MANUFACTURER = "shim";
    public static final String MODEL = "headless";
    public static final String HARDWARE = "none";

    public static class VERSION {
        public static final int SDK_INT = Integer.parseInt("35");
    }

    public static class VERSION_CODES {}
}
