"""Comparison of an exported model with its dense model: time, memory and size, in one run.

The dense twin has the base's configuration and random weights, and is written and opened in the same format, so that
both run in the same runtime; the values of weights do not affect time. It is the dense model as transformers computes
it. Where the export has a forward pass of its own (:mod:`slimfed.clients.export.label_only_encoder`), a second twin has
that, too: against it, only what was cut away counts. A causal-lm's pass is the one that begins a text: of its logits,
the last token's alone are asked for.

A GGUF file also runs in the real llama.cpp, if its bindings are installed, beside the dense twin and the GGUF file that
the base came from, if it is still there.

Models take turns. With one thread, processor seconds count, which other programs do not disturb; with more, wall
seconds.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from slimfed.clients.errors import InputError
from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.bench import llama_cpp
from slimfed.clients.export.bench.llama_cpp import Speed
from slimfed.clients.export.bench.memory_probe import last_logits, measured_growth
from slimfed.clients.export.files.gguf import FILE
from slimfed.clients.export.files.safetensors import load_tokenizer, skeleton
from slimfed.clients.export.formats.registry import WholeModel, format_of
from slimfed.clients.export.manifest import Manifest, kept_indices
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.models.cost import inference_flops
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.gguf_cache import is_gguf
from slimfed.clients.models.location import weights_bytes
from slimfed.clients.processors import compute_threads
from slimfed.clients.spec import ModelSpec

_WARM_UP = 1
_NEW_TOKENS = 16
_NO_TOKEN = 2**31 - 1


@dataclass(frozen=True)
class Figures:
    """One model. ``latency``: seconds of a pass at batch 1. ``throughput``: texts a second in batches.

    ``decode``: seconds a new token of a causal-lm, with its cache; else None. ``memory``: bytes by which a process grew
    that opened the model and ran a batch (0: not known, or not measured). ``bytes``: of the folder. ``flops``: of a
    pass at batch 1 as its structure has it, whatever a lean pass leaves out.
    """

    latency: float
    throughput: float
    decode: float | None
    memory: int
    bytes: int
    parameters: int
    flops: float


@dataclass(frozen=True)
class Bench:
    """A pruned model and its dense twin. Ratios are pruned over dense: less is better, except for throughput.

    ``alike``: the dense twin with the forward pass of the slim one; None if that is the stock one. ``original_bytes``:
    of the base's files of weights; None if they are not here. ``in_llama_cpp``: by name ("slim", "dense", "original"),
    of a GGUF file; empty if llama.cpp is not installed.
    """

    kind: str
    batch: int
    length: int
    threads: int
    slim: Figures
    dense: Figures
    alike: Figures | None
    original_bytes: int | None = None
    in_llama_cpp: dict[str, Speed] = field(default_factory=dict)

    @property
    def latency_ratio(self) -> float:
        """Time at batch 1."""
        return self.slim.latency / self.dense.latency

    @property
    def structure_ratio(self) -> float:
        """Time at batch 1 against the dense model with the same forward pass: the saving by the structure alone."""
        return self.slim.latency / (self.alike or self.dense).latency

    @property
    def throughput_ratio(self) -> float:
        """Texts a second over those of the dense model."""
        return self.slim.throughput / self.dense.throughput

    @property
    def decode_ratio(self) -> float | None:
        """Time of a new token."""
        return None if not self.slim.decode or not self.dense.decode else self.slim.decode / self.dense.decode

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory; None where it cannot be measured."""
        return self.slim.memory / self.dense.memory if self.slim.memory and self.dense.memory else None


def bench(folder: Path, batch: int = 32, length: int = 64, threads: int = 1, repeats: int = 11) -> Bench:
    """Measure an exported folder. Raises ``InputError`` if it cannot be opened or holds an adapter only."""
    manifest = manifests.read(folder)
    if format_of(manifest).needs_base:
        raise InputError(f"{str(folder)!r} holds an adapter for the dense model: export another format to measure it")
    if manifest.positions is not None and length > manifest.positions:
        raise InputError(f"--length = {length}: the model can take at most {manifest.positions} tokens")
    with compute_threads(threads), tempfile.TemporaryDirectory(prefix="slimfed-bench-") as place:
        folders = [folder, write_dense_twin(folder, manifest, Path(place) / "dense", lean=False)]
        if manifest.lean:
            folders.append(write_dense_twin(folder, manifest, Path(place) / "alike", lean=True))
        found = _compare(folders, manifest, batch, length, threads, repeats)
        original = _original(manifest)
        speeds = _in_llama_cpp(folders, original, length, threads) if manifest.kind == "gguf" else {}
        size = None if original is None else weights_bytes(original)
        return replace(found, original_bytes=size, in_llama_cpp=speeds)


