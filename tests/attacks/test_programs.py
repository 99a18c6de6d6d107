"""ExecuTorch programs that were cut off or overwritten: refused by their header before native code sees them.

A small program with a delegate and a constant is cut at each 64 bytes; the runtime's own check, where one is needed
after ours, is asked in a process of its own.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.targets.executorch.file import PteFile
from export.targets.executorch.host import HEADER, HEADER_AT, load_module
from parcae_mobile.errors import InputError

STEP = 64


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A linear layer of XNNPACK's and a sum of the portable kernels', with segments."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(16, 16)
            self.table = torch.nn.Parameter(torch.ones(64, 16))

        def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + self.table[rows]

    inputs = (torch.ones(2, 16), torch.tensor([0, 1]))
    edge = to_edge_transform_and_lower(torch.export.export(Small(), inputs), partitioner=[XnnpackPartitioner()])
    return bytes(edge.to_executorch(ExecutorchBackendConfig(external_constants=False)).buffer)


def test_the_whole_program_is_read(program: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(program)
    assert "forward" in PteFile(program).methods and "forward" in load_module(tmp_path / "model.pte").method_names()


def test_a_program_that_is_cut_anywhere_is_refused_by_its_header(program: bytes, tmp_path: Path) -> None:
    path, lengths = tmp_path / "model.pte", range(0, len(program) - 1, STEP)
    assert len(lengths) > 50
    for length in lengths:
        path.write_bytes(program[:length])
        for read in (lambda: PteFile(path.read_bytes()), lambda: load_module(path)):
            with pytest.raises(InputError, match="ExecuTorch") as caught:
                read()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", range(1, 5))
@pytest.mark.parametrize("value", [0, 7, 2**32 - 1])
def test_a_header_that_lies_is_refused(program: bytes, field: int, value: int) -> None:
    values = list(HEADER.unpack_from(program, HEADER_AT))
    values[field] = value if field == 1 or value < 2**31 else 2**63
    damaged = bytearray(program)
    HEADER.pack_into(damaged, HEADER_AT, *values)
    if (field, value) == (1, 2**32 - 1) or (field == 4 and value < 2**31):
        return  # a longer header, or segments that are said to be short: what they hold is checked where it is read
    with pytest.raises(InputError):
        PteFile(bytes(damaged))


@pytest.mark.parametrize("seed", range(3))
def test_overwritten_bytes_end_in_one_line_or_change_nothing(program: bytes, seed: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(seed)
    damaged = bytearray(program)
    _, _, size, _, _ = HEADER.unpack_from(program, HEADER_AT)
    for place in torch.randint(HEADER_AT + HEADER.size, size, (40,), generator=generator).tolist():
        damaged[place] = 255 - damaged[place]
    try:
        PteFile(bytes(damaged))
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.acceptance
def test_a_root_that_leads_outside_ends_the_command_with_one_line(program: bytes, tmp_path: Path) -> None:
    """The flatbuffer's root offset points beyond the program: whatever native code does, the parent has a line."""
    damaged = bytearray(program)
    struct.pack_into("<I", damaged, 0, 2**31 - 8)
    path = tmp_path / "model.pte"
    path.write_bytes(damaged)
    code = "import sys; from pathlib import Path; from export.targets.executorch.host import load_module\n"
    code += "from parcae_mobile.errors import ParcaeError\n"
    code += "try: load_module(Path(sys.argv[1]))\nexcept ParcaeError as error: print('refused', error)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "refused" in done.stdout, (done.returncode, done.stderr[-300:])
