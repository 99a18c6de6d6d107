package dev.parcae.drive;

import android.os.Debug;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;

/** The proportional set size as Android's own code reads it, from the kernel. */
@Implements(Debug.class)
public class ProcessMemory {
    /** KiB of this process. */
    @Implementation
    public static long getPss() {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/self/smaps_rollup"))) {
                if (line.startsWith("Pss:")) return Long.parseLong(line.replaceAll("[^0-9]", ""));
            }
            throw new IllegalStateException("the kernel tells no Pss");
        } catch (IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }
}
