"""One reader under atheris in this process; run by fuzz.py. Arguments: the reader, its corpus, libFuzzer's options."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import atheris

name, corpus = sys.argv[1], Path(sys.argv[2])
with atheris.instrument_imports(include=["parcae_mobile", "export", "quantize", "tests.attacks", "tomllib", "json"]):
    from tests.attacks.targets import TARGETS, seeds

warnings.simplefilter("ignore")
for number, data in enumerate(seeds()[name]):
    (corpus / f"good-{number}").write_bytes(data)
atheris.Setup([sys.argv[0], *sys.argv[3:], os.fspath(corpus)], TARGETS[name])
atheris.Fuzz()
