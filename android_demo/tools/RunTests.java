import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import org.junit.jupiter.api.Test;

/**
 * Runs the tests of a class that need nothing given, without a test runner: for `arm.py`, whose machine is slow.
 *
 * java -cp CLASSES tools/RunTests.java CLASS
 */
public final class RunTests {
    public static void main(String[] given) throws Exception {
        Class<?> suite = Class.forName(given[0]);
        Object object = suite.getDeclaredConstructor().newInstance();
        int passed = 0, failed = 0, left = 0;
        for (Method method : suite.getDeclaredMethods()) {
            if (!method.isAnnotationPresent(Test.class)) continue;
            if (method.getParameterCount() > 0) {
                System.out.println("not run here: " + method.getName());
                left++;
                continue;
            }
            try {
                method.invoke(object);
                passed++;
            } catch (InvocationTargetException error) {
                System.out.println("failed: " + method.getName() + ": " + error.getCause());
                failed++;
            }
        }
        System.out.println(given[0] + " on " + System.getProperty("os.arch") + ": " + passed + " passed, " + failed + " failed, " + left + " not run");
        System.exit(failed > 0 || passed == 0 ? 1 : 0);
    }
}
