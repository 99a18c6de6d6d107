"""What is left after an export was stopped: each stage against each fault, with an older artifact in the way.

    python -m tests.crashes                            # prints the matrix; exit code 1 if a cell is not as it should be

A small model; every cell forks a child that exports over an existing artifact and is stopped where the stage begins.
Then the folder must hold the old artifact or the new one, whole; a second export must finish, with nothing beside it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

import export.pipeline as pipeline
from export.request import ExportRequest
from parcae_mobile.errors import InputError, ParcaeError
from parcae_mobile.manifest import MANIFEST, verify_files
from tests.attacks.base import checkpoint, tensors

STAGES = ("loading the model", "quantizing", "writing", "publishing", "published")
FAULTS: dict[str, Callable[[], object]] = {
    "kill -9": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "Ctrl-C": lambda: os.kill(os.getpid(), signal.SIGINT),
    "abort in native code": os.abort,
    "disk full": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)),
}
OLD, NEW = 2, 3  # most loops of the artifact that is there, and of the one that is made


def main() -> int:
    """Print the matrix as Markdown."""
    torch.set_num_threads(1)
    print(f"| stage | {' | '.join(FAULTS)} |\n|{'---|' * (len(FAULTS) + 1)}", flush=True)
    fine = True
    for stage in STAGES:
        cells = [cell(stage, fault) for fault in FAULTS]
        fine &= all(ok for ok, _ in cells)
        print(f"| {stage} | {' | '.join(text for _, text in cells)} |", flush=True)
    together = two_at_once()
    print(f"\nTwo exports to one place at once: {together[1]}.")
    elsewhere = unwritable()
    print(f"An output that cannot be written: {elsewhere[1]}.")
    return int(not (fine and together[0] and elsewhere[0]))


def cell(stage: str, fault: str) -> tuple[bool, str]:
    """Whether all is as it should be after one fault at one stage, and what was found."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        source = model(place)
        first = export(source, place / "out", OLD)
        before = first.read_bytes()
        code = in_child(lambda: export(source, place / "out", NEW, stage, FAULTS[fault]))
        try:
            verify_files(first.parent)
        except ParcaeError as error:
            return False, f"BROKEN: {error}"
        left = "old" if first.read_bytes() == before else "new"
        export(source, place / "out", NEW)
        beside = sorted(path.name for path in (place / "out").iterdir() if path != first.parent)
        whole = verify_files(first.parent).max_loops == NEW and not beside
        return whole, f"{left} whole ({code}), re-run new" if whole else f"{left} whole, then LEFT {', '.join(beside)}"


def two_at_once() -> tuple[bool, str]:
    """Two children export to one place."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        source = model(place)
        children = [fork(lambda: export(source, place / "out", NEW)) for _ in range(2)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        (folder,) = (path for path in (place / "out").iterdir())
        whole = verify_files(folder).max_loops == NEW
        return whole and codes == [0, 0], f"exit codes {codes[0]} and {codes[1]}, one whole artifact"


def unwritable() -> tuple[bool, str]:
    """An output below a file."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "file").write_text("the user's", encoding="utf-8")
        try:
            export(model(place), place / "file" / "out", NEW)
        except InputError as error:
            kept = (place / "file").read_text(encoding="utf-8") == "the user's"
            return kept, f"one line ({type(error).__name__}), the file is as it was"
        return False, "NOT REFUSED"


def model(place: Path) -> Path:
    folder = place / "small"
    folder.mkdir()
    checkpoint(folder)
    save_file(tensors(), folder / "model.safetensors")
    return folder


def export(source: Path, out: Path, loops: int, stage: str = "", fault: Callable[[], object] | None = None) -> Path:
    """Export over what is there; the path of the manifest. `fault` comes where `stage` begins."""
    publish = pipeline.publish

    def stopped(folder: Path, final: Path) -> None:
        step("publishing")
        publish(folder, final)
        step("published")

    def step(line: str) -> None:
        if fault is not None and stage and line.startswith(stage):
            fault()

    pipeline.publish = stopped
    try:
        request = ExportRequest(
            model=str(source), quant="int8", max_loops=loops, out=out, force=True, verify=False, cache=False, threads=1
        )
        (result,) = pipeline.run_export(request, step)
    finally:
        pipeline.publish = publish
    return result.path / MANIFEST


def in_child(work: Callable[[], object]) -> str:
    """Run in a forked child; how it ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def fork(work: Callable[[], object]) -> int:
    """A child that does the work and leaves with the command's exit codes; returns its process id."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    code = 0
    try:
        work()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = 130
    except ParcaeError as error:
        code = error.exit_code
    except BaseException as error:  # a traceback would be a fault of this program
        sys.stderr.write(f"{error!r}\n")
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
