"""Figures are a function of the evaluation: same input, same bytes, and the claims are computed from it."""

from __future__ import annotations

from pathlib import Path

from training.figures import plot_loss, plot_perplexity, tables

SCORES = {
    "tokens": 10,
    "bits_per_byte": {"1": 2.0, "4": 1.9, "8": 1.8, "16": 1.8},
    "perplexity": {"1": 20.0, "4": 15.0, "8": 14.0, "16": 14.07},
}
EVALUATION = {
    "text": {"windows": {"library": 3}, "bytes": {"library": 1234}},
    "models": [{"name": "ours", "parameters": 7, "library": SCORES}],
    "state_changes": [0.5, 0.25],
    "decay": [0.1, 0.2, 0.3],
    "samples": [{"prompt": "def f():", "loops": 4, "text": "def f():\n    pass"}],
}


def test_plots_have_no_date_and_repeat(tmp_path: Path) -> None:
    curve = [{"tokens": 1e6, "loss": 3.0}, {"tokens": 2e6, "loss": 2.5, "validation": 2.6}]
    made = []
    for _ in range(2):
        plot_perplexity(EVALUATION, tmp_path / "a.svg")
        plot_loss(curve, tmp_path / "b.svg")
        made.append((tmp_path / "a.svg").read_bytes() + (tmp_path / "b.svg").read_bytes())
    assert made[0] == made[1] and b"dc:date" not in made[0]


def test_tables_state_what_the_loop_brings() -> None:
    text = tables(EVALUATION)
    assert "3 windows, 1,234 bytes" in text
    assert "falls by 25.0%" in text and "changes by +0.50%" in text
    assert "    def f():\n        pass" in text
