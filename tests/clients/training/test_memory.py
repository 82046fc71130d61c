"""A device trains in less memory than plain LoRA on the dense model takes, in the round that prunes, too."""

import gc
import itertools

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import DECODERS
from training import adapter, assignment, begun, device_data, narrowed, opened, structure, task, taught

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.linear import shape_of
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import ModelSpec
from slimfed.clients.structure import Structure
from slimfed.clients.training.checkpointing import ActivationFunctions
from slimfed.clients.training.engine import train
from slimfed.clients.training.memory import counted_memory
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import Batch, CohortWork, DeviceContext, DeviceData, DeviceWork
from slimfed.clients.update import Update

STEPS, RANK = 4, 8


def test_counted_memory_is_the_peak_above_what_was_there() -> None:
    before = torch.zeros(1000)
    with counted_memory() as memory:
        first, second = torch.zeros(1_000_000), torch.zeros(500_000)
        del first
        third = torch.zeros(250_000)
    assert memory.peak == pytest.approx(4 * 1_500_000, rel=1e-3)
    with counted_memory() as memory:
        del before, second, third  # what goes does not make room for what comes
        fourth = torch.zeros(100_000)
    assert memory.peak == pytest.approx(4 * 100_000, rel=1e-3)
    assert len(fourth) > 0


def rows(causal: bool) -> Batch:
    ids = torch.from_numpy(np.random.default_rng(1).integers(5, 500, (8, 64)))
    labels = ids.clone() if causal else torch.zeros(8, dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def plain_lora(base: LoadedModel, modules: tuple[str, ...], batch: Batch) -> int:
    """Peak bytes of the usual loop: PEFT, AdamW, clipping."""
    causal = base.labels is None
    config = LoraConfig(
        r=RANK, lora_alpha=16, target_modules=list(modules), task_type="CAUSAL_LM" if causal else "SEQ_CLS"
    )
    with counted_memory() as memory:
        model = get_peft_model(base.model, config).train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        for _ in range(STEPS):
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return memory.peak


def our_round(base: LoadedModel, start: Structure, sparsity: float, batch: Batch) -> int:
    """Peak bytes of a device's round that begins with ``start`` and ends at ``sparsity``."""
    blueprint, causal = start.blueprint, base.labels is None
    sent = narrowed(adapter(base, blueprint, 3, RANK), start, RANK)
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    data = DeviceData(lambda: itertools.repeat(batch), (batch,), 8)
    with counted_memory() as memory:
        update = train_device(
            DeviceContext(base, blueprint, task(causal)),
            DeviceWork(assignment(0, RANK, start, sparsity, STEPS), sent, scores, data),
        )
    assert update.report.structure.sparsity == pytest.approx(max(sparsity, start.sparsity), abs=0.05)
    return memory.peak


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_training_takes_less_than_plain_lora_on_the_dense_model(kind: str) -> None:
    causal = kind == "decoder"

    def base() -> LoadedModel:
        spec = ModelSpec(path=f"builtin:tiny-{kind}", task="causal-lm" if causal else "classification")
        return load_model(spec, None if causal else ("no", "yes"), 1)

    batch, ours = rows(causal), base()
    blueprint = discover(ours.model)
    half = select(blueprint.dense(), np.random.default_rng(1).random(blueprint.units), 0.5, "layer")
    plain = plain_lora(base(), blueprint.modules, batch)
    assert our_round(ours, blueprint.dense(), 0.5, batch) < plain  # begins dense
    assert our_round(ours, half, 0.5, batch) < plain


@pytest.mark.parametrize("engine", ["cohort", "sequential"])
@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_a_quantised_base_takes_no_more_than_its_largest_weight(engine: str, form: str) -> None:
    """Beyond what a round takes anyhow, which is on a base that is there before."""
    spec = ModelSpec(path="builtin:tiny-encoder")
    peaks = {}
    for kind in ("none", form):
        base = load_model(spec.model_copy(update={"quantization": kind}), ("no", "yes"), 1)
        blueprint = discover(base.model)
        dense = blueprint.dense()
        job = task(False).model_copy(update={"engine": engine})
        sent = narrowed(adapter(base, blueprint, 3, RANK), dense, RANK)
        data = DeviceData(lambda: itertools.repeat(rows(False)), (rows(False),), 8)
        part = assignment(0, RANK, dense, 0.0, STEPS)
        work = CohortWork([part], [sent], np.zeros(blueprint.units, np.float32), [data])
        with counted_memory() as memory:
            (update,) = train(DeviceContext(base, blueprint, job), work)
        assert isinstance(update, Update), update
        peaks[kind] = memory.peak
    weights = [4 * np.prod(shape_of(base.model.get_submodule(name))) for name in blueprint.modules]
    assert peaks[form] < peaks["none"] + 1.8 * max(weights)
    assert 1.8 * max(weights) < sum(weights) / 3, "no room for all of them"


CASES = [
    *((family, {}) for family in ("bert", "distilbert", "llama", "gemma", "gpt2")),
    ("bert", {"recovery": "squarehead"}),
    ("llama", {"adapter": "sora"}),
]


@pytest.mark.parametrize(("family", "options"), CASES)
def test_what_is_computed_again_is_the_same_to_the_bit(
    family: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    causal = family in DECODERS
    base, blueprint = opened(family, causal)
    start = structure(blueprint, 1, 0.2)
    whole = begun(options.get("adapter", "lora"), adapter(base, blueprint, 3, RANK), blueprint, 3)
    sent = narrowed(whole, start, RANK)
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    updates, kept = [], []
    for recomputes in (True, False):
        if not recomputes:
            monkeypatch.setattr(ActivationFunctions, "_note", lambda *_: None)
        with counted_memory() as memory:
            part = assignment(0, RANK, start, 0.6)
            updates.append(
                train_device(
                    taught(base, blueprint, task(causal, **options)),
                    DeviceWork(part, sent, scores, device_data(0, causal, 50)),
                )
            )
        kept.append(memory.peak)
    for ours, theirs in zip(updates[0].adapter.tensors(), updates[1].adapter.tensors(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(updates[0].scores, updates[1].scores)
    assert kept[0] <= kept[1]  # of models this small, the peak may lie elsewhere


ROUNDS = [
    *((engine, name, "magnitude") for engine in ("cohort", "sequential") for name in ADAPTERS),
    *((engine, "lora", name) for engine in ("cohort", "sequential") for name in IMPORTANCE if name != "magnitude"),
]
ROUNDS.remove(("sequential", "sparse", "magnitude"))  # PyTorch's parametrisations are cycles themselves


@pytest.mark.parametrize(("engine", "adapter_name", "importance"), ROUNDS)
def test_a_round_leaves_no_tensor_that_only_a_search_for_cycles_would_free(
    engine: str, adapter_name: str, importance: str
) -> None:
    base, blueprint = opened("bert", False)
    job = task(False, adapter=adapter_name, importance=importance)
    job = job.model_copy(update={"engine": engine, "cohort_size": 3})
    whole = begun(adapter_name, adapter(base, blueprint, 3, RANK), blueprint, 3)
    parts = [assignment(device, 4, blueprint.dense(), 0.5) for device in range(3)]
    sent = [narrowed(whole, part.structure, part.rank) for part in parts]
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    data = [device_data(device, False, 50) for device in range(3)]
    gc.collect()
    gc.disable()
    try:
        results = train(DeviceContext(base, blueprint, job), CohortWork(parts, sent, scores, data))
        assert all(isinstance(result, Update) for result in results)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [thing for thing in gc.garbage if isinstance(thing, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
