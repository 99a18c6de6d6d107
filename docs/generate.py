"""The pages that the program writes about itself: options of the command, errors with what to do, words, mutants.

python docs/generate.py                                # writes docs/cli.md, errors.md, words.md and mutants.md
python docs/generate.py --check                        # exit code 1 if one of them is not what it would write
python docs/generate.py --messages                     # writes docs/messages.md, which is part of the site only
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from export.report.page.summary import WORDS
from parcae_mobile import errors

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where tests/ is a package
PACKAGES = ("parcae_mobile", "quantize", "export")
EXIT_CODES = {
    2: "usage: options that do not fit together, or an output that exists. Change the command",
    3: "bad input: a file or a value is wrong. The line names it, and the next step",
    4: "a gate or a budget failed: the artifact lies in `NAME.failed/` and was not published",
    5: "a tool is missing, and the line names the package to install; or it crashed, and the line says where",
}
RUN = ("python", "-m", "typer", "export/cli/main.py", "utils", "docs", "--name", "parcae-export")


def command_page() -> str:
    """Markdown of every command and option, by Typer's own generator."""
    line = [sys.executable, *RUN[1:], "--title", "The command, option by option"]
    text = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return "\n".join(row.rstrip() for row in text.splitlines()).strip() + "\n"


def error_classes() -> list[type[errors.ParcaeError]]:
    """The classes that a user sees."""
    found = [item for _, item in inspect.getmembers(errors, inspect.isclass)]
    return [item for item in found if issubclass(item, errors.ParcaeError) and item is not errors.ParcaeError]


def error_page() -> str:
    """Markdown of the error classes by exit code, with their docstrings and next steps."""
    rows = ["# Troubleshooting", ""]
    rows += [
        "Every failure is one line that begins with `error:`, names the thing that is wrong and ends with the next"
    ]
    rows += [
        "step, and an exit code that says its kind. `echo $?` shows the code, `--debug` the traceback with the class"
    ]
    rows += [
        "of the error, `parcae-export doctor` what this machine can do. Anything else that ends a command is a fault"
    ]
    rows += ["of this program.", ""]
    for code, meaning in EXIT_CODES.items():
        rows += [f"## Exit code {code}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
        rows += ["| error | when | what to do |", "|---|---|---|"]
        for item in sorted((c for c in error_classes() if c.exit_code == code), key=lambda c: c.__name__):
            words = " ".join((inspect.getdoc(item) or "").split())
            rows.append(f"| `{item.__name__}` | {words.replace('|', '/')} | {item.next_step.replace('|', '/')} |")
        rows.append("")
    return "\n".join(rows)


def word_page() -> str:
    """Markdown of the words that reports and tables use, as every report explains them."""
    rows = ["# Words", "", "What reports, tables and these pages call things. Every `report.html` has them.", ""]
    rows += ["| word | meaning |", "|---|---|", *(f"| {word} | {meaning} |" for word, meaning in WORDS)]
    return "\n".join(rows) + "\n"


def message_page() -> str:
    """Markdown of the messages as the code raises them, to be searched; `<name>` stands for what is filled in."""
    rows = ["# Every error message", ""]
    rows += [
        "As the code writes them; words in angle brackets are filled in. [Troubleshooting](errors.md) says what to do"
    ]
    rows += ["about each kind.", ""]
    kinds = {item.__name__: item for item in error_classes()}
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for kind, message in raised(ast.parse(path.read_text(encoding="utf-8")), set(kinds)):
                found.setdefault(kind, set()).add(message)
    for kind, messages in sorted(found.items(), key=lambda item: (kinds[item[0]].exit_code, item[0])):
        rows += [f"## {kind}, exit code {kinds[kind].exit_code}", ""]
        rows += [f"- `{message.replace('`', chr(39))}`" for message in sorted(messages)]
        rows.append("")
    return "\n".join(rows)


def raised(tree: ast.AST, kinds: set[str]) -> Iterator[tuple[str, str]]:
    """(class, message) of every `raise` of one of these classes whose text stands there."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)):
            continue
        texts = [words for words in map(_words, node.exc.args) if words]
        if node.exc.func.id in kinds and texts:
            yield node.exc.func.id, " ".join(max(texts, key=len).split())


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    return "".join(
        part.value
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
        else f"<{_name(part.value)}>"
        if isinstance(part, ast.FormattedValue)
        else ""
        for part in node.values
    )


def _name(node: ast.expr) -> str:
    """The last word of a name or attribute; dots for anything longer."""
    if isinstance(node, ast.Name):
        return node.id.replace("_", " ")
    return node.attr.replace("_", " ") if isinstance(node, ast.Attribute) else "..."


def mutant_page() -> str:
    """Markdown of the committed results of `make mutants`."""
    from tests.mutants.table import Results, page

    return page(Results.load(ROOT / "docs" / "mutants.json"))


def main() -> int:
    """Write the pages, or with `--check` compare those that are kept."""
    if "--messages" in sys.argv[1:]:
        (ROOT / "docs" / "messages.md").write_text(message_page(), encoding="utf-8")
        return 0
    made = {"cli.md": command_page(), "errors.md": error_page(), "words.md": word_page()}
    made["mutants.md"] = mutant_page()
    pages = {ROOT / "docs" / name: text for name, text in made.items()}
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
