"""A folder that the original's training script wrote loads as it is: its configuration, its newest checkpoint."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parcae_mobile import Parcae, convert, load_model
from parcae_mobile.checkpoint import build_model, read_checkpoint
from parcae_mobile.checkpoint.training_output import checkpoints, choose, newest
from parcae_mobile.errors import CheckpointError, ConfigError, UnsafeCheckpointError

MakeRun = Callable[..., Path]


class Breakdown:
    """What the trainer keeps beside the model: a record of its own."""

    def __init__(self) -> None:
        self.parts = {"attention": 3}


def as_trainer_record(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that a pickle knows by the trainer's name for it."""
    module = types.ModuleType("cost")
    record = type("FLOPBreakdown", (Breakdown,), {"__module__": "cost"})
    module.FLOPBreakdown = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cost", module)
    return record


@pytest.fixture
def run(tmp_path: Path, small: Callable[..., Parcae], small_values: dict[str, Any]) -> MakeRun:
    """Lay out a run: `run({8: "run"}, extra=..., folder=...)` writes step 8; the seed of its weights is the step."""

    def make(steps: dict[int, str], *, inside: str = "checkpoints-DDPStrategy", suffix: str = "", **extra: Any) -> Path:
        folder = tmp_path / "outputs"
        (folder / inside).mkdir(parents=True, exist_ok=True)
        values = {**small_values, "strategy": "ddp"}
        run_config = {"run_name": "small", "tokenizer_path": "/resource/tokenizer", "model_config": values}
        (folder / "run_config.json").write_text(json.dumps(run_config), encoding="utf-8")
        (folder / "model_config.json").write_text(json.dumps(values), encoding="utf-8")
        for step, name in steps.items():
            model = {f"_forward_module.{key}": t for key, t in small(seed=step).state_dict().items()}
            optimizer = {"state": {0: {"exp_avg": torch.zeros(1 << 20)}}}
            content = {"model": model, "optimizer": optimizer, "microbatch_step": step, **extra}
            torch.save(content, folder / inside / f"step-{step:08d}-{name}{suffix}")
        return folder

    return make


def seed_of(model: Parcae, small: Callable[..., Parcae], seeds: list[int]) -> int:
    return next(s for s in seeds if torch.equal(small(seed=s).lm_head.weight, model.lm_head.weight))


@pytest.mark.parametrize("suffix", ["", ".pth", ".pt", ".ckpt"])
def test_the_newest_step_is_read_and_another_by_step_name_or_path(
    run: MakeRun, small: Callable[..., Parcae], suffix: str
) -> None:
    folder = run({8: "small", 1024: "small", 256: "small"}, suffix=suffix)
    assert seed_of(load_model(folder), small, [8, 1024, 256]) == 1024
    chosen = f"step-00000256-small{suffix}"
    for wanted in ("256", chosen, str(folder / "checkpoints-DDPStrategy" / chosen)):
        assert seed_of(load_model(folder, checkpoint=wanted), small, [8, 1024, 256]) == 256
    notes = read_checkpoint(folder).notes
    assert notes == [f"a training run's output: read step-00001024-small{suffix}, of 3 checkpoints"]
    with pytest.raises(CheckpointError, match="--checkpoint 77: no such file, name or step.*latest are"):
        load_model(folder, checkpoint="77")


def test_of_several_ranks_the_first_is_read(run: MakeRun) -> None:
    folder = run({16: "small_1", 8: "small_0"}, suffix=".pth")
    run({16: "small_0"}, suffix=".pth")
    assert newest(folder) == folder / "checkpoints-DDPStrategy" / "step-00000016-small_0.pth"
    assert choose(folder, "step-00000016-small").name == "step-00000016-small_0.pth"


def test_a_checkpoint_that_is_a_folder_and_one_beside_the_configuration(
    run: MakeRun, small: Callable[..., Parcae]
) -> None:
    folder = run({3: "small"}, inside="checkpoints-FSDPStrategy/step-00000003-small", suffix=".pt")
    assert seed_of(load_model(folder), small, [3]) == 3
    run({5: "small"}, inside=".", suffix=".pt")
    assert [path.name for path in checkpoints(folder)] == ["step-00000003-small.pt", "step-00000005-small.pt"]
    assert seed_of(load_model(folder), small, [3, 5]) == 5


