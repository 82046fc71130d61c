"""Pruning-aware tuning: modules that learn to do without a part of the hidden width, which is then cut away."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.adapted import AdaptedModel
from slimfed.clients.adapters.base import Companion
from slimfed.clients.adapters.lora import Lora
from slimfed.clients.adapters.merging import fold
from slimfed.clients.adapters.protocols import Adapted
from slimfed.clients.adapters.residual_stream import Stream, find_stream
from slimfed.clients.errors import InputError
from slimfed.clients.models.cost import AdapterLoad, Dimensions, low_rank_load
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.seeds import derive
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Update

# From this share of the run on the mask is hard, as in the paper; exact as a float32, which carries it.
_DECIDED = float(np.float32(0.8))
_BOTTLENECK = 1 / 20  # the paper's 200 of 4096
_LARGEST_ARGUMENT = 10.0
_EMBEDDING = "embedding"
_MASK = "slimfed_width"
_FINE = 1_000_000  # steps of a run when only its progress is known

Extra = Mapping[str, nn.Parameter]


class Pat(Lora):
    """LoRA, and hybrid sparsification modules on the residual stream (Liu et al., arXiv 2408.14721).

    Behind the embedding and every module that writes into the stream, with the stream's width d and a bottleneck e::

        HSM(x) = v * m * (x + W2 W1 x)        W1 [e, d], W2 [d, e], v [d]
        m = sigmoid(tau z) + bias             z [d], shared by all of them; tau grows and bias falls with the steps

    Norms that take a mean over the width (LayerNorm) weigh it by m, so that they become those of the narrow model;
    RMSNorm is corrected when it is cut. At 0.8 of the run the server decides once: the k largest of the fleet's mean z
    are kept, and m is 0 or 1 from then on. :func:`cut` takes the other d - k out of every weight, exactly.

    Ours: the paper's loss on the number of z >= 0 moves all of z in step, and Adam makes that drown their differences.
    Here the k largest are drawn to 1/2 and the others to -1/2, harder as the run goes on: the number is then right by
    construction, and the task decides which. The identity loss, mean (W1 W1^T - I)^2, is summed over all modules.
    """

    def check(self, model: PreTrainedModel, blueprint: Blueprint) -> None:
        """The width of most models can be cut; ``InputError`` for the others."""
        find_stream(model, blueprint)

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """W1 as PEFT draws A, W2 zero, v one, z zero: a model that says what it said."""
        writers = [block.cuts[-1].module for block in blueprint.blocks]
        width = len(adapter.factors[writers[0]].b)
        inner, bound = max(4, round(width * _BOTTLENECK)), 1 / math.sqrt(width)
        extra = {"z": np.zeros(width, np.float32), "progress": np.zeros(1, np.float32)}
        for place in (_EMBEDDING, *writers):
            draw = np.random.default_rng(derive(seed, "pat", place))
            extra[f"{place}/down"] = draw.uniform(-bound, bound, (inner, width)).astype(np.float32)
            extra[f"{place}/up"] = np.zeros((width, inner), np.float32)
            extra[f"{place}/scale"] = np.ones(width, np.float32)
        return replace(adapter, extra=extra)

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: TaskSpec, rank: int, round: int
    ) -> Adapter:
        """How far the run is; and once it is far enough, which k dimensions are kept: z is 1 there, else -1.

        A short run counts as far enough before its last round, so that devices measure what they will be left with.
        """
        rounds = task.training.rounds
        progress = max(round / rounds, _DECIDED if round >= rounds - 1 else 0.0)
        z = after.extra["z"]
        if before.extra["progress"][0] >= _DECIDED:
            z = before.extra["z"]
        elif np.float32(progress) >= _DECIDED:
            kept = np.argsort(-z, kind="stable")[: kept_width(len(z), task.adapter.target_sparsity)]
            z = np.full(len(z), -1.0, np.float32)
            z[kept] = 1.0
        return replace(after, extra=after.extra | {"z": z, "progress": np.array([progress], np.float32)})

    def prunes(self, adapter: Adapter) -> bool:
        """Never heads and channels: the target sparsity is reached in the width."""
        return False

    def removed(self, adapter: Adapter, blueprint: Blueprint) -> float:
        """The share of the prunable parameters that goes with the width, once that is decided."""
        if adapter.extra["progress"][0] < _DECIDED:
            return 0.0
        weights = sum(len(f.b) * f.a.shape[1] for f in adapter.factors.values())
        return float((adapter.extra["z"] <= 0).mean()) * weights / float(blueprint.parameters.sum())

    def width(self, adapter: Adapter) -> list[int] | None:
        """What z > 0 keeps, once it is decided."""
        decided = adapter.extra["progress"][0] >= _DECIDED
        return np.flatnonzero(adapter.extra["z"] > 0).tolist() if decided else None

    def check_finished(self, adapter: Adapter) -> None:
        """While the mask is soft there is no plain model that says the same."""
        if self.width(adapter) is None:
            raise InputError(
                'method.adapter = "pat": the width is not decided yet, which happens at 80% of the rounds; '
                "let the run go on, then export"
            )

    def load(self, size: Dimensions, rank: int, sent: Adapter) -> AdapterLoad:
        """LoRA's, and two products with W1 and W2 at every place, forward and twice backward."""
        plain = low_rank_load(size, rank)
        numbers = sum(tensor.size for name, tensor in sent.extra.items() if name.endswith(("/down", "/up")))
        downs = [tensor for name, tensor in sent.extra.items() if name.endswith("/down")]
        trained = sum(tensor.size for tensor in sent.extra.values())
        kept = sum(inner + 2 * width for inner, width in (tensor.shape for tensor in downs))
        return AdapterLoad(plain.trained + trained, plain.token_flops + 3 * 2 * numbers, plain.activations + kept)

    def attach(self, model: PreTrainedModel, structure: Structure, adapter: Adapter, task: TaskSpec) -> AdaptedModel:
        """LoRA through PEFT, with the modules hooked behind it."""
        extra = {
            name: nn.Parameter(torch.from_numpy(value.copy()).to(model.device, model.dtype))
            for name, value in adapter.extra.items()
        }
        stream = find_stream(model, structure.blueprint)
        plain = super().attach(model, structure, adapter, task)
        _install(model, stream, extra, lead=False)
        return replace(plain, extra=extra, spares=self.undecayed)

    def install(self, base: PreTrainedModel, model: PreTrainedModel, blueprint: Blueprint, extra: Extra) -> None:
        """The same on a cohort's model."""
        _install(model, find_stream(base, blueprint), extra, lead=True)

    def undecayed(self, name: str) -> bool:
        """True for v, z and the progress, which is not trained at all."""
        return not name.endswith(("/down", "/up"))

    def companion(self, adapted: Adapted, task: TaskSpec, round: int, ranks: Sequence[int]) -> Companion:
        """The mask's course, and the losses on W1 and z."""
        mask = adapted.model.get_submodule(_MASK)
        assert isinstance(mask, Mask)
        return _Course(mask, adapted.extra, adapted.lead, task, round)

    def build(
        self, base: PreTrainedModel, structure: Structure, adapter: Adapter, spec: AdapterSpec
    ) -> PreTrainedModel:
        """The narrow model once the width is decided; until then, the wide one with its soft mask."""
        stream = find_stream(base, structure.blueprint)
        model = fold(slice_model(base, structure), adapter, spec.scaling)
        extra = {name: torch.from_numpy(value.copy()).to(model.device) for name, value in adapter.extra.items()}
        if adapter.extra["progress"][0] >= _DECIDED:
            return cut(model, stream, extra)
        _install(model, stream, {name: _frozen(value) for name, value in extra.items()}, lead=False)
        return model


