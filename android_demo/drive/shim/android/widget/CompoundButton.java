package android.widget;

import android.content.Context;

public class CompoundButton extends Button {
    public interface OnCheckedChangeListener {
        void onCheckedChanged(CompoundButton button, boolean on);
    }

    public OnCheckedChangeListener changed;

    public CompoundButton(Context context) {
        super(context);
    }

    public void setChecked(boolean on) {
        if (changed != null) changed.onCheckedChanged(this, on);
    }

    public void setOnCheckedChangeListener(OnCheckedChangeListener given) {
        changed = given;
    }
}
