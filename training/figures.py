"""Tables and plots of an evaluation and a loss curve.

    python -m training.figures --evaluation docs/embedded-model/evaluation.json --curve RUN/curve.json \
        --out docs/embedded-model

Writes `figures.md`, `perplexity.svg` and, where a curve is given, `loss.svg` and a copy of the curve. The same input
gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

matplotlib.rcParams.update({"svg.hashsalt": "parcae", "svg.fonttype": "path", "figure.figsize": (6.4, 3.8)})
PARTS = {"library": "standard library and language reference", "packages": "packages", "text": "the file given"}


def save_plot(path: Path) -> None:
    """Write the current plot as SVG without a date."""
    pyplot.tight_layout()
    pyplot.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close()


def plot_perplexity(evaluation: dict[str, Any], path: Path) -> None:
    """Bits per byte, and perplexity of the first model, against the loop count."""
    figure, (left, right) = pyplot.subplots(1, 2)
    part = next(iter(evaluation["text"]["windows"]))
    for model in evaluation["models"]:
        points = model[part]["bits_per_byte"]
        left.plot([int(t) for t in points], list(points.values()), marker="o", label=model["name"])
    left.set_ylabel("bits per byte")
    left.legend(loc="center right")
    points = evaluation["models"][0][part]["perplexity"]
    right.plot([int(t) for t in points], list(points.values()), marker="o")
    right.set_ylabel(f"perplexity per token, {evaluation['models'][0]['name']}")
    for axes in (left, right):
        axes.set_xlabel("loops T")
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.grid(alpha=0.3)
    figure.suptitle(f"Held-out text ({PARTS[part]}) against the loop count", fontsize="medium")
    save_plot(path)


def plot_loss(curve: list[dict[str, float]], path: Path) -> None:
    """Training and validation loss against the tokens seen."""
    pyplot.figure()
    pyplot.plot([p["tokens"] / 1e6 for p in curve], [p["loss"] for p in curve], label="training (smoothed)")
    checked = [p for p in curve if "validation" in p]
    if checked:
        tokens, loss = [p["tokens"] / 1e6 for p in checked], [p["validation"] for p in checked]
        pyplot.plot(tokens, loss, marker="o", label="calibration text, T = mean recurrence")
    pyplot.xlabel("million tokens")
    pyplot.ylabel("nats per token")
    pyplot.legend()
    pyplot.grid(alpha=0.3)
    save_plot(path)


def tables(evaluation: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["# Figures of the embedded model", "", "Made by `python -m training.figures`; do not edit by hand.", ""]
    for part, title in PARTS.items():
        if part not in evaluation["text"]["windows"]:
            continue
        windows, size = (evaluation["text"][key][part] for key in ("windows", "bytes"))
        lines += [f"## Held-out text: {title}", "", f"{windows} windows, {size:,} bytes.", ""]
        loops = list(evaluation["models"][0][part]["bits_per_byte"])
        lines += ["| model | figure | " + " | ".join(f"T={t}" for t in loops) + " |", "|---" * (len(loops) + 2) + "|"]
        for model in evaluation["models"]:
            for key, label in (("bits_per_byte", "bits per byte"), ("perplexity", "perplexity per token")):
                values = " | ".join(f"{model[part][key][t]}" for t in loops)
                lines.append(f"| {model['name']} ({model['parameters']:,} parameters) | {label} | {values} |")
        lines += [
            "",
            "Perplexities are per token of each model's own tokenizer; bits per byte compare.",
            _loops(evaluation, part),
            "",
        ]
    changes = evaluation["state_changes"]
    least, median, most = evaluation["decay"]
    lines += [
        "## The loop",
        "",
        f"Decay of the injection: {least} to {most}, median {median}. Mean relative change of the state by loop:",
        "",
        "| " + " | ".join(f"T={t}" for t in range(2, len(changes) + 2)) + " |",
        "|---" * len(changes) + "|",
        "| " + " | ".join(str(change) for change in changes) + " |",
        "",
        "## Samples",
        "",
        "80 tokens at temperature 0.7 among the 40 most likely, one seed, not selected.",
        "",
    ]
    for item in evaluation["samples"]:
        lines += [f"T={item['loops']}, from `{item['prompt'].strip()}`:", "", *_indented(item["text"]), ""]
    return "\n".join(lines)


def _loops(evaluation: dict[str, Any], part: str) -> str:
    perplexity = evaluation["models"][0][part]["perplexity"]
    fall = 1 - perplexity["4"] / perplexity["1"]
    rise = perplexity["16"] / perplexity["8"] - 1
    return f"From T=1 to T=4 perplexity falls by {fall:.1%}; from T=8 to T=16 it changes by {rise:+.2%}."


def _indented(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables and plots of an evaluation and a loss curve.")
    parser.add_argument("--evaluation", type=Path, required=True, help="evaluation.json of python -m training.evaluate")
    parser.add_argument("--curve", type=Path, help="curve.json of a run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    evaluation = json.loads(options.evaluation.read_text(encoding="utf-8"))
    plot_perplexity(evaluation, options.out / "perplexity.svg")
    (options.out / "figures.md").write_text(tables(evaluation), encoding="utf-8")
    if options.curve is not None:
        text = options.curve.read_text(encoding="utf-8")
        plot_loss(json.loads(text), options.out / "loss.svg")
        (options.out / "curve.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
