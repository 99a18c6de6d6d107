"""`make test-android`: models, style, then every module on the JVM. What cannot be run here is said in one line each.

    python android_demo/tools/check.py                     # needs Java 17 and Maven
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent
MAVEN = ["mvn", "-B", "-ntp", "-q"]


def main() -> None:
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if missing:
        print(f"test-android: NOT RUN, {', '.join(missing)} missing: apt-get install openjdk-17-jdk-headless maven")
        return
    subprocess.run([sys.executable, str(DEMO / "tools" / "prepare_models.py")], check=True)
    subprocess.run([*MAVEN, "-f", "tools/jvm", "package", "-P", "ktlint"], cwd=DEMO, check=True)
    style = ["java", "-cp", "build/jvm/ktlint/*", "com.pinterest.ktlint.Main", "--relative", "**/src/**/*.kt"]
    subprocess.run(style, cwd=DEMO, check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*MAVEN, "verify"], cwd=DEMO, check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
