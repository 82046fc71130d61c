"""What adapter methods say of themselves is true."""

import numpy as np
import pytest
from training import adapter, opened, task

from slimfed.clients.adapters import ADAPTERS, AdapterMethod
from slimfed.clients.adapters.base import Capabilities
from slimfed.clients.adapters.training.base import AdapterTraining
from slimfed.clients.training.engine import hindrance

BASE, BLUEPRINT = opened("bert", False)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_method_with_plain_factors_sends_nothing_else(name: str) -> None:
    begun = ADAPTERS[name].begin(adapter(BASE, BLUEPRINT, 0, 4), BLUEPRINT, 0)
    gates = any(factors.gate is not None for factors in begun.factors.values())
    plain = bool(begun.factors) and not (begun.deltas or begun.extra or gates)
    assert ADAPTERS[name].plain_factors == plain


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_method_that_cuts_the_width_says_which_part_it_keeps(name: str) -> None:
    method = ADAPTERS[name]
    sent = method.begin(adapter(BASE, BLUEPRINT, 0, 4), BLUEPRINT, 0)
    job = task(False, adapter=name, rounds=2)
    for number in (1, 2):
        sent = method.decide(sent, sent, [], job, 4, number)
    assert (method.width(sent) is not None) == method.cuts_width


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_can_be_rounded_is_plain_and_takes_whole_rounds(name: str) -> None:
    method = ADAPTERS[name]
    assert method.plain_factors or not method.supports_rounding, "memory is kept of factors and head alone"
    assert method.min_rounds >= 1


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_was_opened_is_closed_again(name: str) -> None:
    method, rank = ADAPTERS[name], 4
    sent = method.begin(adapter(BASE, BLUEPRINT, 0, rank), BLUEPRINT, 0)
    again = method.closed(method.opened(sent), rank)
    assert (again.factors.keys(), again.deltas.keys()) == (sent.factors.keys(), sent.deltas.keys())
    for ours, theirs in zip(again.tensors(), sent.tensors(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_every_capability_is_explained() -> None:
    assert len(Capabilities.__annotations__) >= 9
    assert all(isinstance(getattr(Capabilities, flag), bool | int) for flag in Capabilities.__annotations__)


class Alone(AdapterMethod):
    """A method as another package may bring it: without layers for cohorts."""

    trains_in_cohorts = False

    @property
    def training(self) -> AdapterTraining:
        return ADAPTERS["lora"].training


def test_a_method_without_cohort_layers_is_trained_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimfed.clients.training.engine.ADAPTERS", {"alone": Alone()})
    job = task(False)
    job = job.model_copy(update={"adapter": job.adapter.model_copy(update={"name": "alone"})})
    assert "no layers for cohorts" in hindrance(job, BASE)


@pytest.mark.parametrize("name", ADAPTERS)
def test_dropout_hinders_cohorts_only_where_it_acts(name: str) -> None:
    job = task(False, adapter=name)
    wet = replace_dropout(job, 0.5)
    assert ("dropout" in hindrance(wet, BASE)) == ADAPTERS[name].uses_dropout
    assert not hindrance(job, BASE)


def replace_dropout(job, dropout: float):
    return job.model_copy(update={"adapter": job.adapter.model_copy(update={"dropout": dropout})})
