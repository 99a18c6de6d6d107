import android.app.Activity;
import android.app.ActivityManager;
import android.content.Context;
import android.content.Intent;
import android.content.res.AssetManager;
import android.net.Uri;
import android.os.Bundle;
import android.os.Handler;
import android.os.PowerManager;
import android.view.View;
import android.view.ViewGroup;
import android.widget.Button;
import android.widget.EditText;
import android.widget.SeekBar;
import android.widget.TextView;
import java.io.File;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import java.util.zip.ZipFile;

/**
 * Drives the activities of an APK whose dex was turned back into classes, with the desktop's onnxruntime under them.
 *
 * java -cp shim:apk-classes.jar:. DriveApk APK FILES STRINGS EXPECTED_TOKENS GOOD_MODEL_FOLDER
 *
 * Checks are plain: the first that does not hold ends the run with a sentence and exit code 1.
 */
public final class DriveApk {
    private static int checks;
    private static Activity screen;

    public static void main(String[] given) throws Exception {
        Context.files = new File(given[1]);
        AssetManager.apk = new ZipFile(given[0]);
        for (String line : Files.readAllLines(Path.of(given[2]), StandardCharsets.UTF_8)) {
            String[] parts = line.split("\t", 2);
            Context.strings.put(Integer.decode(parts[0]), parts[1].replace("\\n", "\n"));
        }
        Map<Integer, String> expected = new HashMap<>();
        for (String line : Files.readAllLines(Path.of(given[3]))) {
            expected.put(Integer.valueOf(line.split("\t")[0]), line.split("\t")[1]);
        }
        File model = new File(given[4]);

        screen = open("ChatActivity", null);
        until("the model in the APK loads at the first start", () -> says("ready"));
        slide(8);
        check("the slider says T", says("T = 8 loops"));
        send("import os\n\n\ndef ");
        until("an answer comes", () -> idle() && says("tokens/s"));
        until("the APK's bytes give Python's greedy tokens at T=8", () -> lastAnswer().startsWith(expected.get(8) + ","));
        check("convergence, loops, speed, memory and context are shown", says("Convergence: ") && says("first token ") && says("MB (most "));
        for (int loops : new int[] {1, 4, 8}) {
            slide(loops);
            press("Again at T = " + loops);
            until("the same message again", () -> idle() && says("T = " + loops + ", on average " + loops + ".0 loops"));
            until("gives Python's greedy tokens at T=" + loops, () -> lastAnswer().startsWith(expected.get(loops) + ","));
        }

        PowerManager.heat = 3;
        slide(8);
        press("Again at T = 8");
        until("a hot phone gets fewer loops", () -> idle() && says("T = 2, on average 2.0 loops"));
        PowerManager.heat = 0;

        send("class A:");
        until("an answer begins", () -> !idle());
        screen = turned();
        check("turning the phone leaves the answer going on", !idle());
        press("Stop");
        until("stop ends it", () -> idle());
        check("and says so", says("stopped") || says("length reached"));

        Bundle kept = new Bundle();
        String before = text();
        screen = turned();
        drain();
        check("turning the phone keeps the conversation", text().contains("import os") && before.contains("import os"));

        screen.onTrimMemory(80);
        until("low memory puts the model away", () -> says("put away"));
        slide(2);
        send("x = ");
        until("and the next message loads it again", () -> idle() && says("T = 2, on average"));

        screen.save(kept);
        screen.destroy();
        newProcess();
        screen = open("ChatActivity", kept);
        until("a new process shows the kept conversation", () -> idle() && says("import os"));

        ActivityManager.available = 1000;
        newProcess();
        screen = open("ChatActivity", null);
        until("a model that does not fit is refused in a sentence", () -> says("MB to give"));
        ActivityManager.available = 4_000_000_000L;

        Activity models = open("ModelsActivity", null);
        screen = models;
        until("models are listed", () -> says("parcae-tiny"));
        File damaged = new File(Context.files, "damaged");
        copy(model, damaged);
        try (RandomAccessFile weights = new RandomAccessFile(new File(damaged, "weights.data"), "rw")) {
            weights.seek(5000);
            int old = weights.read();
            weights.seek(5000);
            weights.write(old ^ 1);
        }
        models.result(1, picked(damaged));
        until("a changed byte is refused", () -> says("SHA-256"));
        try (RandomAccessFile weights = new RandomAccessFile(new File(damaged, "weights.data"), "rw")) {
            weights.setLength(1000);
        }
        models.result(1, picked(damaged));
        until("truncated weights are refused", () -> says("1000 bytes, not") || says("is not what was bundled"));
        File zip = new File(Context.files, "zip");
        zip.mkdirs();
        Files.write(new File(zip, "model.zip").toPath(), new byte[] {'P', 'K', 3, 4});
        models.result(1, picked(zip));
        until("a zip is refused", () -> says("a zip has to be unpacked first"));
        copy(model, damaged);
        Path manifest = new File(damaged, "app.json").toPath();
        Files.writeString(manifest, Files.readString(manifest).replaceFirst("\"minimum\": \"[0-9.]+\"", "\"minimum\": \"99.0\""));
        models.result(1, picked(damaged));
        until("a model for a later runtime is refused", () -> says("needs onnxruntime 99.0"));
        models.result(1, picked(model));
        until("a whole model is taken in and used", () -> says("is ready"));

        screen = open("ChatActivity", null);
        drain();
        send("x = 1\n".repeat(600));
        until("a message beyond the context is refused in a sentence", () -> idle() && says("do not fit the model's context"));
        send("import os\n\n\ndef ");
        slide(8);
        until("and the app goes on", () -> idle() && says("on average"));

        press("New conversation");
        drain();
        List<ByteBuffer> taken = new ArrayList<>();
        try {
            while (true) taken.add(ByteBuffer.allocateDirect(1 << 14));
        } catch (OutOfMemoryError expectedHere) {
            send("x = 1\n".repeat(150));
            until("no memory for a long message is said in a sentence", () -> idle() && says("no memory left"));
            taken.clear();
        }
        send("def f(");
        until("and the app goes on", () -> idle() && says("on average"));

        screen = open("ChecksActivity", null);
        press("Self-test");
        until("the self-test passes", () -> says("passed"));
        check("at every T", !says("FAILED"));

        screen = open("HistoryActivity", null);
        until("kept conversations are listed", () -> says("import os"));
        int shared = Activity.started.size();
        press("Share");
        check("and shared", Activity.started.size() == shared + 1 && Activity.started.get(shared).getStringExtra("android.intent.extra.TEXT").contains("def f("));
        System.out.println("the APK's dex, driven headless: " + checks + " checks passed");
        System.exit(0);
    }

