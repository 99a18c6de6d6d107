package dev.parcae.drive;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.content.Context;
import android.content.Intent;
import android.os.BatteryManager;
import android.os.Bundle;
import android.os.PowerManager;
import android.widget.EditText;
import android.widget.ScrollView;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.junit.Test;
import org.robolectric.RuntimeEnvironment;

/** The chat: answers, loops, saver, stop, the phone's turns and deaths, and what cannot be answered. */
public class ChatTest extends Driven {
    @Test
    public void theBytesInTheApkGiveThisRepositorysGreedyTokens() throws Exception {
        open("ChatActivity", null);
        assertFalse("the model loads on a worker, the screen is there at once", waiting());
        until("a model loads", () -> says("ready") && waiting());
        slide(8);
        assertTrue(says("T = 8 loops"));
        send(PROMPT);
        until("a strip that is written while the answer grows", () -> !waiting() && says("loops/s") && says("MB (most "));
        until("an answer comes", () -> waiting() && says("tokens/s"));
        until("T=8", () -> lastAnswer().startsWith(expectedAt(8)));
        for (int loops : new int[] {1, 4, 8}) {
            slide(loops);
            press("Again at T = " + loops);
            until("the same message again", () -> waiting() && says("T = " + loops + ", on average " + loops + ".0 loops"));
            until("T=" + loops, () -> lastAnswer().startsWith(expectedAt(loops)));
        }
        assertTrue("convergence of each token", text().matches("(?s).*Convergence: [\u2581-\u2588]{40}.*"));
        assertTrue("context, heat and memory", text().matches("(?s).*memory [1-9]\\d+ MB \\(most [1-9]\\d+ MB\\), context 2\\d\\d of 1024, heat none.*"));
        ScrollView scroll = all(ScrollView.class).get(0);
        assertFalse("the screen follows the answer", scroll.canScrollVertically(1));
        scroll.scrollBy(0, -200);
        send("x = ");
        until("a message is answered at the end", () -> waiting() && says("You: x = ") && !scroll.canScrollVertically(1));
    }

    private static String expectedAt(int loops) {
        try {
            return expected(loops);
        } catch (Exception error) {
            throw new AssertionError(error);
        }
    }

    @Test
    public void threeLoopCountsSideBySideLeaveTheConversationAsItWas() throws Exception {
        openChat();
        slide(4);
        send("x = ");
        until("an answer", () -> waiting() && says("on average"));
        String before = lastAnswer();
        all(EditText.class).get(0).setText("class A:");
        press("Compare T = 1, 4, 8");
        until("three answers", () -> waiting() && says("T = 1 loops: first token") && says("T = 4 loops: first token") && says("T = 8 loops: first token"));
        press("Again at T = 4");
        until("again", () -> waiting() && says("on average"));
        assertEquals(before, lastAnswer());
    }

