package android.view;

import android.content.Context;

public class View {
    public interface OnClickListener {
        void onClick(View view);
    }

    public CharSequence description;
    private OnClickListener listener;

    public View(Context context) {}

    public void setFitsSystemWindows(boolean on) {}

    public void setLayoutParams(ViewGroup.LayoutParams given) {}

    public void setPadding(int left, int top, int right, int bottom) {}

    public void setContentDescription(CharSequence text) {
        description = text;
    }

    public void setAccessibilityLiveRegion(int mode) {}

    public void setOnClickListener(OnClickListener given) {
        listener = given;
    }

    public boolean post(Runnable work) {
        work.run();
        return true;
    }

    public void setMinimumHeight(int height) {}

    public boolean performClick() {
        listener.onClick(this);
        return true;
    }
}
