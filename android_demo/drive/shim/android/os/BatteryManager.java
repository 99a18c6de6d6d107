package android.os;

public class BatteryManager {
    public boolean isCharging() {
        return true;
    }

    public int getIntProperty(int id) {
        return 80;
    }
}
