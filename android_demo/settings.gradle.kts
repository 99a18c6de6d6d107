// For Android Studio. This repository's own checks run Maven; these files have not been run here.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}
dependencyResolutionManagement {
    repositories {
        google()
        mavenCentral()
    }
}
rootProject.name = "parcae-android-demo"
include(":core", ":engine-ort", ":engine-et", ":app")
