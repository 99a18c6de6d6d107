package android.app;

import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.view.View;
import java.util.ArrayList;
import java.util.List;

/** Records what is shown and started. The driver calls the life cycle. */
public class Activity extends Context {
    public static final int RESULT_OK = -1;
    public View content;
    public Intent intent = new Intent("");
    public boolean finished;
    public static final List<Intent> started = new ArrayList<>();

    protected void onCreate(Bundle state) {}

    protected void onDestroy() {}

    protected void onSaveInstanceState(Bundle state) {}

    protected void onNewIntent(Intent given) {}

    protected void onActivityResult(int request, int result, Intent data) {}

    public void onTrimMemory(int level) {}

    public void onLowMemory() {}

    public void setContentView(View view) {
        content = view;
    }

    public Intent getIntent() {
        return intent;
    }

    public void startActivity(Intent given) {
        started.add(given);
    }

    public void startActivityForResult(Intent given, int request) {
        started.add(given);
    }

    public void finish() {
        finished = true;
    }

    /** Life cycle, for the driver. */
    public void create(Bundle state) {
        onCreate(state);
    }

    public void destroy() {
        onDestroy();
    }

    public void save(Bundle state) {
        onSaveInstanceState(state);
    }

    public void result(int request, Intent data) {
        onActivityResult(request, RESULT_OK, data);
    }
}
