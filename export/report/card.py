"""The model card README.md of an artifact folder, with the metadata that the Hugging Face hub reads.

text = card(manifest, base_model="owner/name", licence="apache-2.0")
"""

from __future__ import annotations

from export.report.page.clients import clients
from export.report.page.page import measured_tables, verdict_lines
from export.report.page.subject import Subject
from export.targets.registry import find_target
from parcae_mobile.manifest import Manifest

CARD = "README.md"


def card(manifest: Manifest, base_model: str | None = None, licence: str | None = None) -> str:
    """Markdown. `base_model` is the checkpoint's hub id; without a `licence` the card says that it is not known."""
    subject = Subject(manifest)
    lines = ["---", f"library_name: {manifest.target}", "pipeline_tag: text-generation"]
    if base_model is not None:
        lines += [f"base_model: {base_model}", "base_model_relation: quantized"]
    if licence is not None:
        lines.append(f"license: {licence}")
    lines += ["tags:", "- parcae", "- looped-transformer", "- mobile", f"- {manifest.target}", "---", ""]
    lines += [
        f"# {manifest.artifact}",
        "",
        f"{manifest.model} for {find_target(manifest.target).title}: a looped language model whose recurrent block is "
        f"stored once and run T times. Loops: {subject.loops} (trained at {manifest.trained_loops}). Weights "
        f"{manifest.quantization.recipe} ({manifest.quantization.algorithm}), activations {manifest.compute}, "
        f"{subject.total_bytes / 1e6:.2f} MB in all. KV cache {manifest.kv.policy}, {manifest.kv.dtype}, at most "
        f"{manifest.kv.context} tokens.",
        "",
        "## What was checked",
        "",
        *(f"- **{line.word}** {line.title}. {line.detail}" for line in verdict_lines(subject)),
        "",
    ]
    for table in measured_tables(subject):
        if table.title == "Files":
            continue
        lines += [f"**{table.title}**", "", _row(table.columns), _row(["---"] * len(table.columns))]
        lines += [*(_row(row) for row in table.rows), ""]
    lines += ["## How to run it", ""]
    for client in clients(manifest):
        lines += [f"{client.name}{f' ({client.note})' if client.note else ''}:", ""]
        lines += [f"```{client.language}", client.code, "```", ""]
    lines += [
        "## Limits",
        "",
        f"- {manifest.promise[0].upper()}{manifest.promise[1:]}.",
        f"- These figures were measured by {manifest.verified_by} on one machine; no phone took part.",
        "- What the checkpoint is good for, and where it is wrong, holds for this artifact too.",
        f"- Licence: {licence or 'not stated by the checkpoint; ask its authors before you publish this'}.",
        "",
    ]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
