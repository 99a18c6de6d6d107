package android.widget;

import android.content.Context;
import android.text.Editable;

public class EditText extends TextView {
    public EditText(Context context) {
        super(context);
    }

    @Override
    public Editable getText() {
        String now = text.toString();
        return new Editable() {
            public int length() {
                return now.length();
            }

            public char charAt(int place) {
                return now.charAt(place);
            }

            public CharSequence subSequence(int start, int end) {
                return now.substring(start, end);
            }

            @Override
            public String toString() {
                return now;
            }
        };
    }
}
