"""The protobuf schema of Core ML models: the one thing the interpreter takes from coremltools.

`import coremltools` costs several seconds and prints a page of warnings on Linux. The generated schema modules stand on
their own, so where coremltools is not loaded already they are loaded alone, under a private package name.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from parcae_mobile.errors import ToolMissingError

PRIVATE_PACKAGE = "_coreml_schema"


@functools.cache
def model_message() -> Any:
    """The message class `CoreML.Specification.Model`. Raises ToolMissingError without the extra `coreml`."""
    if "coremltools.proto.Model_pb2" in sys.modules:
        return sys.modules["coremltools.proto.Model_pb2"].Model
    package = importlib.util.find_spec("coremltools")
    if package is None or not package.submodule_search_locations:
        raise ToolMissingError(
            "reading an .mlpackage needs the Core ML protobuf schema: pip install 'parcae-mobile[coreml]'"
        )
    folder = Path(package.submodule_search_locations[0]) / "proto"
    return _load_alone(folder).Model_pb2.Model


def _load_alone(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        PRIVATE_PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "Model_pb2.py").is_file():
        raise ToolMissingError(
            f"this coremltools has no protobuf schema in {folder.name}/: pip install 'coremltools==9.0'"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE_PACKAGE] = module
    spec.loader.exec_module(module)
    return module
