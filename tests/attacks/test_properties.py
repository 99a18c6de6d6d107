"""Good files with a few bytes changed, cut, doubled or joined: every reader reads them, or refuses them in one line.

`make soak` runs the same readers under a coverage-guided fuzzer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.targets import TARGETS, forget, seeds

EXAMPLES = 12
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "double", "insert", "flip"]), st.integers(0, 2**20), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module", autouse=True)
def clean() -> Iterator[None]:
    yield
    forget()


def changed(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    """The data with each change made in turn, at a place counted around its end."""
    for kind, place, value in changes:
        at = place % (len(data) or 1)
        start, rest = data[:at], data[at:]
        if kind == "set":
            data = start + bytes([value]) + rest[1:]
        elif kind == "flip":
            data = start + bytes(part ^ (1 << value % 8) for part in rest[:1]) + rest[1:]
        elif kind == "cut":
            data = start + rest[value:]
        elif kind == "double":
            data = start + rest[:value] * 2 + rest[value:]
        else:
            data = start + [b'"', b"{", b"[", b"\xff", b"0", b"-", b"9" * 30, b"\0"][value % 8] + rest
    return data


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(changes=CHANGES, start=st.integers(0, 9))
def test_a_changed_file_is_read_or_refused(name: str, changes: list[tuple[str, int, int]], start: int) -> None:
    good = seeds()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGETS[name](changed(good[start % len(good)], changes))


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_file_is_read(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGETS[name](seeds()[name][0])
