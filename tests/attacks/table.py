"""The corpus as a table: by kind of file, how many attacks, and the slowest and the largest of them.

python -m tests.attacks.table
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

from tests.attacks import checkpoints, files, manifests, mil_packages, onnx_graphs, pickles
from tests.attacks.case import Case, Ended, run

KINDS = {
    "checkpoint folders: configuration, safetensors, index, tokenizer": checkpoints.CASES,
    "pickles": pickles.CASES,
    "recipes, references, bench tables, states, quantized tensors, texts": files.CASES,
    "manifests of artifacts and apps, and their folders": manifests.CASES,
    "Core ML packages and ONNX graphs": [*mil_packages.CASES, *onnx_graphs.CASES],
}


def main() -> int:
    """Run every case; exit code 1 if one did not end as it should."""
    warnings.simplefilter("ignore")
    print("| what | attacks | refused as expected | slowest, s | most memory above idle, MB |\n|---|---|---|---|---|")
    total = refused = 0
    for name, cases in KINDS.items():
        ended = [attempt(case) for case in cases]
        right = sum(isinstance(end.error, case.error) for case, end in zip(cases, ended, strict=True))
        slowest, largest = max(end.seconds for end in ended), max(end.bytes for end in ended)
        print(f"| {name} | {len(cases)} | {right} | {slowest:.2f} | {largest / 1e6:.0f} |", flush=True)
        total, refused = total + len(cases), refused + right
    print(f"| all | {total} | {refused} | | |")
    return int(refused < total)


def attempt(case: Case) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        return run(case, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
