package android.widget;

import android.content.Context;
import android.view.View;

public class SeekBar extends View {
    public interface OnSeekBarChangeListener {
        void onProgressChanged(SeekBar bar, int progress, boolean fromUser);

        void onStartTrackingTouch(SeekBar bar);

        void onStopTrackingTouch(SeekBar bar);
    }

    private int progress;
    private OnSeekBarChangeListener listener;

    public SeekBar(Context context) {
        super(context);
    }

    public void setMax(int most) {}

    public int getProgress() {
        return progress;
    }

    public void setProgress(int now) {
        progress = now;
        if (listener != null) listener.onProgressChanged(this, now, false);
    }

    public void setOnSeekBarChangeListener(OnSeekBarChangeListener given) {
        listener = given;
    }
}