    /** Ids of the last answer of the conversation that was kept last, with commas between them. */
    private static String lastAnswer() {
        File[] kept = new File(Context.files, "conversations").listFiles((folder, name) -> name.endsWith(".json"));
        if (kept == null || kept.length == 0) return "";
        File last = Collections.max(Arrays.asList(kept), Comparator.comparingLong(File::lastModified));
        try {
            String text = Files.readString(last.toPath());
            int start = text.lastIndexOf("\"ids\":[") + 7;
            return text.substring(start, text.indexOf(']', start)) + ",";
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    /** The screen as it is made anew when the phone is turned. */
    private static Activity turned() throws Exception {
        Bundle state = new Bundle();
        screen.save(state);
        screen.destroy();
        return open("ChatActivity", state);
    }

    private static Intent picked(File folder) {
        Intent data = new Intent("");
        data.data = new Uri(folder);
        return data;
    }

    private static void copy(File from, File to) throws Exception {
        to.mkdirs();
        for (File file : from.listFiles()) Files.copy(file.toPath(), new File(to, file.getName()).toPath(), java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    }

    /** Forget the process-wide workplace, as the death of the process would. */
    private static void newProcess() throws Exception {
        java.lang.reflect.Field only = Class.forName("dev.parcae.app.Workplace").getDeclaredField("only");
        only.setAccessible(true);
        only.set(null, null);
    }

    private static Activity open(String name, Bundle state) throws Exception {
        Activity activity = (Activity) Class.forName("dev.parcae.app." + name).getDeclaredConstructor().newInstance();
        activity.create(state);
        return activity;
    }

    private static void check(String what, boolean holds) {
        if (!holds) {
            System.err.println("does not hold: " + what + "\n--- on the screen:\n" + text());
            System.exit(1);
        }
        checks++;
    }

    private static void until(String what, BooleanSupplier holds) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!holds.getAsBoolean() && System.nanoTime() < end) {
            Runnable work = Handler.queue.poll(50, TimeUnit.MILLISECONDS);
            if (work != null) work.run();
        }
        check(what, holds.getAsBoolean());
    }

    private static void drain() throws InterruptedException {
        for (Runnable work; (work = Handler.queue.poll(300, TimeUnit.MILLISECONDS)) != null;) work.run();
    }

    private static boolean idle() {
        return all(Button.class).stream().anyMatch(button -> button.getText().toString().equals("Send"));
    }

    private static void slide(int loops) {
        all(SeekBar.class).get(0).setProgress(loops - 1);
    }

    private static void send(String message) {
        all(EditText.class).get(0).setText(message);
        press("Send");
    }

    private static void press(String label) {
        Predicate<Button> named = button -> button.getText().toString().equals(label);
        Button found = all(Button.class).stream().filter(named).findFirst().orElse(null);
        check("there is a button " + label, found != null);
        found.performClick();
    }

    private static boolean says(String part) {
        return text().contains(part);
    }

    private static String text() {
        StringBuilder all = new StringBuilder();
        for (TextView view : all(TextView.class)) all.append(view.getText()).append('\n');
        return all.toString();
    }

    private static <V extends View> List<V> all(Class<V> kind) {
        List<V> found = new ArrayList<>();
        collect(screen.content, kind, found);
        return found;
    }

    private static <V extends View> void collect(View view, Class<V> kind, List<V> found) {
        if (kind.isInstance(view)) found.add(kind.cast(view));
        if (view instanceof ViewGroup) for (View child : ((ViewGroup) view).children) collect(child, kind, found);
    }
}
