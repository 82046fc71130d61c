"""A cohort's models measured in one pass say what each says alone."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import DECODERS
from training import adapter, assignment, begun, device_data, narrowed, opened, split, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.training.cohort.evaluation import evaluate_cohort, together
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.work import CohortWork, DeviceContext

devices = st.lists(
    st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([0.0, 0.2, 0.5])),  # rank, sparsity
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("kind", ["lora", "sora"])
@pytest.mark.parametrize(
    ("family", "causal", "form"),
    [("bert", False, "none"), ("llama", True, "none"), ("gpt2", False, "none"), ("gpt2", False, "int8")],
)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleet=devices, seed=st.integers(0, 1000))
def test_one_pass_measures_what_the_sliced_models_do(kind, family, causal, form, fleet, seed):
    assert not causal or family in DECODERS
    base, blueprint = opened(family, causal, form)
    job = task(causal, adapter=kind, local_steps=2).model_copy(update={"engine": "cohort", "cohort_size": 4})
    whole = begun(kind, adapter(base, blueprint, 3, 8), blueprint, 3)
    starts = [structure(blueprint, seed + n, sparsity) for n, (_, sparsity) in enumerate(fleet)]
    parts = [assignment(n, rank, starts[n], 0.3, steps=2) for n, (rank, _) in enumerate(fleet)]
    sent = [narrowed(whole, a.structure, a.rank) for a in parts]
    data = [device_data(n, causal, 50) for n in range(len(fleet))]
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    updates = train_cohort(DeviceContext(base, blueprint, job), CohortWork(parts, sent, scores, data))
    text, rows = split(causal, seed), np.random.default_rng(seed).permutation(23)[:17]

    assert together(job, [update.adapter for update in updates])
    for update, found in zip(
        updates, evaluate_cohort(DeviceContext(base, blueprint, job), updates, text, rows), strict=True
    ):
        model = ADAPTERS[kind].training.build(
            base.model, update.report.structure, ADAPTERS[kind].finished(update.adapter), job.adapter
        )
        assert astuple(found)[:5] == pytest.approx(astuple(evaluate(model, text, rows=rows))[:5], abs=1e-6)


def test_what_is_no_plain_factor_is_measured_alone():
    base, blueprint = opened("bert", False)
    whole = begun("sparse", adapter(base, blueprint, 3, 8), blueprint, 3)
    job = task(False, adapter="sparse").model_copy(update={"engine": "cohort"})
    assert not together(job, [whole])


def test_a_quantised_base_is_never_dequantised_as_a_whole_by_a_device():
    base, blueprint = opened("bert", False)
    whole = adapter(base, blueprint, 3, 8)
    alone = task(False).model_copy(update={"engine": "sequential"})
    assert not together(alone, [whole])
    assert together(alone.model_copy(update={"model": alone.model.model_copy(update={"quantization": "nf4"})}), [whole])
