"""The pages that the program writes about itself: every option of the command, and every error with its exit code.

python docs/generate.py                                # writes docs/cli.md and docs/errors.md
python docs/generate.py --check                        # exit code 1 if one of them is not what it would write
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

from parcae_mobile import errors

ROOT = Path(__file__).parent.parent
EXIT_CODES = {
    2: "usage: options that do not fit together, or an output that exists. Change the command",
    3: "bad input: a file or a value is wrong. The line names it, and the next step",
    4: "a gate or a budget failed: the artifact lies in `NAME.failed/` and was not published",
    5: "a tool is missing: the line names the package to install",
}
RUN = ("python", "-m", "typer", "export/cli/main.py", "utils", "docs", "--name", "parcae-export")


def command_page() -> str:
    """Markdown of every command and option, by Typer's own generator."""
    line = [sys.executable, *RUN[1:], "--title", "The command, option by option"]
    text = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return "\n".join(row.rstrip() for row in text.splitlines()).strip() + "\n"


def error_page() -> str:
    """Markdown table of the error classes by exit code, with their docstrings."""
    rows = ["# Errors", "", "Every failure is one line that begins with `error:` and an exit code that says its kind."]
    rows += ["`--debug` shows the traceback. Anything else that ends a command is a fault of this program.", ""]
    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.ParcaeError) and item is not errors.ParcaeError
    ]
    for code, meaning in EXIT_CODES.items():
        rows += [f"## Exit code {code}", "", f"{meaning[0].upper()}{meaning[1:]}.", "", "| error | when |", "|---|---|"]
        for item in sorted((c for c in classes if c.exit_code == code), key=lambda c: c.__name__):
            words = " ".join((inspect.getdoc(item) or "").split())
            rows.append(f"| `{item.__name__}` | {words.replace('|', '/')} |")
        rows.append("")
    return "\n".join(rows)


def main() -> int:
    """Write both pages, or with `--check` compare them."""
    pages = {ROOT / "docs" / "cli.md": command_page(), ROOT / "docs" / "errors.md": error_page()}
    if "--check" not in sys.argv[1:]:
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    if stale:
        sys.stderr.write(f"error: {', '.join(stale)} is not what the program says; run make docs\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
