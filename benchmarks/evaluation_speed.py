"""Texts and prompts a second that an evaluation takes, on a CPU and, if there is one, on a GPU.

    python benchmarks/evaluation_speed.py [--model FOLDER] [--out benchmarks/results/evaluation-speed.json]
    git worktree add ../before COMMIT; python benchmarks/evaluation_speed.py --against ../before    # both, in turns

Measured are the global model, the own models of 20 devices in shared passes (texts x models), and greedy completions:
for the built-in encoder, for a random Llama of SmolLM2-135M's shape, and for the causal model in --model. Texts of the
Llama are random tokens of random length. Medians over the turns; each turn is a process of its own. On a CPU, seconds
are those that one thread computes, which other programs do not affect; on a GPU, those that pass.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

_HERE = Path(__file__).parent
_SEED = 5
_DEVICES = 20
_COLUMNS = ("global", "devices", "prompts")
_MEANING = {"global": "texts/s, global model", "devices": "texts/s, 20 devices' models", "prompts": "prompts/s"}


@dataclass(frozen=True)
class Size:
    """Texts for the global model and for each device's own, prompts to complete, and new tokens of each."""

    texts: int
    own: int
    prompts: int
    tokens: int


_SIZES = {"cpu": Size(16, 1, 8, 6), "cuda": Size(4000, 500, 512, 64)}


def main() -> None:
    """Measure in turns, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a causal model, written by save_pretrained")
    parser.add_argument("--against", type=Path, help="root of another checkout of slimfed, measured in turns")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write a JSON file")
    parser.add_argument("--once", action="store_true", help="measure once, print JSON (used by this script)")
    options = parser.parse_args()
    if options.once:
        print("MEASURED " + json.dumps(list(measure(options.model))))
        return
    found = _in_turns(options)
    print(table(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _in_turns(options: argparse.Namespace) -> dict[str, Any]:
    roots = {"now": _HERE.parent} | ({"before": options.against.resolve()} if options.against else {})
    turns: dict[str, list[Any]] = {name: [] for name in roots}
    for _ in range(options.turns):
        for name, root in roots.items():
            turns[name].append(_once(root, options.model))
    versions = {name: version(name) for name in ("torch", "transformers", "slimfed")}
    return {
        "versions": versions,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "seed": _SEED,
        "turns": options.turns,
        "rates": {name: _medians(each) for name, each in turns.items()},
    }


def _once(root: Path, model: Path | None) -> list[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).resolve()), "--once"]
    command += ["--model", str(model.resolve())] if model else []
    environment = os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{root}: {done.stderr[-2000:]}")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    rows: list[dict[str, Any]] = json.loads(line.removeprefix("MEASURED "))
    return rows


def _medians(turns: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each model and device, with the median of each rate."""
    rows = []
    for same in zip(*turns, strict=True):
        rates = {name: [row[name] for row in same] for name in _COLUMNS}
        rows.append(same[0] | {name: median(each) if None not in each else None for name, each in rates.items()})
    return rows


def table(found: dict[str, Any]) -> str:
    """Markdown: one row for each model, device and state of the code."""
    lines = [f"| model | on | state | {' | '.join(_MEANING[c] for c in _COLUMNS)} |", "|---|---|---|---|---|---|"]
    for rows in zip(*found["rates"].values(), strict=True):
        for state, row in zip(found["rates"], rows, strict=True):
            numbers = ["-" if row[c] is None else f"{row[c]:.1f}" for c in _COLUMNS]
            lines.append(f"| {row['model']} | {row['on']} | {state} | {' | '.join(numbers)} |")
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join([*lines, "", f"{found['processor']}, {found['cores']} cores; {versions}; seed {found['seed']}."])


def measure(folder: Path | None) -> Iterator[dict[str, Any]]:
    """The rates of every model on every device."""
    import torch

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        name = _processor() if device == "cpu" else torch.cuda.get_device_name()
        for model, bench in _models(folder, device):
            yield {"model": model, "on": name, **bench}


def _models(folder: Path | None, device: str) -> Iterator[tuple[str, dict[str, float | None]]]:
    from slimfed.clients.data.batching import tokenise
    from slimfed.clients.data.text import load_data
    from slimfed.clients.models.loading import load_model
    from slimfed.clients.spec import DataSpec, ModelSpec

    text = load_data(DataSpec(), "classification")
    encoder = load_model(ModelSpec(), text.labels, _SEED)
    test = tokenise(text.test, encoder.tokenizer, 64)
    yield "tiny encoder", _rates(encoder, test, device, Size(len(test), 500, 0, 0))
    yield "random Llama, 135M", _rates(_llama(), None, device, _SIZES[device])
    if folder is not None:
        spec = ModelSpec(path=str(folder), task="causal-lm")
        yield folder.name, _rates(load_model(spec, None, _SEED), None, device, _SIZES[device])