class Mask(nn.Module):
    """m [devices, d] from z [devices, d]. Its buffers are written in place, so that steps can be recorded."""

    def __init__(self, z: Callable[[], torch.Tensor], hard: bool, device: torch.device) -> None:
        super().__init__()
        self.z = z
        self.hard = hard
        for name in ("tau", "bias", "pull"):
            self.register_buffer(name, torch.zeros((), device=device), persistent=False)

    def at(self, step: float, steps: int) -> None:
        """Move to ``step`` of the run's ``steps``: tau = 1 / (1 - ln t / ln T), bias = max(1/2 - t / T, 0)."""
        step, steps = min(step, _DECIDED * steps), max(steps, 2)
        self.get_buffer("tau").fill_(1 / (1 - math.log(max(step, 1.0)) / math.log(steps) + 1e-6))
        self.get_buffer("bias").fill_(max(0.5 - step / steps, 0.0))
        self.get_buffer("pull").fill_(step / (_DECIDED * steps))

    def forward(self) -> torch.Tensor:
        """Of the type of z."""
        z = self.z()
        if self.hard:
            return (z > 0).to(z.dtype)
        argument = (self.get_buffer("tau") * z).clamp(max=_LARGEST_ARGUMENT)
        return torch.sigmoid(argument) + self.get_buffer("bias")


