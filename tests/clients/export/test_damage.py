"""A folder of any format is refused by the name of what is changed, missing or of another shape."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
import torch
from byte_level import byte_level
from exported import save_base, source, uniform_structure
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from small_models import build

from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import NAME
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.models.discovery import discover

FILES = {
    "safetensors": "model.safetensors",
    "peft": "adapter_model.safetensors",
    "onnx": "model.onnx",
    "onnx-int8": "model.onnx",
    "gguf": "model.gguf",
}


def exported(format: str, folder: Path) -> Path:
    """A folder of a format, and where its base is, if it needs one."""
    causal = format == "gguf"
    family = "llama" if causal else "bert"
    structure = uniform_structure(discover(build(family, causal)), 2, 24) if causal else None
    # llama.cpp reads no tokenizer of whole words.
    origin = source(family, causal, structure=structure, words=byte_level("llama-bpe") if causal else None)
    FORMATS[format].write(origin, folder)
    if format == "peft":
        save_base(origin, folder.parent / "base")
    return folder


def reopened(folder: Path) -> None:
    base = folder.parent / "base"
    open_model(folder, base=base if base.exists() else None)


def admit(folder: Path, file: str) -> None:
    """Take a file's hash out of the manifest, as if whoever changed the file had done so."""
    document = json.loads((folder / NAME).read_text())
    del document["files"][file]
    (folder / NAME).write_text(json.dumps(document))


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_changed_or_gone_is_named(format: str, tmp_path: Path) -> None:
    folder, file = exported(format, tmp_path / "out"), FILES[format]
    reopened(folder)
    (folder / file).write_bytes((folder / file).read_bytes() + b"x")
    with pytest.raises(InputError, match=f"{file} is not what was exported"):
        reopened(folder)
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"{file} is missing"):
        reopened(folder)


LORA = "base_model.model.bert.encoder.layer.1.output.dense.lora_B.weight"
HEAD = "base_model.model.classifier.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(LORA), rf"tensor {LORA} is missing"),
        (lambda t: t.pop(HEAD), rf"tensor {HEAD} is missing"),
        (lambda t: t.update({LORA: torch.ones(47, 4)}), rf"tensor {LORA} has shape \[47, 4\], the base wants \[48, "),
        (lambda t: t.update({HEAD: torch.ones(3, 48)}), rf"tensor {HEAD} has shape \[3, 48\], the base wants \[2, "),
        (lambda t: t.update(extra=torch.ones(1)), "tensor extra does not belong"),
    ],
)
def test_a_tensor_of_an_adapter_is_named(
    change: Callable[[dict[str, torch.Tensor]], object], words: str, tmp_path: Path
) -> None:
    folder = exported("peft", tmp_path / "out")
    tensors = load_file(folder / FILES["peft"])
    change(tensors)
    save_file(tensors, folder / FILES["peft"], metadata={"format": "pt"})
    admit(folder, FILES["peft"])
    with pytest.raises(InputError, match=words):
        reopened(folder)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, r"tensor model\.layers\.1\.mlp\.up_proj\.weight is missing"),
        (np.ones((23, 48), np.float32), r"\[23, 48\]"),
    ],
)
def test_a_tensor_of_a_gguf_file_is_named(
    value: np.ndarray | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf.GGUFWriter.add_tensor

    def spoilt(self: gguf.GGUFWriter, name: str, tensor: np.ndarray, **options: object) -> None:
        tensor = value if name == "blk.1.ffn_up.weight" else tensor
        if tensor is not None:
            add(self, name, tensor, **options)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", spoilt)
    with pytest.raises(InputError, match=words):
        reopened(exported("gguf", tmp_path / "out"))


@pytest.mark.parametrize("shape", [None, (5,)])
def test_a_tensor_of_a_graph_is_named(shape: tuple[int, ...] | None, tmp_path: Path) -> None:
    folder = exported("onnx", tmp_path / "out")
    graph = onnx.load(folder / FILES["onnx"])
    kept = graph.graph.initializer
    spoilt = next(each for each in kept if each.name.endswith("classifier.bias") or each.name.endswith("head.1.bias"))
    name = "head.1" if shape else spoilt.name  # of a shape that does not fit, the runtime names the node
    if shape is None:
        kept.remove(spoilt)
    else:
        spoilt.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), spoilt.name))
    onnx.save(graph, folder / FILES["onnx"])
    admit(folder, FILES["onnx"])
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        reopened(folder)
