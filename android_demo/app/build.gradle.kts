plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "dev.parcae.app"
    compileSdk = libs.versions.targetSdk.get().toInt()
    defaultConfig {
        applicationId = "dev.parcae.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = "1.0.0"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }
    sourceSets["main"].manifest.srcFile("src/main/AndroidManifest.xml")
    // docs/android.md says how a model gets there.
    sourceSets["main"].assets.srcDir("../build/apk/assets")
    androidResources { noCompress += listOf("data", "onnx", "npz") }
}

dependencies {
    implementation(project(":engine-ort"))
    implementation(libs.onnxruntime.android)
}
