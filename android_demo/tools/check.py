"""`make test-android`: models, style, every module on the JVM, then the APK: built, looked into, and its dex driven.

    python android_demo/tools/check.py                     # needs Java 17 and Maven; Debian's aapt and more for the APK

What cannot be run here is said in one line each. As root on Debian, missing packages are installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_apk
import check_apk
import drive_apk

DEMO = Path(__file__).resolve().parent.parent
JVM = ("java", "javac", "mvn")


def install(packages: list[str]) -> None:
    """Debian packages, where this may install any."""
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL)


def main() -> None:
    install(build_apk.missing_packages() + check_apk.missing_packages())
    missing = [tool for tool in JVM if shutil.which(tool) is None]
    if missing:
        print(f"test-android: NOT RUN, {', '.join(missing)} missing: apt-get install openjdk-17-jdk-headless maven")
        return
    subprocess.run([sys.executable, str(DEMO / "tools" / "prepare_models.py")], check=True)
    subprocess.run([*build_apk.MAVEN, "-f", "tools/jvm", "package", "-P", "ktlint"], cwd=DEMO, check=True)
    style = ["java", "-cp", "build/jvm/ktlint/*", "com.pinterest.ktlint.Main", "--relative", "**/src/**/*.kt"]
    subprocess.run(style, cwd=DEMO, check=True, stderr=subprocess.DEVNULL)
    packages = build_apk.missing_packages() + check_apk.missing_packages()
    if packages:
        subprocess.run([*build_apk.MAVEN, "verify", f"-Dparcae.python={sys.executable}"], cwd=DEMO, check=True)
        print(f"test-android: activities and APK NOT RUN: apt-get install {' '.join(packages)}")
    else:
        build_apk.BUILD.mkdir(parents=True, exist_ok=True)
        base = build_apk.link_resources()
        build_apk.compile_app()
        apk = build_apk.pack(base, None)
        check_apk.check(apk)
        drive_apk.main(apk)
    show = [Path(sys.executable).with_name("parcae-export"), "bench", "--show", "--out", DEMO / "build" / "bench"]
    subprocess.run(show, check=True, stdout=subprocess.DEVNULL)
    print("test-android: the app's benchmark is a table that parcae-export bench reads")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except check_apk.CheckError as error:
        print(f"test-android: {error}", file=sys.stderr)
        sys.exit(4)
