plugins {
    alias(libs.plugins.kotlin.jvm)
}

dependencies {
    api(project(":core"))
    // The desktop package's classes are those of onnxruntime-android, which the app brings with its native libraries.
    compileOnly(libs.onnxruntime)
}
