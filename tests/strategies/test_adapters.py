"""Every adapter through whole rounds on real parts: it learns, resumes to the bit, and does not care about nodes."""

import json
from dataclasses import replace

import pytest
from rounds import Clock, Evaluator, Memory, assert_same_checkpoint

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.bandits import BanditSpec
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.strategy import FedSlim
from slimfed.strategies.transport import StopRequestedError

NEW = [name for name in ADAPTERS if name != "lora"]


def settings(adapter: str) -> StrategySettings:
    """Five devices, five rounds, to half of the model."""
    task = TaskSpec(
        seed=5,
        devices=5,
        model=ModelSpec(),
        data=DataSpec(max_length=24),
        adapter=AdapterSpec(name=adapter, target_sparsity=0.5),
        pruning=PruningSpec(),
        training=TrainingSpec(rounds=5, local_steps=3, batch_size=4, learning_rate=5e-3),
        cohort_size=2,
    )
    return StrategySettings(
        task=task,
        bandit=BanditSpec(ranks=(2, 4)),
        aggregation="coverage",
        target_sparsity=0.5,
        evaluate_every=2,
        evaluate_devices=1,
        nodes=1,
        reply_seconds=120,
        straggler_seconds=None,
        quorum=0.5,
        retries=1,
    )


def run(recorder: Memory, adapter: str, *, fleet: Fleet | None = None, nodes: int = 1) -> FedSlim:
    plan = replace(settings(adapter), nodes=nodes)
    strategy = FedSlim(plan, fleet or new_fleet(plan), Clock(), recorder, Evaluator())
    strategy.start(LocalGrid(nodes))
    return strategy


def new_fleet(plan: StrategySettings) -> Fleet:
    runtime = open_runtime(plan.task)
    base, blueprint = runtime.base, runtime.blueprint
    shapes = {name: tuple(base.model.get_submodule(name).weight.shape) for name in blueprint.modules}
    plain = initial_adapter(shapes, 4, head_state(base.model, base.head), 5)
    adapter = ADAPTERS[plan.task.adapter.name].begin(plain, blueprint, 5)
    return Fleet.new(blueprint, adapter, plan.task.devices, plan.bandit, 5)


@pytest.mark.parametrize("adapter", NEW)
def test_a_run_learns_reaches_its_target_and_resumes_to_the_bit_on_any_number_of_nodes(adapter: str) -> None:
    whole = Memory()
    run(whole, adapter)
    assert whole.rounds[-1].sparsity == pytest.approx(0.5, abs=0.01)
    losses = [record.train_loss for record in whole.rounds]
    assert min(losses[1:]) < losses[0], "though half of the model goes within these few steps"
    assert not [event for record in whole.rounds for event in record.events]
    for after in (1, 4):
        first, rest = Memory(stop_after=after), Memory()
        with pytest.raises(StopRequestedError):
            run(first, adapter)
        tensors, state = first.checkpoints[-1]
        blueprint = open_runtime(settings(adapter).task).blueprint
        run(rest, adapter, fleet=Fleet.restore(blueprint, tensors, json.loads(state)), nodes=3)
        assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])
