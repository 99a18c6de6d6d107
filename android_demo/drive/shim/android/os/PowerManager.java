package android.os;

public class PowerManager {
    public static int heat;

    public int getCurrentThermalStatus() {
        return heat;
    }
}
