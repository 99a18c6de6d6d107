"""How an artifact is run in each client that takes its form: lines of code for the page and the model card.

for client in clients(manifest): print(client.name, client.code)
"""

from __future__ import annotations

from dataclasses import dataclass

from parcae_mobile.manifest import Manifest


@dataclass(frozen=True)
class Client:
    """A program that runs the artifact as it is; `code` is Python unless `language` says otherwise."""

    name: str
    code: str
    language: str = "python"
    note: str = ""


def clients(manifest: Manifest) -> list[Client]:
    """The clients of an artifact, its own command first."""
    loops = min(manifest.trained_loops, manifest.max_loops) if manifest.loops == "dynamic" else manifest.loops
    own = [
        Client("parcae-export", f"parcae-export verify {manifest.artifact}", "sh", "files, poles and self-test"),
        Client("parcae-export", f'parcae-export generate {manifest.artifact} --loops {loops} --prompt "import "', "sh"),
    ]
    theirs = _BY_TARGET.get(manifest.target)
    return own if theirs is None else own + theirs(manifest)


def _onnx(manifest: Manifest) -> list[Client]:
    if manifest.loop_form != "unrolled":
        code = (
            "from pathlib import Path\n\n"
            "from export.targets.registry import find_target, load_host\n"
            "from parcae_mobile.manifest import read_manifest\n\n"
            f'folder = Path("{manifest.artifact}")\n'
            'host = load_host(find_target("onnx"))(folder, read_manifest(folder), 1)\n'
            f"logits = host.run([1, 2, 3], loops={min(manifest.trained_loops, manifest.max_loops)})"
        )
        return [Client("Python host", code, note="docs/onnx.md describes the loop for hosts in other languages")]
    optimum = (
        "from optimum.onnxruntime import ORTModelForCausalLM\n\n"
        f'model = ORTModelForCausalLM.from_pretrained("{manifest.artifact}", use_cache=True)'
    )
    genai = (
        f'import onnxruntime_genai as og\n\nmodel = og.Model("{manifest.artifact}")\ntokenizer = og.Tokenizer(model)'
    )
    return [Client("Optimum", optimum), Client("onnxruntime-genai", genai)]


def _executorch(manifest: Manifest) -> list[Client]:
    if manifest.loop_form != "unrolled":
        return [
            Client(
                "ExecuTorch runtime",
                "from executorch.runtime import Runtime\n\n"
                f'program = Runtime.get().load_program("{manifest.artifact}/model.pte")\n'
                "print(program.method_names)",
                note="docs/executorch.md describes the loop over prelude, recur and coda",
            )
        ]
    code = (
        "python -m export.targets.executorch.runner "
        f'{manifest.artifact}/model.pte {manifest.artifact}/tokenizer.json "import" --tokens 64'
    )
    return [Client("TextLLMRunner (stock)", code, "sh")]


def _coreml(manifest: Manifest) -> list[Client]:
    function = "" if manifest.loop_form != "stages" else ', function_name="prelude"'
    code = (
        "import coremltools as ct\n\n"
        f'model = ct.models.MLModel("{manifest.artifact}/model.mlpackage"{function})\n'
        "state = model.make_state()"
    )
    return [Client("Core ML, macOS 15 or iOS 18", code, note="not run on Linux: the MIL interpreter is used there")]


_BY_TARGET = {"onnx": _onnx, "executorch": _executorch, "coreml": _coreml}
