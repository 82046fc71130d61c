"""Finding the prunable structure of a model."""

from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.errors import InputError
from slimfed.clients.models.families import FAMILIES, REFUSED, Family
from slimfed.clients.models.linear import is_linear, shape_of
from slimfed.clients.structure import Block, Blueprint, Cut, Kind

Side = Literal["out", "in"]


def discover(model: PreTrainedModel) -> Blueprint:
    """The blueprint of an unpruned model, with full module names (head and prefix included).

    Raises ``InputError`` that names the first module of unknown structure.
    """
    kind = model.config.model_type
    if kind in REFUSED:
        raise InputError(
            f"model.path: a model of type {kind!r} ({type(model).__name__}) cannot be pruned: {REFUSED[kind]}; use a "
            "type that `slimfed families` lists"
        )
    if kind not in FAMILIES:
        odd = next((name for name, module in model.named_modules() if is_linear(module)), "none")
        raise InputError(
            f"model.path: the structure of model type {kind!r} ({type(model).__name__}, first linear module {odd}) "
            f"is not understood; valid: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[kind]
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    reader = _Reader(model, family, prefix)
    count = len(list(reader.submodule(family.layers).children()))
    blocks = [block for layer in range(count) for block in (reader.attention(layer), reader.ffn(layer))]
    return Blueprint(kind, tuple(blocks))


class _Reader:
    """Reads blocks from the shapes of the weights, not from the configuration."""

    def __init__(self, model: PreTrainedModel, family: Family, prefix: str) -> None:
        self.model = model
        self.family = family
        self.prefix = prefix

    def submodule(self, path: str) -> nn.Module:
        name = self.prefix + path
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            raise InputError(
                f"model.path: {type(self.model).__name__} has no module {name}, which every "
                f"{self.model.config.model_type} model should have"
            ) from None

    def attention(self, layer: int) -> Block:
        family, config = self.family, self.model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        names = {role: self._name(layer, getattr(family, role)) for role in ("query", "key", "value", "output")}
        outputs = {role: self._shape(name)[0] for role, name in names.items() if role != "output"}
        if family.fused:
            self._fits(names["query"], "out", 3 * head_dim)
            outputs = dict.fromkeys(outputs, outputs["query"] // 3)
        else:
            self._fits(names["key"], "out", head_dim)
            self._fits(names["query"], "out", outputs["key"])
            self._equals(names["value"], "out", outputs["key"])
        self._equals(names["output"], "in", outputs["query"])
        units = outputs["key"] // head_dim
        width = outputs["query"] // units
        if family.fused:
            starts = tuple(i * outputs["query"] for i in range(3))
            cuts = [Cut(names["query"], "out", width, starts)]
        else:
            cuts = [Cut(names["query"], "out", width), *(Cut(names[r], "out", head_dim) for r in ("key", "value"))]
        cuts.append(Cut(names["output"], "in", width))
        return self._block(f"{self.prefix}{family.layers}.{layer}.attention", layer, "attention", units, cuts)

    def ffn(self, layer: int) -> Block:
        down = self._name(layer, self.family.down)
        channels = self._shape(down)[1]
        ups = [self._name(layer, up) for up in self.family.up]
        for up in ups:
            self._equals(up, "out", channels * self.family.up_parts)
        starts = tuple(part * channels for part in range(self.family.up_parts))
        cuts = [*(Cut(up, "out", 1, starts) for up in ups), Cut(down, "in", 1)]
        return self._block(f"{self.prefix}{self.family.layers}.{layer}.ffn", layer, "ffn", channels, cuts)

    def _block(self, name: str, layer: int, kind: Kind, units: int, cuts: list[Cut]) -> Block:
        parameters = sum(self._unit_parameters(cut) for cut in cuts)
        return Block(name, layer, kind, units, parameters, tuple(cuts))

    def _unit_parameters(self, cut: Cut) -> int:
        """Weights (and biases, on the output side) of one unit of a cut."""
        rows, columns = self._shape(cut.module)
        bias = getattr(self.model.get_submodule(cut.module), "bias", None) is not None
        across = columns + bias if cut.side == "out" else rows
        return cut.width * len(cut.starts) * across

    def _name(self, layer: int, path: str) -> str:
        name = f"{self.family.layers}.{layer}.{path}"
        module = self.submodule(name)
        if not is_linear(module):
            raise InputError(f"model.path: {self.prefix}{name} is a {type(module).__name__}, expected a linear module")
        return self.prefix + name

    def _shape(self, name: str) -> tuple[int, int]:
        """(out, in) of a linear module."""
        module = self.model.get_submodule(name)
        if module.weight.dim() != 2:
            raise InputError(f"model.path: {name} has a weight of shape {list(module.weight.shape)}; valid: [out, in]")
        return shape_of(module)

    def _fits(self, name: str, side: Side, part: int) -> None:
        if self._size(name, side) == 0 or self._size(name, side) % part:
            raise self._odd(name, side, f"a multiple of {part}")

    def _equals(self, name: str, side: Side, expected: int) -> None:
        if self._size(name, side) != expected:
            raise self._odd(name, side, str(expected))

    def _size(self, name: str, side: Side) -> int:
        return self._shape(name)[0 if side == "out" else 1]

    def _odd(self, name: str, side: Side, expected: str) -> InputError:
        rows, columns = self._shape(name)
        what = "outputs" if side == "out" else "inputs"
        return InputError(
            f"model.path: {name} of this {self.model.config.model_type} model has shape [out {rows}, in {columns}]; "
            f"valid: {what} = {expected}, to fit its block"
        )
