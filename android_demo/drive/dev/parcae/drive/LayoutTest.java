package dev.parcae.drive;

import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertTrue;

import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.graphics.Color;
import android.view.View;
import android.view.ViewGroup;
import android.widget.Button;
import android.widget.EditText;
import android.widget.HorizontalScrollView;
import android.widget.ScrollView;
import android.widget.SeekBar;
import android.widget.TextView;
import java.io.File;
import java.io.FileOutputStream;
import org.junit.Test;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;

/** What a person sees and touches, laid out and drawn by Android's own code; the drawings go to `build/pictures`. */
public class LayoutTest extends Driven {
    private static final String[] OTHERS = {"ModelsActivity", "HistoryActivity", "ChecksActivity"};
    private static final float TOUCH = 47.5f; // dp; 48 less rounding

    private void answered() throws Exception {
        openChat();
        slide(8);
        send(PROMPT);
        until("an answer", () -> waiting() && says("on average"));
        assertFalse("the end of the answer is in sight", all(ScrollView.class).get(0).canScrollVertically(1));
    }

    @Test
    public void everyScreenFitsAndCanBeTouchedAndHeard() throws Exception {
        answered();
        all(EditText.class).get(0).setText("class A:");
        press("Compare");
        until("compared", () -> waiting() && says("T = 8 loops: first token"));
        all(EditText.class).get(0).setText("");
        fits();
        picture("chat");
        for (String name : OTHERS) {
            open(name, null);
            until("listed", () -> name.startsWith("Checks") || says("import os") || says("parcae-tiny"));
            if (name.startsWith("Checks")) {
                press("Self-test");
                until("tested", () -> says("passed"));
            }
            fits();
            picture(name.replace("Activity", "").toLowerCase());
        }
    }

    @Test
    @Config(fontScale = 2f)
    public void everyScreenFitsWithTextTwiceAsLarge() throws Exception {
        answered();
        fits();
        picture("chat-large-text");
        for (String name : OTHERS) {
            open(name, null);
            idle();
            fits();
        }
    }

    @Test
    @Config(qualifiers = "w891dp-h411dp-land-hdpi")
    public void everyScreenFitsInLandscape() throws Exception {
        answered();
        fits();
        picture("chat-landscape");
        for (String name : OTHERS) {
            open(name, null);
            idle();
            fits();
        }
    }

    @Test
    public void theNightHasADarkTheme() throws Exception {
        answered();
        int day = drawn().getPixel(3, 3);
        RuntimeEnvironment.setQualifiers("+night");
        controller.configurationChange();
        controller.visible();
        idle();
        assertTrue("the answer is still there", says("on average"));
        int night = drawn().getPixel(3, 3);
        assertNotEquals(day, night);
        assertTrue("light by day, dark by night", Color.luminance(day) > 0.8 && Color.luminance(night) < 0.1);
        fits();
        picture("chat-dark");
    }

    /** All controls lie within the screen and can be touched and read aloud; no text is cut. */
    private void fits() {
        idle();
        ViewGroup content = screen().findViewById(android.R.id.content);
        fits(content, false);
        int ground = drawn().getPixel(3, 3);
        for (TextView view : all(TextView.class)) {
            if (view.getText().length() == 0 || view.getLayout() == null) continue;
            if (!(view instanceof Button)) assertTrue("hard to read: " + view.getText(), contrast(view.getCurrentTextColor(), ground) >= 4.5);
            int room = view.getHeight() - view.getTotalPaddingTop() - view.getTotalPaddingBottom();
            boolean scrolls = view instanceof EditText;
            assertTrue("cut: " + view.getText() + " " + view.getLayout().getHeight() + " of " + room, scrolls || view.getLayout().getHeight() <= room);
            for (int line = 0; line < view.getLineCount(); line++) assertTrue("shortened: " + view.getText(), view.getLayout().getEllipsisCount(line) == 0);
        }
    }

    /** How much a text stands out, as the Web Content Accessibility Guidelines have it: 4.5 is their least. */
    private static double contrast(int text, int ground) {
        float share = Color.alpha(text) / 255f;
        int seen = Color.rgb(
            Math.round(share * Color.red(text) + (1 - share) * Color.red(ground)),
            Math.round(share * Color.green(text) + (1 - share) * Color.green(ground)),
            Math.round(share * Color.blue(text) + (1 - share) * Color.blue(ground)));
        double one = Color.luminance(seen) + 0.05, other = Color.luminance(ground) + 0.05;
        return Math.max(one, other) / Math.min(one, other);
    }

    private void fits(View view, boolean scrolled) {
        float density = screen().getResources().getDisplayMetrics().density;
        String name = view.getClass().getSimpleName() + " " + (view instanceof TextView ? ((TextView) view).getText() : "");
        if (view.getParent() instanceof ViewGroup && !scrolled) {
            ViewGroup parent = (ViewGroup) view.getParent();
            boolean inside = view.getLeft() >= 0 && view.getTop() >= 0 && view.getRight() <= parent.getWidth() && view.getBottom() <= parent.getHeight();
            assertTrue("outside of its place: " + name, inside);
        }
        if ((view.isClickable() || view instanceof SeekBar) && view.isShown() && !(view instanceof ViewGroup)) {
            boolean selectable = view instanceof TextView && ((TextView) view).isTextSelectable() && !(view instanceof EditText);
            boolean large = view.getHeight() >= TOUCH * density && view.getWidth() >= TOUCH * density;
            assertTrue("too small to touch: " + name + view.getWidth() / density + " x " + view.getHeight() / density, large || selectable);
        }
        if (view.isClickable() || view instanceof SeekBar) {
            boolean heard = view.getContentDescription() != null || (view instanceof TextView && ((TextView) view).length() > 0)
                || (view instanceof EditText && ((EditText) view).getHint() != null);
            assertTrue("nothing to read aloud: " + name, heard || view instanceof ViewGroup);
        }
        if (!(view instanceof ViewGroup)) return;
        ViewGroup group = (ViewGroup) view;
        boolean scrolls = view instanceof ScrollView || view instanceof HorizontalScrollView;
        if (view instanceof ScrollView) assertTrue("no room for what is read: " + view.getHeight() / density, view.getHeight() >= TOUCH * density);
        for (int place = 0; place < group.getChildCount(); place++) fits(group.getChildAt(place), scrolls);
    }

    private Bitmap drawn() {
        View view = screen().getWindow().getDecorView();
        Bitmap drawn = Bitmap.createBitmap(view.getWidth(), view.getHeight(), Bitmap.Config.ARGB_8888);
        view.draw(new Canvas(drawn));
        return drawn;
    }

    private void picture(String name) throws Exception {
        File folder = new File(OUT, "pictures");
        folder.mkdirs();
        try (FileOutputStream out = new FileOutputStream(new File(folder, name + ".png"))) {
            drawn().compress(Bitmap.CompressFormat.PNG, 100, out);
        }
    }
}
