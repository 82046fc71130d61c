"""A cohort on one GPU against the same devices one after another with PEFT. Writes the README's table and figure.

    python benchmarks/gpu_cohort.py [--cases roberta-64 roberta-128 llama-256]
    python benchmarks/gpu_cohort.py --render        # only table and figure again, from results/gpu-cohort.json

Random weights of the published shapes, random tokens, rank 8 on every linear module of every layer, AdamW, bf16. A
cohort's time is that of a whole ``train_cohort`` call: batches, losses before and after, steps, updates read back.
PEFT's is that of the steps and of reading the factors, for ``--peer-devices`` devices, scaled to all. Operations are
those of the training steps, counted over the model's shapes (clients/models/cost.py); the peak is a bf16 matrix product
measured in the same run.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from readme_table import put
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.out_of_memory import make_room
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceData
from slimfed.clients.update import Assignment, Update
from slimfed.strategies.aggregation import initial_adapter

_RESULTS = Path(__file__).parent / "results" / "gpu-cohort.json"
_FIGURE = _RESULTS.with_suffix(".svg")
_RANK = 8
_PEAK_SIZE = 8192


@dataclass(frozen=True)
class Case:
    """A model's shape, and the work of a round."""

    title: str
    config: PreTrainedConfig
    devices: int
    steps: int
    batch: int
    length: int
    causal: bool = False


_ROBERTA = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1)
_LLAMA = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    pad_token_id=0,
    tie_word_embeddings=True,
)
CASES = {
    "roberta-64": Case("RoBERTa-base, 80 devices, batch 8, length 64", _ROBERTA, 80, 10, 8, 64),
    "roberta-128": Case("RoBERTa-base, 80 devices, batch 16, length 128", _ROBERTA, 80, 10, 16, 128),
    "llama-256": Case("Llama of 1.2 billion, 8 devices, batch 2, length 256", _LLAMA, 8, 10, 2, 256, causal=True),
}
# Names of GPU kernels, by what they do.
_KINDS = {
    "attention": re.compile(r"fmha|flash|attention|cudnn.*sdpa", re.IGNORECASE),
    "matrix products": re.compile(r"gemm|cutlass|nvjet|xmma|cublas", re.IGNORECASE),
    "copies to and from the GPU": re.compile(r"^Mem(cpy|set)", re.IGNORECASE),
}


@dataclass
class Tokens:
    """The part of a tokenizer that training uses."""

    pad_token_id: int = 0


@dataclass(frozen=True)
class Round:
    """The inputs of ``train_cohort``."""

    base: LoadedModel
    blueprint: Blueprint
    task: TaskSpec
    assignments: list[Assignment]
    adapters: Sequence[Adapter]
    data: list[DeviceData]
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def train(self) -> list[Update]:
        """One round of all devices."""
        return train_cohort(
            DeviceContext(self.base, self.blueprint, self.task),
            CohortWork(self.assignments, self.adapters, self.scores, self.data),
        )


def main() -> None:
    """Measure, keep, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--peer-devices", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="measure nothing, write table and figure from --out")
    options = parser.parse_args()
    if not options.render:
        need_gpu(parser)
        results: dict[str, Any] = {
            "processor": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "peak_flops": peak_flops(),
            "cases": {},
        }
        for name in options.cases:
            results["cases"][name] = measure(CASES[name], options.peer_devices, options.repeats)
            print(json.dumps({name: results["cases"][name]}), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(options.out.read_text(encoding="utf-8"))
    print(table(results))
    if options.out == _RESULTS:
        put("gpu-cohort", table(results))
        draw(results)


def peak_flops() -> float:
    """Operations a second of a large bf16 matrix product, median of 20."""
    a, b = (torch.randn(_PEAK_SIZE, _PEAK_SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * _PEAK_SIZE**3 / median(seconds_of(lambda: a @ b) for _ in range(25))


def measure(case: Case, peer_devices: int, repeats: int) -> dict[str, Any]:
    """Seconds, operations and where the GPU's time went."""
    make_room()  # what an earlier case's recordings have used is not this one's
    work = prepare(case)
    for _ in range(2):  # libraries initialise
        work.train()
    torch.cuda.reset_peak_memory_stats()
    seconds = [seconds_of(work.train) for _ in range(repeats)]
    updates = work.train()
    result = {
        "title": case.title,
        "tokens": case.devices * case.steps * case.batch * case.length,
        "seconds": median(seconds),
        "all_seconds": seconds,
        "flops": sum(update.report.workload.flops for update in updates) - left_out(case),
        "memory_bytes": torch.cuda.max_memory_reserved(),
        "kernels": kernels(work),
    }
    if peer_devices:
        result["peer_seconds"] = peer(case, peer_devices) * case.devices / peer_devices
        result["peer_devices"] = peer_devices
    return result


def left_out(case: Case) -> float:
    """Operations of the devices' own training that a cohort leaves out.

    In an encoder's last layer, all but keys and values for all tokens but the first
    (clients/training/cohort/first_token.py); only the large products are counted.
    """
    if case.causal:
        return 0.0
    width, inner = case.config.hidden_size, case.config.intermediate_size
    tokens = case.devices * case.steps * case.batch * (case.length - 1)
    return 4.0 * tokens * (2 * width * width + 2 * width * inner)  # forward, and back to the activations


