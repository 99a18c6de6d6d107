package dev.parcae.drive;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.junit.Before;
import org.junit.Test;
import org.robolectric.shadows.ShadowActivity;

/** The models: import by the file picker, what must not come in, several beside each other, the last one remembered. */
public class ModelsTest extends Driven {
    private File copy;

    @Before
    public void copyOfTheModel() throws Exception {
        Folders.register();
        copy = new File(app().getCacheDir(), "picked");
        copyFolder(new File(MODELS, "parcae-tiny"), copy);
        open("ModelsActivity", null);
        until("the APK's model is listed", () -> says("parcae-tiny\n"));
    }

    @Test
    public void aModelIsListedWithItsMemoryBeforeItIsLoaded() {
        assertTrue(text(), text().matches("(?s)parcae-tiny\n.*, [1-9]\\d* MB on disk, [1-9]\\d* MB of memory at T = \\d+, context 1024\n.*"));
    }

    @Test
    public void truncatedWeightsAreRefused() throws Exception {
        weights(file -> file.setLength(file.length() / 2));
        refused("weights.data has", "bytes, not");
    }

    @Test
    public void aChangedByteIsRefused() throws Exception {
        weights(file -> {
            file.seek(5000);
            int old = file.read();
            file.seek(5000);
            file.write(old ^ 1);
        });
        refused("weights.data is not what was bundled", "its SHA-256 differs");
    }

    @Test
    public void aModelForALaterRuntimeIsRefused() throws Exception {
        Path manifest = new File(copy, "app.json").toPath();
        Files.writeString(manifest, Files.readString(manifest).replaceFirst("\"minimum\": \"[0-9.]+\"", "\"minimum\": \"99.0\""));
        refused("needs onnxruntime 99.0", "Update the app");
    }

    @Test
    public void aZipIsRefused() throws Exception {
        for (File file : copy.listFiles()) Files.delete(file.toPath());
        Files.write(new File(copy, "model.zip").toPath(), new byte[] {'P', 'K', 3, 4});
        refused("There is no app.json in this folder", "a zip has to be unpacked first");
    }

    @Test
    public void aSecondModelComesInIsUsedAndIsTheOneThatIsRemembered() throws Exception {
        pick(new File(MODELS, "parcae-tiny-fp32-shared"));
        until("it comes in", () -> says("parcae-tiny-fp32-shared is ready"));
        until("both are listed", () -> says("parcae-tiny\n") && says("parcae-tiny-fp32-shared\n"));
        newProcess();
        openChat();
        assertTrue(text(), says("parcae-tiny-fp32-shared ready"));
        slide(4);
        send(PROMPT);
        until("it answers", () -> waiting() && says("on average"));

        open("ModelsActivity", null);
        until("listed", () -> says("parcae-tiny\n"));
        press("Use");
        until("the other one", () -> says("parcae-tiny is ready"));
        Intent kept = new Intent().putExtra("conversation", conversations()[0].getName().replace(".json", ""));
        newProcess();
        open("ChatActivity", null, kept);
        until("a kept conversation goes on with its own model", () -> waiting() && says("You: import os"));
        press("Again at T = ");
        until("again", () -> waiting() && says("on average"));

        open("ModelsActivity", null);
        until("listed", () -> says("parcae-tiny-fp32-shared\n"));
        button("Delete").performClick();
        until("deleted", () -> !says("parcae-tiny\n"));
        assertEquals(1, new File(app().getFilesDir(), "models").list().length);
    }

    /** The folder is picked, the app says these, and neither it nor the store changed. */
    private void refused(String... sentences) throws Exception {
        pick(copy);
        for (String sentence : sentences) until(sentence, () -> says(sentence));
        assertEquals("parcae-tiny", String.join(",", new File(app().getFilesDir(), "models").list()));
        openChat();
        slide(8);
        send(PROMPT);
        until("the app goes on", () -> waiting() && says("on average"));
        assertTrue("with the tokens that it had", lastAnswer().startsWith(expected(8)));
    }

    private void pick(File folder) {
        press("Import a model folder");
        ShadowActivity.IntentForResult asked = shadowOf(screen()).getNextStartedActivityForResult();
        assertEquals(Intent.ACTION_OPEN_DOCUMENT_TREE, asked.intent.getAction());
        shadowOf(screen()).receiveResult(asked.intent, Activity.RESULT_OK, Folders.picked(folder));
    }

    private interface Damage {
        void to(RandomAccessFile file) throws IOException;
    }

    private void weights(Damage damage) throws IOException {
        try (RandomAccessFile file = new RandomAccessFile(new File(copy, "weights.data"), "rw")) {
            damage.to(file);
        }
    }

    private static void copyFolder(File from, File to) throws IOException {
        to.mkdirs();
        for (File file : from.listFiles()) Files.copy(file.toPath(), new File(to, file.getName()).toPath(), StandardCopyOption.REPLACE_EXISTING);
    }
}
