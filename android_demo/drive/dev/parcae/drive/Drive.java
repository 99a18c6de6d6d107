package dev.parcae.drive;

import org.junit.runner.Description;
import org.junit.runner.JUnitCore;
import org.junit.runner.Result;
import org.junit.runner.notification.Failure;
import org.junit.runner.notification.RunListener;

/**
 * Runs the named test classes and says of each test at once what became of it.
 *
 * java -cp CLASSES dev.parcae.drive.Drive CLASS...
 */
public final class Drive {
    public static void main(String[] names) throws ClassNotFoundException {
        Class<?>[] tests = new Class<?>[names.length];
        for (int place = 0; place < names.length; place++) tests[place] = Class.forName("dev.parcae.drive." + names[place]);
        JUnitCore core = new JUnitCore();
        core.addListener(new RunListener() {
            @Override
            public void testStarted(Description test) {
                System.out.println(test.getTestClass().getSimpleName() + "." + test.getMethodName());
            }

            @Override
            public void testFailure(Failure failure) {
                System.out.println("FAILED: " + failure.getTrace());
            }
        });
        Result result = core.run(tests);
        System.out.println("the APK's dex, driven: " + (result.getRunCount() - result.getFailureCount()) + " passed, " + result.getFailureCount() + " failed");
        System.exit(result.wasSuccessful() && result.getRunCount() > 0 ? 0 : 1);
    }
}
