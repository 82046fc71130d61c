"""The tensors of a GGUF file in the type that is asked for, by llama.cpp's own quantiser.

The bindings of llama.cpp (``xllamacpp``) carry its functions for rows of numbers, but not the one for whole files. So
which tensor gets which type is repeated here, from ``llama_tensor_get_type`` in llama.cpp's ``llama-quant.cpp``.
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from slimfed.clients.errors import InputError

FILE_TYPES = {
    "fp32": gguf.LlamaFileType.ALL_F32,
    "fp16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
_PLAIN = {"fp32": Kind.F32, "fp16": Kind.F16, "bf16": Kind.BF16}
_BLOCK, _SUPER_BLOCK = 32, 256
_LARGEST_FP16 = 65504.0


def add_tensor(writer: gguf.GGUFWriter, name: str, value: np.ndarray, weights: str, layers: int, tied: bool) -> None:
    """Add float32 ``value`` under ``name``; vectors stay in float32. ``tied``: the file has no output embedding.

    Raises ``InputError`` if a weight is too large for float16.
    """
    kind = Kind.F32 if value.ndim < 2 else kind_of(name, value.shape[-1], weights, layers, tied)
    if kind == Kind.F16 and float(np.abs(value).max(initial=0.0)) > _LARGEST_FP16:
        raise InputError(f"--dtype = 'fp16': tensor {name} has weights beyond {_LARGEST_FP16:g}; use bf16 or fp32")
    if kind in (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0):
        writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, _quantised(value, kind), raw_dtype=kind)


def kind_of(name: str, width: int, weights: str, layers: int, tied: bool) -> Kind:
    """The type of a matrix with rows of ``width``."""
    if weights in _PLAIN:
        return _PLAIN[weights]
    if weights == "q8_0":
        return Kind.Q8_0 if width % _BLOCK == 0 else Kind.F16
    if weights == "q4_0" and not _is_output(name, tied):
        return Kind.Q4_0 if width % _BLOCK == 0 else Kind.F16
    kind = Kind.Q6_K if _is_fine(name, layers, tied) else Kind.Q4_K
    if width % _SUPER_BLOCK == 0:
        return kind
    if width % _BLOCK:
        return Kind.F16
    return Kind.Q8_0 if kind == Kind.Q6_K else Kind.Q5_0


def row_bytes(name: str, width: int, weights: str) -> int:
    """Bytes of a row of ``width`` of a matrix that is no part of a layer."""
    block, size = gguf.GGML_QUANT_SIZES[kind_of(name, width, weights, 0, tied=False)]
    return width // block * size


def _is_fine(name: str, layers: int, tied: bool) -> bool:
    """True for what Q4_K_M keeps in 6 bits: the output embedding, and values and down projections of some layers."""
    if _is_output(name, tied):
        return True
    if not name.endswith(("attn_v.weight", "ffn_down.weight")):
        return False
    layer = int(name.split(".")[1])
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _is_output(name: str, tied: bool) -> bool:
    return name == ("token_embd.weight" if tied else "output.weight")


def _quantised(value: np.ndarray, kind: Kind) -> np.ndarray:
    """The bytes of the rows of ``value`` [..., width], uint8 [..., bytes of a row]."""
    rows = np.ascontiguousarray(value, dtype=np.float32)
    width = rows.shape[-1]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((*rows.shape[:-1], width // block * size), dtype=np.uint8)
    count = rows.size // width
    pointers = (rows.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
    written = _ggml().ggml_quantize_chunk(int(kind), *pointers, 0, count, width, None)
    if written != out.nbytes:
        raise RuntimeError(f"llama.cpp wrote {written} bytes of {kind.name}, {out.nbytes} were expected")
    return out


@cache
def _ggml() -> ctypes.CDLL:
    """llama.cpp's library. Raises ``InputError`` if it is not installed."""
    spec = find_spec("xllamacpp")
    folder = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec is not None else None
    library = None if folder is None else next(iter(sorted(folder.glob("xllamacpp*.so"))), None)
    if library is None:
        raise InputError(
            "--quantization = 'q4_0', 'q4_k_m': are written by llama.cpp's own functions: pip install "
            "'slimfed[llama-cpp]', or export f16 or q8_0"
        )
    loaded = ctypes.CDLL(str(library))
    quantize = loaded.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return loaded
