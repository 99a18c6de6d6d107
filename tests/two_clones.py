"""Do two people who export one checkpoint get the same digest? Two clones, two users, two locales, two folders.

    sudo localedef -i tr_TR -f UTF-8 tr_TR.UTF-8          # once, where `locale -a` does not list it
    sudo .venv/bin/python -m tests.two_clones --user nobody --locale tr_TR.UTF-8

Each of them clones this repository's last commit and exports the embedded model from there, with another hash seed,
time zone, umask and home; --python gives the second one another interpreter. ONNX goes through the
gates. Then each verifies what the other made. Exit code 1 if a digest differs or an artifact is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXPORTS = (
    ["--target", "onnx", "--max-loops", "2"],
    ["--target", "executorch", "--max-loops", "2", "--no-verify"],
    ["--target", "coreml", "--loops", "2", "--no-verify"],
)


@dataclass(frozen=True)
class Person:
    """Someone with a clone, a home, an interpreter and an environment of their own."""

    name: str
    home: Path
    python: str
    environment: dict[str, str]
    umask: int
    threads: int

    @property
    def clone(self) -> Path:
        return self.home / "parcae-mobile"

    def run(self, *arguments: str) -> dict[str, Any]:
        """The command in their clone; the object that it prints."""
        user = pwd.getpwnam(self.name)
        other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() != user.pw_uid else {}
        done = subprocess.run(
            [self.python, "-m", "export.cli.main", *arguments, "--json", "--threads", str(self.threads)],
            cwd=self.clone,
            env={"PATH": os.defpath, "HOME": str(self.home), "USER": self.name, **self.environment}
            | {"PYTHONPATH": os.pathsep.join([str(self.clone), sysconfig.get_path("purelib")])},
            umask=self.umask,
            capture_output=True,
            text=True,
            check=False,
            **other,  # type: ignore[call-overload]
        )
        if done.returncode:
            sys.exit(f"{self.name}: {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return dict(json.loads(done.stdout))


def main() -> int:
    """Export twice, compare, verify crosswise; prints a row for each target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--user", default="nobody", help="who the second person is; needs root unless it is you")
    parser.add_argument("--locale", default="tr_TR.UTF-8", help="the second person's, which must be installed")
    parser.add_argument("--python", default=sys.executable, help="the second person's interpreter")
    asked = parser.parse_args()
    installed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.lower()
    if asked.locale.lower().replace("-", "") not in installed.replace("-", "").split():
        sys.exit(f"the locale {asked.locale} is not installed: localedef -i NAME -f UTF-8 NAME.UTF-8")
    with tempfile.TemporaryDirectory(prefix="parcae-two-") as work:
        os.chmod(work, 0o755)
        first, second = people(Path(work), asked.user, asked.locale, asked.python)
        print("target      digest of the first   of the second         equal  verified by the other")
        same = True
        for export in EXPORTS:
            made = [dict(who.run(*export, "--out", str(who.home / "dist"))["artifacts"][0]) for who in (first, second)]
            equal = made[0]["digest"] == made[1]["digest"] and made[0]["files"] == made[1]["files"]
            second.run("verify", made[0]["artifact"])
            first.run("verify", made[1]["artifact"])
            digests = "  ".join(f"{said['digest'][:20]}" for said in made)
            print(f"{export[1]:10}  {digests}  {'yes' if equal else 'NO':5}  yes", flush=True)
            same &= equal
    return int(not same)


def people(work: Path, user: str, locale: str, python: str) -> tuple[Person, Person]:
    """Two clones of the last commit, and whose they are."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    plain = {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1", "PYTHONUTF8": "1"}
    others = {"LC_ALL": locale, "LANG": locale, "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}
    others |= {"LOCPATH": os.environ["LOCPATH"]} if "LOCPATH" in os.environ else {}
    both = (
        Person(me, work / "one", sys.executable, plain, 0o022, 1),
        Person(user, work / "zwei, another place", python, others, 0o077, 1),
    )
    for who in both:
        who.home.mkdir()
        subprocess.run(["git", "clone", "--quiet", "--local", str(ROOT), str(who.clone)], check=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", who.name, str(who.home)], check=True)
    return both


if __name__ == "__main__":
    sys.exit(main())
