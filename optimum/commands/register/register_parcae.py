"""Found by `optimum-cli` in its namespace of registrations: lets `optimum-cli export onnx` take Parcae checkpoints.

No command is added. The exporter's own command is wrapped, so that nothing heavy is imported before it runs.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from optimum.commands.export.onnx import ONNXExportCommand

from parcae_mobile.errors import ParcaeError

REGISTER_COMMANDS: list[Any] = []
_run = ONNXExportCommand.run


@functools.wraps(_run)
def run(self: Any) -> None:
    """Register Parcae, then run Optimum's command; errors of ours are one line and an exit code."""
    try:
        from export.optimum_plugin import prepared

        with prepared(self.args):
            _run(self)
    except ParcaeError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


ONNXExportCommand.run = run
