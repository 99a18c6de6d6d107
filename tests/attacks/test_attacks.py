"""Every attack ends in one line of its own error type, within five seconds and 200 MB.

python -m pytest tests/attacks
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.attacks.case import MOST_BYTES, MOST_SECONDS, Case, run
from tests.attacks.table import KINDS

CASES = [case for cases in KINDS.values() for case in cases]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_attack_ends_in_one_line(case: Case, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = run(case, tmp_path)
    assert isinstance(ended.error, case.error), repr(ended.error)
    text = str(ended.error)
    assert case.words in text and 0 < len(text) < 2000 and ended.error.exit_code == 3, text
    assert ended.seconds < MOST_SECONDS and ended.bytes < MOST_BYTES, (ended.seconds, ended.bytes)


def test_the_corpus_is_large_and_no_case_is_there_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 300
