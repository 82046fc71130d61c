"""The types that the weights of an exported model are written in."""

from collections.abc import Sequence

from slimfed.clients.errors import InputError

PRECISIONS = ("fp32", "bf16", "fp16")
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a weight."""
QUANTIZATIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "q8_0": "q8_0", "q4_0": "q4_0", "q4_k_m": "q4_k_m"}
"""By llama.cpp's name (``--quantization``): the name in a manifest."""


def chosen_weights(
    format: str, valid: Sequence[str], base: str, dtype: str | None = None, quantization: str | None = None
) -> str:
    """The type of the weights: as ``--dtype`` or ``--quantization`` says, else that of the ``base``.

    ``valid``: those that the format called ``format`` has. Raises :class:`InputError` for another one.
    """
    if dtype is not None and quantization is not None:
        raise InputError("--dtype and --quantization: give one of them")
    if dtype is None and quantization is None:
        return base if base in valid else valid[0]
    option, given = ("--dtype", dtype) if quantization is None else ("--quantization", quantization.lower())
    names = {name: name for name in PRECISIONS} if quantization is None else QUANTIZATIONS
    able = [name for name, weights in names.items() if weights in valid]
    if quantization is not None and not any(weights in valid for weights in ("q8_0", "q4_k_m")):
        raise InputError(f"--quantization = {quantization!r}: is for --format gguf, not {format}")
    if names.get(str(given)) not in valid:
        raise InputError(f"{option} = {given!r}: --format {format} has {', '.join(able)}")
    return names[str(given)]