def _llama() -> Any:
    """A random model of SmolLM2-135M's shape, with a tokenizer for its special tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from slimfed.clients.models.loading import LoadedModel, load_model
    from slimfed.clients.spec import ModelSpec

    tokenizer = load_model(ModelSpec(path="builtin:tiny-decoder", task="causal-lm"), None, _SEED).tokenizer
    torch.manual_seed(_SEED)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id, use_cache=False,
    )  # fmt: skip
    return LoadedModel(LlamaForCausalLM(config).eval().requires_grad_(False), tokenizer, None, (), 2048)


def _rates(base: Any, test: Any, device: str, size: Size) -> dict[str, float | None]:
    """Texts a second of the global and the devices' models, and prompts a second; ``test`` None: random texts."""
    import numpy as np
    import torch

    from slimfed.clients.evaluation.generation import complete
    from slimfed.clients.models.discovery import discover
    from slimfed.clients.node.evaluator import ModelEvaluator
    from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
    from slimfed.clients.training.work import DeviceContext
    from slimfed.strategies.first_adapter import first_adapter

    causal = test is None
    torch.set_num_threads(1)
    base.model.to(device)
    blueprint = discover(base.model)
    spec = TaskSpec(
        seed=_SEED, devices=_DEVICES, model=ModelSpec(task="causal-lm" if causal else "classification"),
        data=DataSpec(), adapter=AdapterSpec(), pruning=PruningSpec(), training=TrainingSpec(), cohort_size=_DEVICES,
    )  # fmt: skip
    dense, adapter = blueprint.dense(), first_adapter(base, blueprint, "lora", 8, _SEED)
    split = _random_texts(base, size.texts) if causal else test
    evaluator = ModelEvaluator(DeviceContext(base, blueprint, spec), split)
    updates, rows = [_update(n, adapter, dense) for n in range(_DEVICES)], np.arange(size.own)
    found: dict[str, float | None] = {
        "global": size.texts / _seconds(lambda: evaluator.one(adapter, dense), device),
        "devices": _DEVICES * size.own / _seconds(lambda: evaluator.many(updates, rows), device),
        "prompts": None,
    }
    if size.prompts:
        model, prompts = evaluator.model(adapter, dense), _random_prompts(base, size.prompts)
        took = _seconds(lambda: complete(model, base.tokenizer, prompts, size.tokens), device)
        found["prompts"] = size.prompts / took
    return found


def _random_texts(base: Any, count: int) -> Any:
    """Texts of 12 to 60 tokens, the first half of each a prompt."""
    import numpy as np

    from slimfed.clients.data.batching import TokenisedSplit

    draw = np.random.default_rng(_SEED)
    lengths = draw.integers(12, 61, count)
    tokens = draw.integers(3, base.model.config.vocab_size, lengths.sum()).astype(np.int32)
    return TokenisedSplit(tokens, np.concatenate([[0], np.cumsum(lengths)]), None, lengths // 2, base.pad_id)


def _random_prompts(base: Any, count: int) -> Any:
    """Prompts of 8 to 32 tokens."""
    import numpy as np

    from slimfed.clients.evaluation.generation import Prompts

    draw = np.random.default_rng(_SEED)
    top = min(len(base.tokenizer), base.model.config.vocab_size)
    tokens = [tuple(draw.integers(3, top, length).tolist()) for length in draw.integers(8, 33, count)]
    return Prompts(tuple(tokens), (("",),) * count)


def _update(device: int, adapter: Any, structure: Any) -> Any:
    """What a device sends, as far as its evaluation needs it."""
    import numpy as np

    from slimfed.clients.update import Report, Update, Workload

    report = Report(device, 1, 8, 8.0, structure, 0.0, 0.0, 0.0, 1, 0.0, 0, Workload(0.0, 0.0, 0.0), None)
    return Update(report, adapter, np.zeros(0, np.float32))


def _seconds(work: Callable[[], object], device: str) -> float:
    """Wall seconds of the second run on a GPU, where the first warms up; processor seconds of the only run on a CPU."""
    import torch

    if device == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    for _ in range(2):
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
