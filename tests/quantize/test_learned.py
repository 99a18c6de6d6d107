"""Learned rounding: gradients, what it moves and leaves, its judge, its state file, and the text that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import InputError, TensorValueError, TextError, UsageError
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.parity import greedy
from parcae_mobile.text import text_ids
from quantize import load_recipe, quantize_with
from quantize.algorithms import draw_windows
from quantize.apply import QuantizedModel
from quantize.compression import HeldOut
from quantize.guard import max_decay
from quantize.learned import hold_back, learn, loop_range
from quantize.learning_run import HELD_BACK, PARTS, Learning, unrolled, windows_at_once
from quantize.recipe import parse_recipe
from quantize.selfwritten import PAGE, USES, SelfWritten, write
from quantize.student import Student
from quantize.tensor import integer_range, on_scale_grid

IDS = torch.randint(0, 60, (40, 16), generator=torch.Generator().manual_seed(3))
CPU = torch.device("cpu")
MIXED = parse_recipe(
    'budget={kl=1,top1=0}\n[[rules]]\nmatch="transformer.adapter.*"\nbits=32\n'
    '[[rules]]\nmatch="*.mlp.*.weight"\nbits=4\ngroup_size=16\nsymmetric=false\n'
    '[[rules]]\nmatch="transformer.C.weight"\nbits=8\n'
    '[[rules]]\nmatch="*.weight"\nbits=3\ngroup_size=16',
    "mixed",
)


@pytest.fixture(scope="module")
def model(data: Path) -> Parcae:
    return load_model(data / "tiny-trained")


@pytest.fixture(scope="module")
def windows(data: Path) -> torch.Tensor:
    return draw_windows(text_ids(data / "tiny-trained", "calibration"), 64, 64)


@pytest.fixture(scope="module")
def start(model: Parcae) -> QuantizedModel:
    return quantize_with(model, load_recipe("int4-small"), "rtn")


@pytest.fixture(scope="module")
def learned(model: Parcae, start: QuantizedModel, windows: torch.Tensor) -> QuantizedModel:
    return learn(model, start, windows, Learning(steps=16, loops=(2, 3), rounding_rate=0.02), seed=1)


def injection_of(model: Parcae) -> list[torch.Tensor]:
    return list(model.transformer["adapter"].parameters())


def same(one: QuantizedModel, other: QuantizedModel) -> bool:
    return all(
        torch.equal(tensor.integers, other.tensors[name].integers)
        and torch.equal(tensor.scales, other.tensors[name].scales)
        for name, tensor in one.tensors.items()
    )


def test_learning_brings_text_that_it_never_saw_nearer(
    model: Parcae, start: QuantizedModel, learned: QuantizedModel, data: Path
) -> None:
    held_out = HeldOut(model, text_ids(data / "tiny-trained", "heldout").windows(6, 96), (8,))
    before, after = (held_out.measure(q.model)[0][8].kl_mean for q in (start, learned))
    assert after < 0.97 * before


def test_integers_scales_and_norms_move_and_the_injection_does_not(
    model: Parcae, start: QuantizedModel, learned: QuantizedModel
) -> None:
    weights, moved = dict(learned.model.named_parameters()), 0
    for name, tensor in learned.tensors.items():
        low, high = integer_range(tensor.bits, tensor.symmetric)
        assert low <= int(tensor.integers.min()) and int(tensor.integers.max()) <= high
        assert torch.equal(on_scale_grid(tensor.scales), tensor.scales)
        assert torch.equal(weights[name], tensor.dequantize())
        moved += int((tensor.integers != start.tensors[name].integers).sum())
    eight = "transformer.C.weight"
    assert moved > 100 and torch.equal(learned.tensors[eight].integers, start.tensors[eight].integers)
    assert (learned.algorithms[eight], learned.algorithms["transformer.wte.weight"]) == ("rtn", "learned")
    assert not torch.equal(learned.model.transformer["ln_f"].weight, model.transformer["ln_f"].weight)
    for kept, own in zip(injection_of(learned.model), injection_of(model), strict=True):
        assert torch.equal(kept, own)
    assert "learned rounding, step" in learned.notes[-1] and not start.notes


def test_gradients_are_those_of_a_straight_through_rounding(small: Callable[..., Parcae]) -> None:
    model = small()
    quantized = quantize_with(model, MIXED, "rtn")
    student = Student(model, quantized, PARTS, CPU)
    with torch.no_grad():
        for values in student.trained().values():
            values.add_(torch.randn_like(values) * 0.1)
    student.put()
    ids = IDS[:2]
    student.model(ids, 3).square().mean().backward()
    student.pull()
    leaves = {name: values.detach().clone().requires_grad_(True) for name, values in student.trained().items()}
    weights = {}
    for name, tensor in quantized.tensors.items():
        steps = tensor.integers.float()
        if name in student.latents:
            v = leaves[f"latent.{name}"].clamp(*integer_range(tensor.bits, tensor.symmetric))
            steps = v + (v.round() - v).detach()
        if tensor.zero_points is not None:
            steps = steps - tensor.zero_points.repeat_interleave(tensor.group_size, 1)
        scales = tensor.scales * leaves[f"factor.{name}"].exp()
        weights[name] = steps * scales.repeat_interleave(tensor.group_size, 1)
    for name, values in student.floats.items():
        weights[name] = values + leaves[f"offset.{name}"] * student.sizes[name]
    functional_call(quantized.model, weights, (ids, 3)).square().mean().backward()
    for name, values in student.trained().items():
        expected = leaves[name].grad
        expected = torch.zeros_like(values) if expected is None else expected  # a table that no layer reads
        torch.testing.assert_close(values.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture(scope="module")
def little(small: Callable[..., Parcae]) -> tuple[Parcae, QuantizedModel]:
    """A model of random weights, which learns in no time, and its rounded form."""
    model = small()
    return model, quantize_with(model, MIXED, "rtn")


FAST = Learning(steps=4, loops=(2, 3), first_token=0, rounding_rate=0.1, rate=0.03)


def test_a_seed_decides_everything(little: tuple[Parcae, QuantizedModel]) -> None:
    one, other, third = (learn(*little, IDS, FAST, seed=seed) for seed in (1, 1, 2))
    assert same(one, other) and not same(one, third) and not same(one, little[1])


def test_a_run_goes_on_from_its_state_as_if_it_had_not_been_cut_off(
    little: tuple[Parcae, QuantizedModel], tmp_path: Path
) -> None:
    file = tmp_path / "run.state"
    whole, kept = learn(*little, IDS, FAST), replace(FAST, state=file)

    def cut(line: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(*little, IDS, kept, progress=cut)
    seen: list[int] = []
    resumed = learn(*little, IDS, kept, progress=lambda line, done, total: seen.append(done))
    assert seen == [3, 4] and same(resumed, whole)
    again = learn(*little, IDS, kept, progress=lambda *_: pytest.fail("a step"))
    assert same(again, whole) and list(tmp_path.iterdir()) == [file]


def test_a_state_of_another_run_or_kind_is_refused_and_left_alone(
    little: tuple[Parcae, QuantizedModel], tmp_path: Path
) -> None:
    file = tmp_path / "run.state"
    learning = replace(FAST, steps=1, state=file)
    learn(*little, IDS, learning)
    written = file.read_bytes()
    with pytest.raises(InputError, match="run.state: of a run with another model, recipe, text or settings"):
        learn(*little, IDS, learning, seed=5)
    assert file.read_bytes() == written
    file.write_text("my notes")
    with pytest.raises(InputError, match="not a state of learned rounding"):
        learn(*little, IDS, learning)
    assert file.read_text() == "my notes"


def test_the_step_that_does_best_on_the_text_held_back_is_kept(little: tuple[Parcae, QuantizedModel]) -> None:
    wild = learn(*little, IDS, replace(FAST, steps=2, rounding_rate=9.0, rate=2.0))
    assert same(wild, little[1]) and "step 0 of 2" in wild.notes[-1]


def test_minutes_end_a_run(little: tuple[Parcae, QuantizedModel]) -> None:
    seen: list[int] = []
    learn(*little, IDS, Learning(steps=50, minutes=1e-6), progress=lambda line, done, total: seen.append(done))
    assert seen == [1]


def test_what_cannot_be_meant_or_done_is_one_clear_line(little: tuple[Parcae, QuantizedModel]) -> None:
    with pytest.raises(UsageError, match="--learn-steps 0"):
        learn(*little, IDS, Learning(steps=0))
    with pytest.raises(UsageError, match="--learn-minutes 0"):
        learn(*little, IDS, Learning(minutes=0))
    with pytest.raises(TextError, match="learned rounding needs 32 or more"):
        learn(*little, IDS[:20], Learning(steps=1))
    model, broken = little[0], quantize_with(little[0], MIXED, "rtn")
    broken.model.transformer["ln_f"].weight = torch.nn.Parameter(torch.full((32,), torch.nan), requires_grad=False)
    with pytest.raises(TensorValueError, match="learned rounding, step 1: the loss is not finite"):
        learn(model, broken, IDS, Learning(steps=1))


def test_the_injection_is_trained_only_where_the_recipe_says_so(
    model: Parcae, start: QuantizedModel, windows: torch.Tensor
) -> None:
    allowed = replace(start, recipe=replace(start.recipe, train_injection=True))
    student = Student(model, allowed, PARTS, CPU)
    assert {name for name in student.floats if "adapter" in name} == {
        f"transformer.adapter.{name}" for name in ("A_log", "dt_bias", "B")
    }
    with torch.no_grad():
        student.offsets["transformer.adapter.A_log"].add_(0.01)
        student.put()
        decay = max_decay(student.model)
    assert decay is not None and decay < 1 and decay != max_decay(model)
    assert not any("adapter" in name for name in Student(model, start, PARTS, CPU).floats)


def test_windows_held_back_are_spread_and_not_trained_on() -> None:
    windows = torch.arange(100)[:, None].expand(100, 8)
    training, judges = hold_back(windows)
    assert len(judges) == HELD_BACK and len(training) + len(judges) == 100
    assert not set(training[:, 0].tolist()) & set(judges[:, 0].tolist())
    assert int(judges[:, 0].diff().min()) >= 5 and int(judges[0, 0]) > 0


def test_a_loop_that_settles_is_trained_at_fewer_loops(model: Parcae, data: Path, windows: torch.Tensor) -> None:
    low, high = loop_range(model, windows[:4])
    assert low == 2 and high in (3, 4, 5)
    assert loop_range(load_model(data / "slow-loop"), windows[:4]) == (2, 8)


def test_computing_loops_twice_and_cutting_gradients(small: Callable[..., Parcae]) -> None:
    model = small()
    weight = model.transformer["core_block"][0].mlp.fc.weight.requires_grad_(True)
    found = {}
    for name, options in {"plain": {}, "twice": {"again": True}, "cut": {"through": 1}}.items():
        logits = unrolled(model, IDS[:2], 3, **options)  # type: ignore[arg-type]
        assert torch.equal(logits, model(IDS[:2], 3))
        (found[name],) = torch.autograd.grad(logits.square().mean(), weight)
    assert torch.equal(found["plain"], found["twice"]) and not torch.allclose(found["plain"], found["cut"])


def test_large_shapes_take_fewer_windows_at_once(model: Parcae, small: Callable[..., Parcae]) -> None:
    assert windows_at_once(small().config, 256, 8) > windows_at_once(model.config, 256, 8) > 4
    assert windows_at_once(model.config, 1024, 8) < windows_at_once(model.config, 256, 4)


def test_self_written_text_repeats_and_can_be_entered_anywhere(small: Callable[..., Parcae]) -> None:
    model = small()
    pages = SelfWritten(model, first_token=7, length=12, seed=4)
    first = pages.take(PAGE * USES + 3)
    assert first.shape == (PAGE * USES + 3, 12) and bool((first[:, 0] == 7).all()) and int(first.max()) < 60
    assert torch.equal(first[:PAGE], first[PAGE : 2 * PAGE]) and not torch.equal(first[:3], first[-3:])
    later = SelfWritten(model, first_token=7, length=12, seed=4)
    later.taken = PAGE * USES + 1
    assert torch.equal(later.take(2), first[PAGE * USES + 1 :])
    assert not torch.equal(SelfWritten(model, 7, 12, seed=5).take(3), first[:3])


def test_cold_text_is_the_greedy_continuation(small: Callable[..., Parcae]) -> None:
    model = small()
    written = write(model, 7, count=2, length=9, loops=3, temperature=1e-6, seed=0)
    cache = KVCache(model.config, 3, context=9, policy="shared")
    assert written[0].tolist() == [7, *greedy(model, [7], 8, loops=3, cache=cache)] == written[1].tolist()


def test_the_model_computes_with_integers_while_it_learns(small: Callable[..., Parcae]) -> None:
    model = small()
    quantized = quantize_with(model, MIXED, "rtn")
    student = Student(model, quantized, PARTS, CPU)
    student.put()
    expected = F.log_softmax(quantized.model(IDS[:2], 3), -1)
    torch.testing.assert_close(F.log_softmax(student.model(IDS[:2], 3), -1), expected, rtol=0, atol=1e-5)
    tensors, _ = student.result()
    assert all(torch.equal(tensors[n].integers, quantized.tensors[n].integers) for n in tensors)
