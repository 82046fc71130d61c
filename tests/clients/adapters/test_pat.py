"""Pruning-aware tuning: a model that begins as it was, learns its width, and is cut without a change."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import source
from small_models import DECODERS, build, tokens
from training import adapter, assignment, device_data, opened, task

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.base import parameter_groups
from slimfed.clients.adapters.training.pat import Mask
from slimfed.clients.adapters.training.residual_stream import find_stream
from slimfed.clients.adapters.width_decision import is_decided, kept_width
from slimfed.clients.errors import InputError
from slimfed.clients.export.files.safetensors import load_slim, save_slim
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.training.cohort.model import Members, attach_cohort
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceWork

PAT = ADAPTERS["pat"]
FAMILIES = ["bert", "roberta", "distilbert", "llama", "mistral", "qwen2", "qwen3", "gpt2"]
CASES = [(family, causal) for family in FAMILIES for causal in ((False, True) if family in DECODERS else (False,))]


def trained(whole: Adapter, progress: float, seed: int = 0) -> Adapter:
    """Modules that do something, and a mask of which a third is shut."""
    draw = np.random.default_rng(seed)
    extra = {name: (t + draw.normal(0, 0.2, t.shape)).astype(np.float32) for name, t in whole.extra.items()}
    z = np.where(draw.random(whole.extra["z"].size) < 0.66, 1, -1).astype(np.float32)
    extra |= {"progress": np.array([progress], np.float32), "z": z if progress >= 1 else z * np.float32(0.2)}
    return replace(whole, extra=extra)


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_the_cut_model_says_what_the_masked_one_says_and_is_narrower(family: str, causal: bool) -> None:
    base, blueprint = opened(family, causal)
    dense = blueprint.dense()
    job = task(causal, adapter="pat")
    sent = trained(PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0), 1)
    batch = tokens()
    with torch.no_grad():
        masked = PAT.training.attach(slice_model(base.model, dense), dense, sent, job).model(**batch).logits
        cohort = attach_cohort(base.model, Members([sent, sent], [dense, dense], [4, 4]), job.adapter).model
        together = cohort(**{name: torch.cat([t, t]) for name, t in batch.items()}).logits
        narrow = PAT.training.build(base.model, dense, PAT.finished(sent), job.adapter)
        logits = narrow(**batch).logits
    torch.testing.assert_close(logits, masked, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(together, torch.cat([masked, masked]), rtol=1e-6, atol=1e-6)
    kept = int((sent.extra["z"] > 0).sum())
    stream = find_stream(base.model, blueprint)
    assert narrow.get_input_embeddings().weight.shape[1] == kept < stream.width
    assert all(narrow.get_submodule(name).weight.shape[-1] == kept for name in (*stream.norms, *stream.rms))
    assert base.model.get_input_embeddings().weight.shape[1] == stream.width, "the base stays as it is"
    gone = 1 - sum(narrow.get_submodule(n).weight.numel() for n in blueprint.modules) / sum(
        base.model.get_submodule(n).weight.numel() for n in blueprint.modules
    )
    assert PAT.removed(sent, blueprint) == pytest.approx(gone, abs=0.02)


def test_in_fp32_the_cut_model_agrees_to_1e_4() -> None:
    for family in ("bert", "llama"):
        model = build(family)
        blueprint = discover(model)
        base = opened(family, False)[0]
        sent = trained(PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0), 1)
        with torch.no_grad():
            masked = PAT.training.attach(
                slice_model(model, blueprint.dense()), blueprint.dense(), sent, task(False)
            ).model
            logits = PAT.training.build(model, blueprint.dense(), PAT.finished(sent), AdapterSpec())(**tokens()).logits
            torch.testing.assert_close(logits, masked(**tokens()).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("llama", True), ("gpt2", True)])
def test_a_run_begins_with_the_base_as_it_is(family: str, causal: bool) -> None:
    base, blueprint = opened(family, causal)
    dense = blueprint.dense()
    sent = PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0)
    for f in sent.factors.values():
        f.b[:] = 0
    with torch.no_grad():
        for model in (
            PAT.training.attach(slice_model(base.model, dense), dense, sent, task(causal)).model,
            PAT.training.build(base.model, dense, PAT.finished(sent), AdapterSpec()),
        ):
            torch.testing.assert_close(model(**tokens()).logits, base.model(**tokens()).logits, rtol=1e-5, atol=1e-5)


def test_the_server_decides_once_for_the_largest_of_the_mean() -> None:
    base, blueprint = opened("bert", False)
    job = task(False, adapter="pat", rounds=10)
    job = job.model_copy(update={"adapter": AdapterSpec(name="pat", target_sparsity=0.3)})
    before = PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0)
    z = np.random.default_rng(0).normal(size=48).astype(np.float32)
    soft = PAT.decide(before, replace(before, extra=before.extra | {"z": z}), [], job, 4, 3)
    np.testing.assert_array_equal(soft.extra["z"], z)
    assert PAT.removed(soft, blueprint) == 0
    hard = PAT.decide(soft, soft, [], job, 4, 4)
    assert set(np.flatnonzero(hard.extra["z"] > 0)) == set(np.argsort(-z)[: kept_width(48, 0.3)])
    later = PAT.decide(hard, replace(hard, extra=hard.extra | {"z": -hard.extra["z"]}), [], job, 4, 5)
    np.testing.assert_array_equal(later.extra["z"], hard.extra["z"])
    assert PAT.removed(later, blueprint) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("milestone", "rounds", "decided"), [(0.33, 10, 4), (0.8, 10, 8), (1.0, 10, 9), (0.33, 2, 1)])
def test_the_milestone_says_which_round_decides(milestone: float, rounds: int, decided: int) -> None:
    base, blueprint = opened("bert", False)
    job = task(False, adapter="pat", rounds=rounds)
    spec = AdapterSpec(name="pat", target_sparsity=0.3, milestone=milestone)
    job = job.model_copy(update={"adapter": spec})
    sent = PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0)
    for round in range(1, rounds + 1):
        sent = PAT.decide(sent, sent, [], job, 4, round)
        assert is_decided(sent) == (round >= decided)


def test_the_mask_hardens_up_to_the_milestone() -> None:
    """tau = 1 / (1 - ln t / ln T), bias = max(1/2 - t / T, 0), with tau z at least -10."""
    mask = Mask(lambda: torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64), hard=False, device=torch.device("cpu"))
    steps, courses = 100.0, []
    for step in (0, 1, 10, 50, 99, 100, 500):
        mask.at(step, steps)
        tau = 1 / (1 - math.log(max(min(step, 100), 1)) / math.log(100) + 1e-6)
        assert float(mask.get_buffer("tau")) == pytest.approx(tau, rel=1e-4)
        assert float(mask.get_buffer("bias")) == pytest.approx(max(0.5 - step / 100, 0))
        courses.append(mask()[0])
    below, at, above = torch.stack(courses).T.tolist()
    assert (at[0], at[-1]) == (1, 0.5), "an entry of 0 is whole at the start and half at the end"
    assert (below[-1], above[-1]) == pytest.approx((1 / (1 + math.exp(10)), 1))
    assert below == sorted(below, reverse=True), "an entry below 0 only falls"


def test_losses_are_finite_from_the_first_step_and_reach_every_module() -> None:
    base, blueprint = opened("bert", False)
    dense, job = blueprint.dense(), task(False, adapter="pat")
    sent = PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0)
    adapted = PAT.training.attach(slice_model(base.model, dense), dense, sent, job)
    companion = PAT.training.companion(adapted, job, 1, [8])
    companion.begin(0)
    penalty = companion.penalty()
    penalty.backward()
    assert torch.isfinite(penalty)
    downs = [p for name, p in adapted.extra.items() if name.endswith("/down")]
    assert len(downs) == 1 + len(blueprint.blocks)
    assert all(p.grad is not None and p.grad.any() for p in downs)
    _decayed, spared = parameter_groups(adapted, 0.1)
    assert len(spared["params"]) == 2 + len(downs), "z, the progress and the scales"


def test_a_decided_mask_and_the_progress_do_not_move() -> None:
    base, blueprint = opened("bert", False)
    job = task(False, adapter="pat", weight_decay=0.1)
    sent = trained(PAT.begin(adapter(base, blueprint, 0, 4), blueprint, 0), 1)
    part = assignment(0, 4, blueprint.dense(), 0.0)
    data = device_data(0, False, 8)
    update = train_device(
        DeviceContext(base, blueprint, job), DeviceWork(part, sent, np.zeros(blueprint.units, np.float32), data)
    )
    for name in ("z", "progress"):
        np.testing.assert_array_equal(update.adapter.extra[name], sent.extra[name])
    lora = train_device(
        DeviceContext(base, blueprint, task(False)),
        DeviceWork(part, replace(sent, extra={}), np.zeros(blueprint.units, np.float32), data),
    )
    assert update.report.workload.flops > lora.report.workload.flops
    size = measure(base.model, blueprint, blueprint.dense())
    assert PAT.load(size, 4, sent).trained == sum(t.size for f in sent.factors.values() for t in (f.a, f.b)) + sum(
        t.size for t in sent.extra.values()
    )


def test_a_model_that_scales_by_its_width_is_refused_with_a_cure() -> None:
    base, blueprint = opened("gemma", True)
    with pytest.raises(InputError, match=r"gemma model scales its embeddings.*use lora, sora or sparse"):
        PAT.training.check(base.model, blueprint)


@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("llama", True)])
def test_a_cut_model_is_exported_and_opened_again(family: str, causal: bool, tmp_path: Path) -> None:
    random = source(family, causal, 0)
    blueprint = random.structure.blueprint
    sent = trained(PAT.begin(random.adapter, blueprint, 0), 1)
    spec = random.adapter_spec.model_copy(update={"name": "pat"})
    cut = replace(random, adapter=sent, adapter_spec=spec, structure=blueprint.dense())
    save_slim(cut.slim(), tmp_path / "out", "")
    with torch.no_grad():
        opened_again = load_slim(tmp_path / "out").model(**tokens()).logits
        torch.testing.assert_close(opened_again, cut.model()(**tokens()).logits)
    early = replace(cut, adapter=replace(sent, extra=sent.extra | {"progress": np.zeros(1, np.float32)}))
    with pytest.raises(InputError, match="width is decided at"):
        early.model()
