"""Dynamic int8 quantisation of an ONNX graph: weights as int8, activations quantised as they come (ONNX Runtime)."""

import logging
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.atomic_folder import whole_folder
from slimfed.clients.export.files.onnx import GRAPH, write_graph
from slimfed.clients.export.manifest import CARD, Manifest
from slimfed.clients.export.slim_model import SlimModel

_FULL = "full.onnx"


def save_int8(slim: SlimModel, folder: Path, card: str) -> Manifest:
    """Write ``folder`` as :func:`save_onnx` does, with int8 weights (a scale for every output channel)."""
    with whole_folder(folder) as aside:
        write_graph(slim, aside / _FULL)
        _quantise(aside / _FULL, aside / GRAPH)
        (aside / _FULL).unlink()
        slim.model.config.save_pretrained(aside)
        slim.tokenizer.save_pretrained(aside)
        (aside / CARD).write_text(card, encoding="utf-8")
        return manifests.write(aside, slim.manifest.model_copy(update={"kind": "onnx", "quantised": "int8"}))


def _quantise(source: Path, target: Path) -> None:
    """Weights take 7 bits: with 8, processors with AVX2 but without VNNI saturate sums of products (ONNX Runtime)."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends a pre-processing that shapes which are free do not allow
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        logger.setLevel(level)