def _original(manifest: Manifest) -> ModelSpec | None:
    """The base, if it is still where the run had it."""
    spec = ModelSpec(path=manifest.base.path, revision=manifest.base.revision, task=manifest.task)
    try:
        return None if weights_bytes(spec) is None else spec
    except InputError:
        return None


def _in_llama_cpp(folders: Sequence[Path], original: ModelSpec | None, length: int, threads: int) -> dict[str, Speed]:
    if not llama_cpp.is_there():
        return {}
    files = {"slim": folders[0] / FILE, "dense": folders[1] / FILE}
    if original is not None and is_gguf(original.path):
        files["original"] = Path(original.path).expanduser()
    return {name: llama_cpp.measured(file, length, _NEW_TOKENS, threads) for name, file in files.items()}


def write_dense_twin(folder: Path, manifest: Manifest, target: Path, lean: bool) -> Path:
    """The dense model of the same base as random weights, in the folder's own format."""
    auto = AutoModelForSequenceClassification if manifest.task == "classification" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(AutoConfig.for_model(**manifest.base.config), dtype=torch.float32).eval()
    fresh = {
        "kept": kept_indices(discover(model).dense()),
        "width": None,
        "vocabulary": None,
        "files": {},
        "quantised": "",
        "lean": lean,
    }
    whole = manifest.model_copy(update=fresh)
    format = format_of(manifest)
    if not isinstance(format, WholeModel):
        raise InputError(f"{str(folder)!r}: no dense model can be written as {manifest.kind} to compare it with")
    format.save(SlimModel(model.requires_grad_(False), load_tokenizer(folder, manifest), whole), target, "")
    return target


def _compare(folders: Sequence[Path], manifest: Manifest, batch: int, length: int, threads: int, repeats: int) -> Bench:
    models = [open_model(folder, threads=threads).model for folder in folders]
    clock = time.thread_time if threads == 1 else time.perf_counter
    writes = manifest.task == "causal-lm"
    single = medians([_pass(model, 1, length, writes) for model in models], repeats, clock)
    many = medians([_pass(model, batch, length, writes) for model in models], max(2, repeats // 4), clock)
    decode: Sequence[float | None] = [None] * len(models)
    if writes:
        long, short = (medians([_writing(m, length, n) for m in models], 2, clock) for n in (1 + _NEW_TOKENS, 1))
        decode = [(whole - start) / _NEW_TOKENS for whole, start in zip(long, short, strict=True)]
    dense = skeleton(manifest)
    blueprint = discover(dense)
    structures = [manifest.structure(blueprint)] + [blueprint.dense()] * (len(folders) - 1)
    sizes = [measure(dense, blueprint, structure) for structure in structures]
    slim, twin, *alike = (
        Figures(
            latency=single[index],
            throughput=batch / many[index],
            decode=decode[index],
            memory=measured_growth(folders[index], batch, length) if index < 2 else 0,
            bytes=sum(path.stat().st_size for path in folders[index].rglob("*") if path.is_file()),
            parameters=sizes[index].parameters,
            flops=inference_flops(sizes[index], 1, length),
        )
        for index in range(len(folders))
    )
    kind = " ".join(filter(None, (manifest.kind, manifest.quantised or manifest.weights)))
    return Bench(kind, batch, length, threads, slim, twin, alike[0] if alike else None)


@torch.inference_mode()
def medians(work: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Median seconds of each piece of work; they take turns."""
    times: list[list[float]] = [[] for _ in work]
    for turn in range(repeats + _WARM_UP):
        for do, taken in zip(work, times, strict=True):
            started = clock()
            do()
            if turn >= _WARM_UP:
                taken.append(clock() - started)
    return [median(taken) for taken in times]


def _pass(model: nn.Module, batch: int, length: int, writes: bool) -> Callable[[], object]:
    ids, asked = torch.full((batch, length), 3), last_logits(writes)
    return lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids), **asked)


def _writing(model: nn.Module, length: int, tokens: int) -> Callable[[], object]:
    ids = torch.full((1, max(1, length - 1 - _NEW_TOKENS)), 3)
    # None would let transformers end where the model's own configuration says, and each model elsewhere.
    config = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=_NO_TOKEN
    )
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)  # type: ignore[operator]