@dataclass(frozen=True)
class _Course(Companion):
    """Moves the mask along, and adds the losses on z and W1."""

    mask: Mask
    extra: Extra
    lead: tuple[int, ...]
    task: TaskSpec
    round: int

    def begin(self, step: int) -> None:
        """Told before local step ``step``."""
        training = self.task.training
        done = (self.round - 1) * training.local_steps + step
        self.mask.at(done, training.rounds * training.local_steps)

    def penalty(self) -> torch.Tensor:
        """[*lead]: mean (W1 W1^T - I)^2 over all places, and how far z is from the side where it belongs."""
        loss = torch.stack([_identity(p) for name, p in self.extra.items() if name.endswith("/down")]).sum(0)
        if self.mask.hard:
            return loss
        z = self.extra["z"]
        kept = kept_width(z.shape[-1], self.task.adapter.target_sparsity)
        side = torch.full_like(z, -0.5).scatter(-1, z.detach().topk(kept, dim=-1).indices, 0.5)
        square = (z - side).square()
        above = torch.where(side > 0, square, 0.0).sum(-1) / kept
        below = torch.where(side < 0, square, 0.0).sum(-1) / max(z.shape[-1] - kept, 1)
        return loss + self.mask.get_buffer("pull") * (above + below)


def kept_width(width: int, sparsity: float) -> int:
    """k: the dimensions that are kept of ``width``; all weights of the blocks have the width on one side."""
    return max(1, round(width * (1 - sparsity)))