def test_only_one_of_the_two_configurations_is_needed(run: MakeRun) -> None:
    folder = run({8: "small"})
    (folder / "model_config.json").unlink()
    assert load_model(folder).config.name == "small"
    (folder / "run_config.json").write_text('{"run_name": "x"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no model_config"):
        load_model(folder)


def test_the_configuration_that_a_checkpoint_was_saved_with_counts(run: MakeRun, small_values: dict[str, Any]) -> None:
    folder = run({8: "small"}, model_config={**small_values, "vocab_size": 64})
    checkpoint = read_checkpoint(folder)
    assert checkpoint.config.vocab_size == 64
    assert "the checkpoint was saved with vocab_size = 64; that is used" in checkpoint.notes


def test_the_trainers_own_records_are_skipped_and_its_random_states(
    run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = as_trainer_record(monkeypatch)
    extra = {
        "flop_breakdown": record(),
        "tokenizer": {"dir": Path("/resource/tokenizer")},
        "rng_state_numpy": np.random.get_state(),
        "rng_state_python": random.getstate(),
        "rng_state_torch": torch.get_rng_state(),
    }
    folder = run({8: "small"}, **extra)
    monkeypatch.delitem(sys.modules, "cost")
    assert load_model(folder).config.name == "small"


def test_an_object_of_any_other_kind_is_refused_with_the_code_that_converts_it(run: MakeRun) -> None:
    folder = run({8: "small"}, extra=Breakdown())
    with pytest.raises(UnsafeCheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "was not executed" in message and "torch.save(s['model'], 'model.pt')" in message and "\n" not in message


def test_the_code_in_the_refusal_converts(run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run({8: "small"}, extra=Breakdown())
    with pytest.raises(UnsafeCheckpointError) as caught:
        load_model(folder)
    code = str(caught.value).split("convert it: ", 1)[1]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    (folder / "checkpoints-DDPStrategy" / "step-00000008-small").unlink()
    assert load_model(folder, checkpoint=str(tmp_path / "model.pt")).config.name == "small"


def test_tensors_split_over_processes_are_refused_with_what_joins_them(run: MakeRun) -> None:
    folder = run({})
    inside = folder / "checkpoints-FSDPStrategy" / "step-00000008-small"
    inside.mkdir(parents=True)
    (inside / "__0_0.distcp").write_bytes(b"")
    (inside / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match="split over processes.*dcp_to_torch"):
        load_model(folder)


def test_a_dtensor_is_refused_with_the_code_that_gathers_it(run: MakeRun, tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        split = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Replicate()])
        torch.save({"model": {"w": split}}, tmp_path / "split.pt")
    finally:
        dist.destroy_process_group()
    with pytest.raises(UnsafeCheckpointError, match=r"DTensor.*full_tensor\(\)"):
        load_model(run({}), checkpoint=str(tmp_path / "split.pt"))


def test_optimizer_state_never_comes_into_memory(run: MakeRun) -> None:
    """A run that holds 80 MB beside its model is read without 40 MB more than stay in use."""
    folder = run({8: "small"}, ema={"state": {index: torch.zeros(10_000_000) for index in range(2)}})
    code = f"""
from pathlib import Path
from parcae_mobile.checkpoint import build_model, read_checkpoint
model = build_model(read_checkpoint(Path({str(folder)!r})))
lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(lines["VmHWM"].split()[0]) - int(lines["RssAnon"].split()[0]) - int(lines["RssFile"].split()[0]))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert int(done.stdout) < 40_000


def test_convert_gives_a_training_run_the_form_of_a_released_model(
    run: MakeRun, tmp_path: Path, small: Callable[..., Parcae]
) -> None:
    folder = run({8: "small", 16: "small"})
    notes = convert(folder, tmp_path / "safe", checkpoint="8")
    assert sorted(path.name for path in (tmp_path / "safe").iterdir()) == ["config.json", "model.safetensors"]
    assert seed_of(load_model(tmp_path / "safe"), small, [8, 16]) == 8
    assert any("tokenizer /resource/tokenizer is not here" in note for note in notes)


def test_a_run_without_checkpoints_says_what_is_missing(run: MakeRun) -> None:
    with pytest.raises(CheckpointError, match=r"no weights in .*step-\*"):
        load_model(run({}))


def test_wrapped_names_in_a_run_build_the_model(run: MakeRun) -> None:
    checkpoint = read_checkpoint(run({8: "small"}))
    assert "transformer.wte.weight" in checkpoint.tensors
    build_model(checkpoint)
