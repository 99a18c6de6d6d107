package android.widget;

import android.content.Context;
import android.view.View;

public class TextView extends View {
    protected CharSequence text = "";

    public TextView(Context context) {
        super(context);
    }

    public final void setText(CharSequence given) {
        text = given;
    }

    public CharSequence getText() {
        return text;
    }

    public void setTextIsSelectable(boolean on) {}

    public final void setHint(CharSequence hint) {}

    public void setMaxLines(int count) {}

    public void setMinHeight(int height) {}
}
