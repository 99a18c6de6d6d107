"""What a reader should see first: an artifact's key figures in plain words, and several artifacts in one table.

for figure in key_figures(subject): print(figure.value, figure.what)
rows = comparison([first, second]).rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.report.page.subject import Subject, letters
from export.report.terminal import megabytes
from parcae_mobile.manifest import Manifest, Verdict

WORDS = (
    ("T, loops", "How often the recurrent block is run for each token: more loops, more work, the same weights."),
    (
        "closed",
        "A loop count at which the artifact failed its gates while the trained one passed: hosts and apps refuse it.",
    ),
    ("KL", "How far two sets of next-token probabilities are apart, in nats; 0 means equal."),
    ("top-1", "How often the likeliest next token is the same one."),
    ("perplexity ratio", "How much worse a text is predicted than by the fp32 model; 1 is as good."),
    ("lowering", "From PyTorch to the files of a runtime. Its gate compares the two, weights being equal."),
    ("compression", "Storing weights in fewer bits. Its gate compares the quantized model with the fp32 one."),
    ("greedy tokens equal", "Of 64 tokens, each the likeliest one, how many the artifact and PyTorch generate alike."),
    ("KV cache", "Keys and values of the tokens so far, kept so that they are not computed again."),
    ("pole, decay", "How much of the state the linear injection keeps at each loop. Below 1 it dies out by itself."),
    ("golden reference", "Logits of the fp32 model on a fixed text: does this machine compute as others do?"),
)


@dataclass(frozen=True)
class Figure:
    """A number with its unit, and what it says."""

    value: str
    what: str


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first cell of a row names it."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def key_figures(subject: Subject) -> list[Figure]:
    """Size, agreement with fp32, cache, and decode time where they are known."""
    manifest = subject.manifest
    figures = [Figure(megabytes(subject.app_bytes), _size(subject))]
    if subject.cost is not None:
        loops, cost = subject.cost
        figures.append(
            Figure(f"{cost['top1']:.1%}", f"of next tokens are the fp32 model's first choice too, at T={loops}")
        )
        ratio = cost.get("perplexity_ratio")
        if ratio is not None:
            figures.append(Figure(f"{100 * (ratio - 1):+.2f}%", "perplexity on held-out text against fp32"))
    cache = subject.cache_bytes()
    least, most = min(cache.values()), max(cache.values())
    at_most = f"T={max(cache)}"
    size = "the same at every T" if least == most and len(cache) > 1 else f"at {at_most}"
    meaning = f"of keys and values for {manifest.kv.context:,} tokens, {size}"
    naive = subject.naive_cache_bytes().get(max(cache))
    if naive is not None and naive > 1.5 * most:
        meaning += f"; one fp32 slot for each loop would take {megabytes(naive)} at {at_most}"
    figures.append(Figure(megabytes(most), meaning))
    timed = subject.decode_ms(min(subject.speeds.decode_ms)) if subject.speeds else None
    if timed is not None and subject.speeds is not None:
        context = min(subject.speeds.decode_ms)
        figures.append(Figure(f"{timed[1]:.2f} ms", f"for one more token at T={timed[0]} after {context:,} tokens"))
    return figures


def _size(subject: Subject) -> str:
    words = "to ship: model and tokenizer"
    if subject.facts is None:
        return words
    before, after = (sum(pair[side] for pair in subject.facts.bytes_by_component.values()) for side in (0, 1))
    return f"{words}; weights {before / after:.1f} times smaller than in fp32" if after < 0.95 * before else words


def comparison(subjects: Sequence[Subject]) -> Table:
    """One row for each artifact: what it takes, what it costs, and how its gates went."""
    contexts = [set(subject.speeds.decode_ms) for subject in subjects if subject.speeds is not None]
    context = min(set.intersection(*contexts), default=None) if contexts else None
    columns = ["artifact", "MB", "T", "KL to fp32", "top-1", "cache bytes per token", "checks"]
    if context is not None:
        columns.append(f"ms per token after {context:,}")
    rows = []
    for subject, name in zip(subjects, letters(subjects), strict=True):
        manifest, cost = subject.manifest, subject.cost
        row = [f"{name.split(' ')[0]} {manifest.artifact}", f"{subject.app_bytes / 1e6:.2f}"]
        if cost is None:
            row += ["-", "-", "-"]
        else:
            row += [str(cost[0]), f"{cost[1]['kl_mean']:.1e}", f"{cost[1]['top1']:.1%}"]
        row += [f"{max(manifest.kv.bytes_per_token.values()):,}", _checks(manifest)]
        if context is not None:
            timed = subject.decode_ms(context)
            at = "" if timed is None or (cost is not None and cost[0] == timed[0]) else f" (T={timed[0]})"
            row.append("-" if timed is None else f"{timed[1]:.2f}{at}")
        rows.append(row)
    return Table("Sizes are of model and tokenizer", columns, rows)


def _checks(manifest: Manifest) -> str:
    """How both gates went, in a word where they agree."""
    words = {"lowering": _word(manifest.lowering), "compression": _word(manifest.compression)}
    if len(set(words.values())) == 1:
        return words["lowering"]
    return ", ".join(f"{name} {word}" for name, word in words.items())


def _word(verdict: Verdict) -> str:
    return "not run" if verdict.passed is None else "passed" if verdict.passed else "FAILED"
