"""The Gradle files, which are for Android Studio and not run here, pin what the Maven build is made with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "android_demo"


def test_gradle_and_maven_pin_the_same_versions() -> None:
    pom = (DEMO / "pom.xml").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"<([a-z-]+)\.version>([^<]+)</", pom))
    catalog = tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text(encoding="utf-8"))
    for name in ("kotlin", "serialization", "onnxruntime"):
        assert catalog["versions"][name] == pinned[name], name


def test_the_app_is_built_for_and_driven_on_the_same_android() -> None:
    catalog = tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text(encoding="utf-8"))["versions"]
    build = (DEMO / "tools" / "build_apk.py").read_text(encoding="utf-8")
    assert f'LEAST, TARGET = "{catalog["minSdk"]}", "{catalog["targetSdk"]}"' in build
    driven = (DEMO / "drive" / "dev" / "parcae" / "drive" / "Driven.java").read_text(encoding="utf-8")
    assert f"@Config(sdk = {catalog['targetSdk']}," in driven


def test_gradle_repeats_no_settings_of_the_modules_without_android() -> None:
    scripts = [path.read_text(encoding="utf-8") for path in DEMO.glob("*/build.gradle.kts")]
    assert not any("JVM_1_8" in text or "VERSION_1_8" in text for text in scripts)
    assert "JVM_1_8" in (DEMO / "build.gradle.kts").read_text(encoding="utf-8")


def test_gradle_has_the_modules_of_maven() -> None:
    settings = (DEMO / "settings.gradle.kts").read_text(encoding="utf-8")
    pom = (DEMO / "pom.xml").read_text(encoding="utf-8")
    modules = re.findall(r"<module>([^<]+)</module>", pom)
    assert sorted(re.findall(r'":([a-z-]+)"', settings)) == sorted(modules)
    assert all((DEMO / module / "build.gradle.kts").is_file() for module in modules)


def test_the_app_asks_for_no_permission() -> None:
    manifest = (DEMO / "app" / "src" / "main" / "AndroidManifest.xml").read_text(encoding="utf-8")
    assert "uses-permission" not in manifest
