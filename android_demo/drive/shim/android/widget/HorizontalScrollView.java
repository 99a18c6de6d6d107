package android.widget;

import android.content.Context;
import android.view.ViewGroup;

public class HorizontalScrollView extends ViewGroup {
    public HorizontalScrollView(Context context) {
        super(context);
    }

    public boolean fullScroll(int way) {
        return true;
    }
}
