package android.view;

import android.content.Context;
import java.util.ArrayList;
import java.util.List;

public class ViewGroup extends View {
    public final List<View> children = new ArrayList<>();

    public static class LayoutParams {}

    public ViewGroup(Context context) {
        super(context);
    }

    public void addView(View view) {
        children.add(view);
    }

    public void removeAllViews() {
        children.clear();
    }
}
