"""The `.mlpackage` folder: Manifest.json, the model specification, and the weight files that it names.

NAME.mlpackage/Manifest.json                            identifiers -> paths under Data/, and which one is the model
NAME.mlpackage/Data/com.apple.CoreML/model.mlmodel      protobuf: interface and program
NAME.mlpackage/Data/com.apple.CoreML/weights/weight.bin the constants
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.targets.coreml.mil.errors import BlobError, PackageError
from export.targets.coreml.mil.files.blob import BlobFile
from export.targets.coreml.mil.files.schema import model_message
from parcae_mobile.given_file import read_bytes
from parcae_mobile.json_file import parse

MOST_MANIFEST, MOST_PROGRAM = 1_000_000, 256_000_000  # bytes; weights lie in files of their own
MODEL_PATH = "@model_path/"


class Package:
    """An opened package: `spec` is the protobuf `Model`; weight files are opened when first read.

    Raises PackageError where the folder, its manifest or the specification is unreadable or not an ML Program.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.model_path = self._find_model()
        self.spec = self._parse()
        self._blob_files: dict[str, BlobFile] = {}

    def blob_file(self, name: str) -> BlobFile:
        """The weight file that a program calls `name` ("@model_path/weights/weight.bin"). Raises BlobError."""
        if name not in self._blob_files:
            if not name.startswith(MODEL_PATH):
                raise BlobError(f"{self.name}: weight file '{name}' does not begin with {MODEL_PATH}")
            folder = self.model_path.parent.resolve()
            try:
                path = (folder / name.removeprefix(MODEL_PATH)).resolve()
                exists = path.is_file()
            except (OSError, ValueError, RuntimeError):
                raise BlobError(f"{self.name}: weight file '{name[:200]}' is no name of a file") from None
            if not path.is_relative_to(folder):
                raise BlobError(f"{self.name}: weight file '{name}' lies outside of the package")
            if not exists:
                raise BlobError(f"{self.name}: weight file {name.removeprefix(MODEL_PATH)} is missing")
            self._blob_files[name] = BlobFile(path)
        return self._blob_files[name]

    def rest(self) -> None:
        """Give back the memory of weight files that were read."""
        for file in self._blob_files.values():
            file.rest()

    def _find_model(self) -> Path:
        manifest_path = self.path / "Manifest.json"
        if not manifest_path.is_file():
            raise PackageError(f"{self.name}: no Manifest.json in it; give the .mlpackage folder itself")
        try:
            manifest: Any = parse(read_bytes(manifest_path, PackageError, MOST_MANIFEST).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise PackageError(f"{self.name}: Manifest.json is not valid JSON ({error})") from error
        try:
            relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        except (LookupError, TypeError) as error:
            raise PackageError(f"{self.name}: Manifest.json names no root model (no {error})") from error
        data = (self.path / "Data").resolve()
        if not data.is_relative_to(self.path.resolve()):
            raise PackageError(f"{self.name}: its folder Data lies outside of the package")
        try:
            model = (data / str(relative)).resolve()
            exists = model.is_file()
        except (OSError, ValueError, RuntimeError):  # a zero byte, a name that is too long, links in a circle
            raise PackageError(f"{self.name}: Manifest.json names no file as its model") from None
        if not model.is_relative_to(data):
            raise PackageError(f"{self.name}: Manifest.json names a model outside of the package: {relative}")
        if not exists:
            raise PackageError(f"{self.name}: the model {relative} that Manifest.json names is missing")
        return model

    def _parse(self) -> Any:
        from google.protobuf.message import DecodeError

        spec = model_message()()
        try:
            spec.ParseFromString(read_bytes(self.model_path, PackageError, MOST_PROGRAM))
        except DecodeError as error:
            raise PackageError(f"{self.name}: {self.model_path.name} is no Core ML specification ({error})") from error
        kind = spec.WhichOneof("Type")
        if kind != "mlProgram":
            raise PackageError(f"{self.name}: the model is of type {kind}, only an ML Program can be executed")
        return spec