def prepare(case: Case) -> Round:
    """Model, devices and data of a case."""
    model = _model(case)
    prefix = model.base_model_prefix + "."
    names = [name for name, _ in model.named_parameters() if not name.startswith(prefix)]
    head = () if case.causal else tuple(names)
    base = LoadedModel(model, Tokens(case.config.pad_token_id), None if case.causal else ("no", "yes"), head, None)
    blueprint = discover(model)
    shapes = {module: tuple(model.get_submodule(module).weight.shape) for module in blueprint.modules}
    adapter = initial_adapter(shapes, _RANK, head_state(model, head), 1)
    dense = blueprint.dense()
    task = TaskSpec(
        seed=1,
        devices=case.devices,
        model=ModelSpec(task="causal-lm" if case.causal else "classification"),
        data=DataSpec(),
        adapter=AdapterSpec(),
        pruning=PruningSpec(),
        training=TrainingSpec(local_steps=case.steps, batch_size=case.batch),
        dtype="bf16",
    )
    assignments = [Assignment(n, 1, _RANK, 0.0, case.steps, 2e-3, 2e-3, n, False, dense) for n in range(case.devices)]
    data = [_device(case, n) for n in range(case.devices)]
    sent = Broadcast(adapter, dense, [dense] * case.devices, [_RANK] * case.devices)
    return Round(base, blueprint, task, assignments, sent, data)


def peer(case: Case, devices: int) -> float:
    """Seconds that PEFT takes for the steps of so many devices, one after another on one loaded model."""
    model = _model(case)
    modules = list(discover(model).modules)
    inject_adapter_in_model(LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules=modules), model)
    prefix = model.base_model_prefix + "."
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or (not case.causal and not name.startswith(prefix)))
    trained = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in trained]

    def train(device: int) -> None:
        with torch.no_grad():
            torch._foreach_copy_(trained, start)
        optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.0, fused=True)
        stream = _device(case, device).batches()
        for _ in range(case.steps):
            batch = {name: tensor.to("cuda", non_blocking=True) for name, tensor in next(stream).items()}
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        for parameter in trained:
            parameter.detach().cpu()

    train(0)
    return sum(seconds_of(lambda n=n: train(n)) for n in range(devices))


def kernels(work: Round) -> dict[str, float]:
    """Share of the GPU's busy time by kind of kernel, and of the round in which it was busy at all."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        seconds = seconds_of(work.train)
    spent: Counter[str] = Counter()
    for event in trace.events():
        if event.device_type.name == "CUDA":
            kind = next((kind for kind, names in _KINDS.items() if names.search(event.name)), "everything else")
            spent[kind] += event.time_range.elapsed_us() / 1e6
    return {"busy": sum(spent.values()) / seconds} | {kind: t / sum(spent.values()) for kind, t in spent.items()}


def table(results: dict[str, Any]) -> str:
    """Markdown: one row a case."""
    peak = results["peak_flops"]
    lines = [
        "| round of | cohort, s | PEFT in turn, s | times faster | tokens/s | TFLOP/s | of the peak | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in results["cases"].values():
        rate = case["flops"] / case["seconds"]
        before = case.get("peer_seconds")
        lines.append(
            f"| {case['title']}, 10 steps | **{case['seconds']:.2f}** | {f'{before:.1f}' if before else '-'} | "
            f"**{before / case['seconds']:.0f}** | {case['tokens'] / case['seconds']:,.0f} | {rate / 1e12:.0f} | "
            f"**{rate / peak:.0%}** | {case['memory_bytes'] / 2**30:.0f} GiB |"
        )
    lines.append("")
    lines.append(
        f"{results['processor']}; torch {results['torch']}; measured bf16 matrix peak {peak / 1e12:.0f} TFLOP/s. "
        "Where the GPU's time goes: "
        + "; ".join(
            f"{name}: "
            + ", ".join(f"{kind} {share:.0%}" for kind, share in case["kernels"].items() if kind != "busy")
            + f" (busy {min(case['kernels']['busy'], 1.0):.0%} of the round)"
            for name, case in results["cases"].items()
        )
        + "."
    )
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> None:
    """How many times faster, and the share of the peak."""
    import matplotlib  # only here: measuring needs none

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = [case for case in results["cases"].values() if "peer_seconds" in case]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 2.8), sharey=True, layout="constrained")
    titles = [case["title"].replace(", ", "\n", 1) for case in cases]
    faster = left.barh(titles, [case["peer_seconds"] / case["seconds"] for case in cases], color="#3b6ea5")
    left.bar_label(faster, fmt="%.0fx", padding=3)
    left.set_xlabel("times faster than one after another with PEFT")
    shares = [100 * case["flops"] / case["seconds"] / results["peak_flops"] for case in cases]
    right.bar_label(right.barh(titles, shares, color="#c8803c"), fmt="%.0f%%", padding=3)
    right.set_xlabel("share of the measured bf16 matrix peak")
    left.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.15)
    figure.savefig(_FIGURE, metadata={"Date": None})


def _model(case: Case) -> PreTrainedModel:
    torch.manual_seed(0)
    case.config.hidden_dropout_prob = case.config.attention_probs_dropout_prob = 0.0
    kind = AutoModelForCausalLM if case.causal else AutoModelForSequenceClassification
    with torch.device("cuda"):
        return kind.from_config(case.config).eval().requires_grad_(False)


def _device(case: Case, device: int) -> DeviceData:
    draw = np.random.default_rng(device)

    def batch() -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(draw.integers(5, case.config.vocab_size, (case.batch, case.length)))
        labels = ids.clone() if case.causal else torch.from_numpy(draw.integers(0, 2, case.batch))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def stream() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield batch()

    return DeviceData(stream, (batch(), batch()), 100)


def need_gpu(parser: argparse.ArgumentParser) -> None:
    """End with exit code 2 if there is no GPU."""
    if not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here, and this measures one")


def seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds of ``work`` and all that it gives the GPU to do."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