    @Test
    public void aHotPhoneOrAnEmptyBatteryGetsFewerLoopsAndIsTold() throws Exception {
        openChat();
        slide(8);
        PowerManager power = (PowerManager) app().getSystemService(Context.POWER_SERVICE);
        shadowOf(power).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_SEVERE);
        send("x = ");
        until("two loops", () -> waiting() && says("T = 2, on average 2.0 loops"));
        assertTrue(text(), says("2 loops in place of 8: the phone is warm") && says("heat severe"));
        shadowOf(power).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_NONE);
        BatteryManager battery = (BatteryManager) app().getSystemService(Context.BATTERY_SERVICE);
        shadowOf(battery).setIsCharging(false);
        shadowOf(battery).setIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY, 15);
        press("Again at T = 8");
        until("four loops", () -> waiting() && says("T = 4, on average 4.0 loops"));
        assertTrue(text(), says("4 loops in place of 8: the battery is at 15 %"));
        check("Save battery", false);
        press("Again at T = 8");
        until("the saver can be turned off", () -> waiting() && says("T = 8, on average 8.0 loops"));
    }

    @Test
    public void leavingTheLoopEarlyAndVaryingAnswersCanBeChosen() throws Exception {
        openChat();
        slide(8);
        send(PROMPT);
        until("greedy", () -> waiting() && says("on average 8.0 loops"));
        String greedy = lastAnswer();
        check("Leave the loop early", true);
        press("Again at T = 8");
        until("fewer loops than asked", () -> waiting() && text().matches("(?s).*T = 8, on average [1-7]\\.\\d loops.*"));
        check("Leave the loop early", false);
        check("Vary answers", true);
        press("Again at T = 8");
        until("another answer", () -> waiting() && says("on average 8.0 loops") && !lastAnswer().equals(greedy));
    }

    @Test
    public void anAnswerOutlivesTurningThePhoneAndStopsWhenAsked() throws Exception {
        openChat();
        slide(16);
        send("class A:");
        until("an answer begins", () -> !waiting() && says("You: class A:") && says("Convergence"));
        RuntimeEnvironment.setQualifiers("+land");
        controller.configurationChange();
        assertFalse("it goes on", waiting());
        press("Stop");
        until("it stops", this::waiting);
        until("and says so", () -> says("stopped"));
        assertTrue("the conversation is still there", says("You: class A:"));
    }

    @Test
    public void lowMemoryAndTheDeathOfTheProcessLoseNothing() throws Exception {
        openChat();
        slide(2);
        send("import os");
        until("an answer", () -> waiting() && says("on average"));
        screen().onTrimMemory(android.content.ComponentCallbacks2.TRIM_MEMORY_BACKGROUND);
        until("the model is put away", () -> says("put away"));
        press("Again at T = 2");
        until("the next message loads it again", () -> waiting() && says("on average"));
        all(EditText.class).get(0).setText("a draft");
        Bundle state = leave();
        newProcess();
        open("ChatActivity", state);
        until("a new process shows the conversation", () -> waiting() && says("You: import os"));
        assertEquals("a draft", all(EditText.class).get(0).getText().toString());
        assertTrue(says("T = 2 loops"));
    }

    @Test
    public void whatCannotBeAnsweredIsASentenceAndTheAppGoesOn() throws Exception {
        openChat();
        slide(8);
        String endless = "x = 1\n".repeat(600);
        send(endless);
        until("a message beyond the context", () -> waiting() && says("do not fit the model's context"));
        assertEquals("it is given back to be shortened", endless, all(EditText.class).get(0).getText().toString());
        send(PROMPT);
        until("the app goes on", () -> waiting() && says("on average"));
        assertTrue(lastAnswer().startsWith(expectedAt(8)));
        press("New conversation");
        idle();
        List<ByteBuffer> taken = new ArrayList<>();
        try {
            while (true) taken.add(ByteBuffer.allocateDirect(1 << 14));
        } catch (OutOfMemoryError expectedHere) {
            send("x = 1\n".repeat(150));
            until("no memory left", () -> waiting() && says("no memory left"));
        }
        taken.clear();
        send("def f(");
        until("the app goes on", () -> waiting() && says("on average"));
    }

    @Test
    public void aModelThatDoesNotFitIsRefusedBeforeItIsLoaded() throws Exception {
        memory(1000);
        open("ChatActivity", null);
        String refusal = "(?s).*This model needs \\d+ MB .* the phone has 1 MB to give; close other apps.*";
        until("a sentence with the estimate", () -> waiting() && text().matches(refusal));
        memory(4_000_000_000L);
        send("x = ");
        until("the app goes on", () -> waiting() && says("on average"));
    }

    @Test
    public void conversationsAreKeptFoundSharedOpenedAndDeleted() throws Exception {
        openChat();
        slide(1);
        send("import os");
        until("one conversation", () -> waiting() && conversations().length == 1);
        press("New conversation");
        send("class Stack:");
        until("two conversations", () -> waiting() && conversations().length == 2);
        String kept = new String(java.nio.file.Files.readAllBytes(conversations()[0].toPath()));
        assertTrue("ids and texts", kept.contains("\"ids\":[") && conversations()[0].length() < 20_000);

        open("HistoryActivity", null);
        until("both are listed", () -> says("import os") && says("class Stack:"));
        all(EditText.class).get(0).setText("STACK");
        press("Search");
        until("one is found", () -> !says("import os") && says("class Stack:"));
        press("Share");
        String told = shared("text/plain");
        assertTrue(told, told.startsWith("> class Stack:") && told.contains("(T=1, parcae-tiny)"));
        press("Delete");
        until("it is deleted", () -> !says("class Stack:") && conversations().length == 1);
        all(EditText.class).get(0).setText("");
        press("Search");
        until("the other is there", () -> says("import os"));
        press("Open");
        Intent next = shadowOf(app()).getNextStartedActivity();
        assertTrue(screen().isFinishing());
        open("ChatActivity", null, next);
        until("it is on the screen again", () -> waiting() && says("You: import os") && !says("class Stack:"));
        send("\n");
        until("and goes on", () -> waiting() && says("You: \n") && conversations().length == 1);
    }
}