def cut(model: PreTrainedModel, stream: Stream, extra: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The model with the width that z > 0 keeps, in place; it says what the masked one says.

    M = diag(v) (I + W2 W1) goes into what writes, E <- E M^T and W <- M W, and then :func:`narrow_stream`.
    """
    with torch.no_grad():
        for name in stream.writers:
            _multiply(model.get_submodule(name), _through(extra, name))
        through = _through(extra, _EMBEDDING)
        for name in stream.tables:
            table: torch.Tensor = model.get_submodule(name).weight
            model.get_submodule(name).weight = _frozen(table @ through.T.to(table.dtype))
    return narrow_stream(model, stream, torch.nonzero(extra["z"] > 0).reshape(-1))


def narrow_stream(model: PreTrainedModel, stream: Stream, kept: torch.Tensor) -> PreTrainedModel:
    """Keep the dimensions ``kept`` of the stream, in place: outputs of what writes, inputs of what reads, and norms.

    RMSNorm took its mean over d and takes it over k: weight * sqrt(d / k), eps * d / k. Embedding and unembedding are
    no longer tied.
    """
    ratio = stream.width / len(kept)
    with torch.no_grad():
        for name in stream.readers:
            _put_linear(model.get_submodule(name), None, kept)
        for name in stream.writers:
            _put_linear(model.get_submodule(name), kept, None)
        for name in stream.tables:
            table = model.get_submodule(name)
            table.weight = _frozen(table.weight[:, kept])
            table.embedding_dim = len(kept)
        for name in (*stream.norms, *stream.rms):
            norm = model.get_submodule(name)
            scale = 1.0 if name in stream.norms else math.sqrt(ratio)
            norm.weight = _frozen(norm.weight[kept] * scale)
            if name in stream.rms:
                norm.variance_epsilon = norm.variance_epsilon * ratio
            else:
                norm.normalized_shape = (len(kept),)
                norm.bias = None if norm.bias is None else _frozen(norm.bias[kept])
    return model


def _through(extra: Mapping[str, torch.Tensor], place: str) -> torch.Tensor:
    """M = diag(v) (I + W2 W1), [d, d]."""
    down, up, scale = (extra[f"{place}/{part}"] for part in ("down", "up", "scale"))
    return scale[:, None] * (torch.eye(len(scale), dtype=up.dtype, device=up.device) + up @ down)


def _put_linear(module: nn.Module, rows: torch.Tensor | None, columns: torch.Tensor | None) -> None:
    """Keep rows (outputs) or columns (inputs) of a linear module; None: all."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    turned = isinstance(module, Conv1D)
    whole = weight.T if turned else weight
    whole = whole if rows is None else whole[rows]
    whole = whole if columns is None else whole[:, columns]
    module.weight = _frozen(whole.T.contiguous() if turned else whole)
    if rows is not None and module.bias is not None:
        module.bias = _frozen(module.bias[rows])  # type: ignore[index]
    if turned:
        module.nx, module.nf = whole.shape[1], whole.shape[0]  # type: ignore[assignment]
    else:
        module.out_features, module.in_features = whole.shape  # type: ignore[assignment]


def _multiply(module: nn.Module, through: torch.Tensor) -> None:
    """W <- M W, bias <- M bias."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    m = through.to(weight.dtype)
    module.weight = _frozen((m @ weight.T).T.contiguous() if isinstance(module, Conv1D) else m @ weight)
    if module.bias is not None:
        module.bias = _frozen(m @ module.bias)  # type: ignore[operator]


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _identity(down: torch.Tensor) -> torch.Tensor:
    """mean (W1 W1^T - I)^2, [...]."""
    square = down @ down.mT - torch.eye(down.shape[-2], dtype=down.dtype, device=down.device)
    return square.square().mean((-2, -1))


def _install(model: PreTrainedModel, stream: Stream, extra: Extra, lead: bool) -> None:
    """Hook the modules into ``model``, and masked norms over its own; ``lead``: ``extra`` has an axis of devices."""

    def of(name: str) -> torch.Tensor:
        return extra[name] if lead else extra[name][None]

    progress = float(extra["progress"].detach().flatten()[0])
    mask = Mask(lambda: of("z"), progress >= _DECIDED, model.device)
    mask.at(progress * _FINE, _FINE)
    model.add_module(_MASK, mask)

    def sparsified(place: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def apply(x: torch.Tensor) -> torch.Tensor:
            down, up, scale = (of(f"{place}/{part}").to(x.dtype) for part in ("down", "up", "scale"))
            m = mask().to(x.dtype)
            rows = x.reshape(len(m), -1, x.shape[-1])
            rows = rows + torch.bmm(torch.bmm(rows, down.mT), up.mT)
            return (rows * (scale * m)[:, None]).reshape(x.shape)

        return apply

    for name in stream.writers:
        model.get_submodule(name).register_forward_hook(_after(sparsified(name)))
    entry = model.get_submodule(stream.entry)
    if stream.entry in stream.norms:
        entry.register_forward_pre_hook(_before(sparsified(_EMBEDDING)))
    else:
        entry.register_forward_hook(_after(sparsified(_EMBEDDING)))
    for name in stream.norms:
        model.get_submodule(name).register_forward_hook(_instead(mask))


def _after(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    return lambda _module, _inputs, output: change(output)


def _before(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any], tuple[torch.Tensor]]:
    return lambda _module, inputs: (change(inputs[0]),)


def _instead(mask: Mask) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    """LayerNorm with mean and variance weighted by the mask, and its output masked: that of the narrow model."""

    def masked(norm: nn.Module, inputs: Any, _output: torch.Tensor) -> torch.Tensor:
        x, m = inputs[0], mask()[:, None]
        rows = x.reshape(len(m), -1, x.shape[-1]).to(m.dtype)
        total = m.sum(-1, keepdim=True)
        centred = rows - (m * rows).sum(-1, keepdim=True) / total
        variance = (m * centred.square()).sum(-1, keepdim=True) / total
        y = centred * torch.rsqrt(variance + norm.eps) * norm.weight.to(m.dtype)
        y = y if norm.bias is None else y + norm.bias.to(m.dtype)
        return (y * m).to(x.dtype).reshape(x.shape)

    return masked
