package dev.parcae.drive;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.nio.file.Files;
import org.json.JSONObject;
import org.junit.Test;
import org.robolectric.RuntimeEnvironment;

/** Self-test and benchmark, and the JSON of both that a person sends back. */
public class ChecksTest extends Driven {
    @Test
    public void theSelfTestPassesAtEveryTAndIsSharedAsJson() throws Exception {
        open("ChecksActivity", null);
        assertFalse("nothing to share yet", button("Share results").isEnabled());
        press("Self-test");
        assertFalse("one at a time", button("Benchmark").isEnabled());
        until("the self-test passes", () -> says("passed") && button("Share results").isEnabled());
        assertFalse(text(), says("FAILED"));
        press("Share results as JSON");
        JSONObject told = new JSONObject(shared("application/json"));
        assertEquals("parcae-tiny", told.getString("model"));
        assertTrue(told.isNull("table") && told.isNull("conditions"));
        assertTrue(told.getJSONObject("device").getInt("android") == 35 && told.getString("runtime").startsWith("onnxruntime "));
        assertTrue(told.getJSONArray("self_test").length() > 1);
        for (int row = 0; row < told.getJSONArray("self_test").length(); row++) {
            JSONObject one = told.getJSONArray("self_test").getJSONObject(row);
            assertTrue(one.toString(), one.getBoolean("passed") && one.getInt("tokens") > 0 && one.getInt("tokens_equal") == one.getInt("tokens"));
        }
    }

    @Test
    public void theBenchmarkIsSharedAsJsonThatBenchReads() throws Exception {
        open("ChecksActivity", null);
        press("Benchmark");
        until("a first row begins", () -> says("T = 4 loops, 128"));
        RuntimeEnvironment.setQualifiers("+land");
        controller.configurationChange();
        assertFalse("turning the phone leaves it going on", button("Benchmark").isEnabled());
        until("it ends", () -> button("Share results").isEnabled());
        for (int loops : new int[] {1, 4, 8}) {
            for (int context : new int[] {128, 512}) assertTrue(text(), says("T = " + loops + ", context " + context + ": first token "));
        }
        press("Share results as JSON");
        JSONObject told = new JSONObject(shared("application/json"));
        JSONObject conditions = told.getJSONObject("conditions");
        assertEquals(31.0, conditions.getDouble("temperature_before"), 0.0);
        assertEquals(31.0, conditions.getDouble("temperature_after"), 0.0);
        assertEquals("none", conditions.getString("thermal_status"));
        assertTrue(conditions.toString(), conditions.getLong("peak_pss_bytes") > 50_000_000);
        for (String time : new String[] {"load_seconds_cold", "first_token_seconds_cold", "load_seconds_warm"}) {
            assertTrue(conditions.toString(), conditions.getDouble(time) > 0);
        }
        assertEquals(6, told.getJSONObject("table").getJSONArray("rows").length());
        File table = new File(OUT, "bench/bench.json");
        table.getParentFile().mkdirs();
        Files.writeString(table.toPath(), told.getJSONObject("table").toString());
    }

    @Test
    public void aBenchmarkStopsWhenAskedAndTheChatGoesOn() throws Exception {
        open("ChecksActivity", null);
        press("Benchmark");
        until("it is under way", () -> says(", 128"));
        press("Stop");
        until("it stops", () -> says("Stopped.") && button("Benchmark").isEnabled());
        assertFalse("nothing to share", button("Share results").isEnabled());
        openChat();
        slide(8);
        send(PROMPT);
        until("an answer", () -> waiting() && says("on average"));
        assertTrue(lastAnswer().startsWith(expected(8)));
    }
}
