package dev.parcae.drive;

import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.app.ActivityManager;
import android.app.Application;
import android.content.Context;
import android.content.Intent;
import android.os.BatteryManager;
import android.os.Bundle;
import android.os.Looper;
import android.view.View;
import android.view.ViewGroup;
import android.widget.Button;
import android.widget.CheckBox;
import android.widget.EditText;
import android.widget.SeekBar;
import android.widget.TextView;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.junit.After;
import org.junit.Before;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;

/**
 * A person at the screen of the APK's activities: presses, types, turns the phone, and reads what is there.
 *
 * Android's own framework classes are under the activities (Robolectric runs them on the JVM), the desktop's onnxruntime computes.
 */
@RunWith(RobolectricTestRunner.class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = 35, qualifiers = "w411dp-h891dp-hdpi", shadows = {AssetNames.class, ProcessMemory.class})
public abstract class Driven {
    static final File MODELS = new File(System.getProperty("parcae.models"));
    static final File OUT = new File(System.getProperty("parcae.out"));
    static final String PROMPT = "import os\n\n\ndef ";
    ActivityController<? extends Activity> controller;

    @Before
    public final void begin() throws Exception {
        newProcess();
        memory(4_000_000_000L);
        BatteryManager battery = (BatteryManager) app().getSystemService(Context.BATTERY_SERVICE);
        shadowOf(battery).setIsCharging(true);
        shadowOf(battery).setIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY, 80);
        app().sendStickyBroadcast(new Intent(Intent.ACTION_BATTERY_CHANGED).putExtra(BatteryManager.EXTRA_TEMPERATURE, 310));
    }

    @After
    public final void end() {
        if (controller != null) controller.destroy();
    }

    static Application app() {
        return RuntimeEnvironment.getApplication();
    }

    /** Bytes that the phone says it has to give. */
    static void memory(long available) {
        ActivityManager.MemoryInfo info = new ActivityManager.MemoryInfo();
        info.availMem = available;
        shadowOf((ActivityManager) app().getSystemService(Context.ACTIVITY_SERVICE)).setMemoryInfo(info);
    }

    /** End the process-wide workplace, as the death of the process would: the next activity makes another. */
    static void newProcess() throws Exception {
        Class<?> kind = Class.forName("dev.parcae.app.Workplace");
        java.lang.reflect.Field only = kind.getDeclaredField("only");
        only.setAccessible(true);
        Object place = only.get(null);
        if (place != null) kind.getMethod("close").invoke(place);
        only.set(null, null);
    }

    /** An activity of the app, by its class's name, on the screen. */
    void open(String name, Bundle state) throws Exception {
        open(name, state, new Intent());
    }

    void open(String name, Bundle state, Intent intent) throws Exception {
        if (controller != null) controller.pause().stop().destroy();
        Class<? extends Activity> kind = Class.forName("dev.parcae.app." + name).asSubclass(Activity.class);
        controller = Robolectric.buildActivity(kind, intent.setClass(app(), kind));
        if (state == null) controller.create().start(); else controller.create(state).start().restoreInstanceState(state);
        controller.resume().visible();
        idle();
    }

    /** The chat, with a model in memory. */
    void openChat() throws Exception {
        open("ChatActivity", null);
        until("a model loads", () -> says("ready") && waiting());
    }

    Activity screen() {
        return controller.get();
    }

    /** The activity goes, as it does before the process is ended; returns what it saved. */
    Bundle leave() {
        Bundle state = new Bundle();
        controller.pause().stop().saveInstanceState(state).destroy();
        controller = null;
        return state;
    }

    static void idle() {
        shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(50));
    }

    void until(String what, BooleanSupplier holds) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (!holds.getAsBoolean() && System.nanoTime() < end) {
            idle();
            Thread.sleep(5);
        }
        assertTrue(what + "; on the screen:\n" + text(), holds.getAsBoolean());
    }

    /** Whether the chat waits for a message. */
    boolean waiting() {
        return all(Button.class).stream().anyMatch(button -> button.getText().toString().equals("Send"));
    }

    void slide(int loops) {
        all(SeekBar.class).get(0).setProgress(loops - 1);
    }

    void send(String message) {
        all(EditText.class).get(0).setText(message);
        press("Send");
    }

    /** Press the first button whose label begins so. */
    void press(String label) {
        Button found = button(label);
        assertNotNull("a button " + label + "; on the screen:\n" + text(), found);
        assertTrue(label + " can be pressed", found.isEnabled() && found.performClick());
    }

    Button button(String label) {
        return all(Button.class).stream().filter(one -> one.getText().toString().startsWith(label)).findFirst().orElse(null);
    }

    void check(String label, boolean on) {
        CheckBox box = (CheckBox) button(label);
        if (box.isChecked() != on) box.performClick();
    }

    boolean says(String part) {
        return text().contains(part);
    }

    String text() {
        StringBuilder all = new StringBuilder();
        if (controller != null) for (TextView view : all(TextView.class)) all.append(view.getText()).append('\n');
        return all.toString();
    }

    <V extends View> List<V> all(Class<V> kind) {
        List<V> found = new ArrayList<>();
        collect(screen().findViewById(android.R.id.content), kind, found);
        return found;
    }

    private static <V extends View> void collect(View view, Class<V> kind, List<V> found) {
        if (kind.isInstance(view)) found.add(kind.cast(view));
        if (!(view instanceof ViewGroup)) return;
        ViewGroup group = (ViewGroup) view;
        for (int place = 0; place < group.getChildCount(); place++) collect(group.getChildAt(place), kind, found);
    }

    /** What the share sheet was given last: a text of this type. */
    static String shared(String type) {
        Intent chooser = shadowOf(app()).getNextStartedActivity();
        assertNotNull("the share sheet opens", chooser);
        Intent given = chooser.getParcelableExtra(Intent.EXTRA_INTENT, Intent.class);
        assertTrue(given.toString(), given.getAction().equals(Intent.ACTION_SEND) && type.equals(given.getType()));
        return given.getStringExtra(Intent.EXTRA_TEXT);
    }

    static File[] conversations() {
        File[] kept = new File(app().getFilesDir(), "conversations").listFiles((folder, name) -> name.endsWith(".json"));
        return kept == null ? new File[0] : kept;
    }

    /** Ids of the last answer of the conversation that was kept last, with commas between and after them. */
    static String lastAnswer() {
        if (conversations().length == 0) return "";
        File last = Collections.max(Arrays.asList(conversations()), Comparator.comparingLong(File::lastModified));
        try {
            String text = Files.readString(last.toPath());
            int start = text.lastIndexOf("\"ids\":[") + 7;
            return text.substring(start, text.indexOf(']', start)) + ",";
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    /** This repository's own 64 greedy tokens for the prompt at T, as text with commas. */
    static String expected(int loops) throws Exception {
        for (String line : Files.readAllLines(Path.of(System.getProperty("parcae.expected")))) {
            if (line.startsWith(loops + "\t")) return line.split("\t")[1] + ",";
        }
        throw new IllegalArgumentException("no tokens at T=" + loops);
    }
}
