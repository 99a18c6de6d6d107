package android.os;

import java.util.concurrent.LinkedBlockingQueue;

/** One queue, emptied by the driver's thread, which stands for the main thread. */
public class Handler {
    public static final LinkedBlockingQueue<Runnable> queue = new LinkedBlockingQueue<>();

    public Handler(Looper looper) {}

    public final boolean post(Runnable work) {
        return queue.add(work);
    }
}
