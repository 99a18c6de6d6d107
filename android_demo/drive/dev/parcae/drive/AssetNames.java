package dev.parcae.drive;

import android.content.res.AssetManager;
import java.io.IOException;
import java.util.Arrays;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;
import org.robolectric.shadows.ShadowArscAssetManager14;

/** What Android lists of a folder of assets: names in it. Robolectric 4.16.1 lists whole paths below it. */
@Implements(value = AssetManager.class, isInAndroidSdk = false)
public class AssetNames extends ShadowArscAssetManager14 {
    @Implementation
    protected static String[] nativeList(long manager, String folder) throws IOException {
        String[] found = ShadowArscAssetManager14.nativeList(manager, folder);
        return found == null ? null : Arrays.stream(found).map(name -> name.split("/")[0]).distinct().toArray(String[]::new);
    }
}
