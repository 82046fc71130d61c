"""The formats a model leaves in. A new one is one file with one function, and one line here.

What writes a format is imported when it is asked for: ONNX Runtime and the like take seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slimfed.clients.export.formats.safetensors import save_slim
from slimfed.clients.export.manifest import Manifest
from slimfed.clients.export.model_card import card
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.export.source import Source

LOAD_SLIM = """
from slimfed.clients.export import load_slim

slim = load_slim("FOLDER")
slim.model, slim.tokenizer
"""
_PEFT = """
from peft import PeftModel
from transformers import AutoModelFor{auto}

base = AutoModelFor{auto}.from_pretrained("{base}"{labels})
model = PeftModel.from_pretrained(base, "FOLDER")  # the tuned model, nothing cut
"""
_ONNX = """
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
"""
_GGUF = """
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER", gguf_file="model.gguf")  # or llama.cpp
"""


@dataclass(frozen=True)
class Format:
    """``write(source, folder)`` makes the folder, complete or not at all; it raises ``InputError`` if it cannot.

    ``save(model, folder, card)`` is the same for a model that has been put together; None if the format needs more.
    """

    summary: str
    write: Callable[[Source, Path], Manifest]
    save: Callable[[SlimModel, Path, str], Manifest] | None


def _onnx(slim: SlimModel, folder: Path, text: str) -> Manifest:
    from slimfed.clients.export.formats.onnx import save_onnx

    return save_onnx(slim, folder, text)


def _int8(slim: SlimModel, folder: Path, text: str) -> Manifest:
    from slimfed.clients.export.formats.onnx_int8 import save_int8

    return save_int8(slim, folder, text)


def _gguf(slim: SlimModel, folder: Path, text: str) -> Manifest:
    from slimfed.clients.export.formats.gguf import save_gguf

    return save_gguf(slim, folder, text)


def _write_peft(source: Source, folder: Path) -> Manifest:
    from slimfed.clients.export.formats.peft import save_peft

    classifies = source.spec.task == "classification"
    opening = _PEFT.format(
        auto="SequenceClassification" if classifies else "CausalLM",
        base=source.spec.path,
        labels=f", num_labels={len(source.base.labels or ())}" if classifies else "",
    )
    return save_peft(source, folder, card(source.manifest.model_copy(update={"kind": "peft"}), source.figures, opening))


def _whole(summary: str, kind: str, opening: str, save: Callable[[SlimModel, Path, str], Manifest]) -> Format:
    """A format that holds the whole model."""

    def write(source: Source, folder: Path) -> Manifest:
        manifest = source.manifest.model_copy(update={"kind": kind})
        return save(source.slim(), folder, card(manifest, source.figures, opening))

    return Format(summary, write, save)


FORMATS: dict[str, Format] = {
    "safetensors": _whole("the smaller weights, opened by load_slim", "safetensors", LOAD_SLIM, save_slim),
    "peft": Format("the adapter alone, for the unpruned base", _write_peft, None),
    "onnx": _whole("a graph for ONNX Runtime; decoders with their cache", "onnx", _ONNX, _onnx),
    "onnx-int8": _whole("the same with int8 weights", "onnx", _ONNX, _int8),
    "gguf": _whole("for llama.cpp: uniform Llama-like decoders", "gguf", _GGUF, _gguf),
}
