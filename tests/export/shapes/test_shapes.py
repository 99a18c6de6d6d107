"""Every shape is exported and verified, or refused by name before any work, with the targets that take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import prepare
from export.job import default_computes, shape_of
from export.targets.executorch.shapes import linear_refusal
from export.targets.onnx.shapes import block_columns, head_sizes, padded_head
from export.targets.registry import DYNAMIC, TARGETS, WriteOptions
from export.targets.shapes import Asked, answers, instead, refusal
from parcae_mobile import Parcae
from quantize.recipe import load_recipe, parse_recipe
from tests.random_shapes import TARGETS as ALL
from tests.random_shapes import attempt, drawn_values

SHAPES = Path(__file__).parents[2] / "data" / "shapes"
Small = Callable[..., Parcae]


def asked_of(model: Parcae, rules: str = "", **options: Any) -> Asked:
    recipe = load_recipe("fp32")
    if rules:
        recipe = parse_recipe(f"budget = {{ kl = 1.0, top1 = 0.0 }}\n[[rules]]\n{rules}\n", "x")
    given = {"loop_form": "stages", "loops": DYNAMIC, "max_loops": 2, "context": 48, "compute": "int8", **options}
    return shape_of(WriteOptions(**given), model, recipe)


@pytest.mark.parametrize(
    ("rules", "target", "words"),
    [
        ('match = "*.mlp.*"\nbits = 4\ngroup_size = 8', "onnx", "groups of 8, and MatMulNBits takes multiples of 16"),
        ('match = "*.mlp.*"\nbits = 2\ngroup_size = 16', "onnx", "2 bits"),
        ('match = "*.mlp.*"\nbits = 3\ngroup_size = 16', "coreml", "3 bits"),
        ('match = "*.mlp.*"\nbits = 4\ngroup_size = 16', "executorch", "groups of 16, XNNPACK takes multiples of 32"),
        ('match = "*.mlp.*"\nbits = 4\nsymmetric = false', "executorch", "zero points"),
        ('match = "*.mlp.*"\nbits = 8\ngroup_size = 16', "executorch", "one scale per row"),
    ],
)
def test_a_format_that_a_target_does_not_take_is_refused_by_the_matrix(
    small: Small, rules: str, target: str, words: str
) -> None:
    asked = asked_of(small(), rules)
    why = refusal(TARGETS[target], asked)
    assert why is not None and words in why and "mlp.fc.weight" in why


@pytest.mark.parametrize("group", [16, 48, 256, 512, 768])
def test_groups_of_any_multiple_of_16_become_blocks_that_the_kernels_take(group: int) -> None:
    block = block_columns(2 * group, group)
    assert group % block == 0 and block in (16, 32, 64, 128, 256)


@pytest.mark.parametrize(
    ("columns", "block"), [(96, 32), (192, 64), (320, 64), (384, 128), (640, 128), (768, 256), (40, 64), (24, 32)]
)
def test_blocks_of_a_table_divide_its_rows_where_they_can(columns: int, block: int) -> None:
    assert block_columns(columns, columns, gathered=True) == block


def test_heads_are_padded_to_what_the_kernel_takes(small: Small) -> None:
    assert [padded_head(size, rope=True) for size in (8, 16, 24, 40)] == [16, 16, 32, 48]
    assert [padded_head(size, rope=False) for size in (3, 8, 12)] == [8, 8, 16]
    model = small(num_attention_heads=4, recurrent_num_attention_heads=4)
    assert head_sizes(model.config) == {"prelude": 16, "core_block": 16, "coda": 16}


def test_a_refusal_names_the_targets_and_flavours_that_take_it(small: Small) -> None:
    asked = asked_of(small(), 'match = "*.mlp.*"\nbits = 4\ngroup_size = 8')
    assert instead(asked, default_computes(load_recipe("int4"))) == "use --target onnx --portable, or --target coreml"
    assert linear_refusal(4, 64, 128, True) is None


def test_the_table_has_a_row_for_every_target_flavour_and_form(small: Small) -> None:
    rows = answers(asked_of(small(), context=2), default_computes(load_recipe("fp32")))
    assert {(row.flavour, row.form) for row in rows} >= {
        ("onnx", "scan"),
        ("onnx --portable", "unrolled"),
        ("coreml", "while"),
        ("executorch", "stages"),
    }
    assert {row.flavour for row in rows if row.why is not None} == {"executorch"}


def test_the_command_refuses_before_it_quantizes(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "quantize_with", lambda *given, **more: pytest.fail("work was done"))
    ran = cli(
        "--model", SHAPES / "tiny-context", "--target", "executorch", "--quant", "fp32", "--out", tmp_path / "out"
    )
    assert ran.code == 5
    assert "a context of 2 is too short, it takes 4 tokens or more; use --target onnx" in ran.line
    assert not (tmp_path / "out").exists()


def test_doctor_says_which_targets_take_a_model(cli: Callable[..., Any]) -> None:
    ran = cli("doctor", "--model", SHAPES / "tiny-context", "--quant", "fp32", "--json")
    rows = {(row["flavour"], row["form"]): row["why"] for row in ran.json["targets"]}
    assert rows[("onnx", "stages")] is None and "too short" in rows[("executorch", "stages")]
    assert "takes it" in cli("doctor", "--model", "parcae-140m").out


@pytest.mark.parametrize("name", ["head8-rope", "mqa-qkbias"])
def test_shapes_that_the_kernels_do_not_take_are_exported_and_verified(
    cli: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    ran = cli("--model", SHAPES / name, "--quant", "fp32", "--loops", "2", "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    manifest = json.loads((Path(artifact["artifact"]) / "manifest.json").read_text(encoding="utf-8"))
    assert artifact["lowering"]["passed"] and set(manifest["geometry"]["head_size"].values()) == {16}


def test_a_rounded_position_table_exports_and_says_so(cli: Callable[..., Any], tmp_path: Path) -> None:
    ran = cli("--model", SHAPES / "bf16-freqs", "--quant", "fp32", "--loops", "2", "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    assert any("16-bit rounding" in note for note in ran.json["artifacts"][0]["notes"])


def test_a_model_without_a_loop_has_no_loop_count(cli: Callable[..., Any], tmp_path: Path, data: Path) -> None:
    ran = cli("--model", data / "gpt" / "tied", "--loops", "4", "--out", tmp_path)
    assert ran.code == 2 and "has no loop, so --loops 4 means nothing" in ran.line


# Each number draws a shape; most go to ONNX, the fastest to write, and none to ExecuTorch, the slowest.
@pytest.mark.parametrize(
    ("number", "target"),
    [
        *((number, "onnx") for number in (1, 8, 10, 13, 23, 31, 37, 44)),
        (7, "coreml"),
        (12, "coreml"),
    ],
)
def test_a_random_shape_is_verified_or_refused_by_name(number: int, target: str, tmp_path: Path) -> None:
    outcome = attempt(number, target, tmp_path)
    assert outcome.kind in ("verified", "refused"), outcome


def test_shapes_are_drawn_from_their_numbers_over_every_option() -> None:
    drawn = [drawn_values(number) for number in range(60)]
    assert drawn[7] == drawn_values(7)
    for key in ("injection_type", "norm_class_name", "mlp_class_name", "qk_bias", "tie_embeddings"):
        assert len({str(values.get(key)) for values in drawn}) > 1
    assert sum("n_layer" in values for values in drawn) == 12


@pytest.mark.acceptance
@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("number", range(60))
def test_sixty_random_shapes_on_every_target(number: int, target: str, tmp_path: Path) -> None:
    outcome = attempt(number, target, tmp_path)
    assert outcome.kind in ("verified", "refused"), outcome
