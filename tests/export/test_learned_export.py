"""`--algorithm learned` from the request to the integers that every target stores."""

from __future__ import annotations

from pathlib import Path

from export.pipeline import quantize
from export.request import ExportRequest
from export.source import open_source
from quantize import load_recipe


def test_learned_rounding_reports_its_progress_and_keeps_its_state_where_it_is_told(mini: Path, tmp_path: Path) -> None:
    state, lines = tmp_path / "run.state", list[str]()
    request = ExportRequest(model=str(mini), algorithm="learned", learn_steps=1, learn_state=state)
    quantized = quantize(request, open_source(str(mini)), load_recipe("int4"), lines.append)
    assert quantized.algorithm == "learned" and state.exists() and not quantized.fallbacks
    assert any("learned rounding: held-back KL" in line and "min left" in line for line in lines)
    assert any("moving integers of" in line for line in lines)
