"""The round as a whole, on real parts: the built-in model and text, the real ClientApp, a grid in this process."""

import json
from collections.abc import Iterable
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from rounds import Clock, Evaluator, Memory, assert_same_checkpoint, small_settings, small_task

from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.spec import AdapterSpec, MessageSpec, PruningSpec
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.attempt import QuorumError
from slimfed.strategies.bandits import BanditSpec
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.server.spec import ServerSpec
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.strategy import FedSlim
from slimfed.strategies.transport import StopRequestedError

TASK = small_task()
SETTINGS = small_settings(TASK, every=2, own=0, retries=1)


class Tampering(LocalGrid):
    """A grid on whose way back something happens to the replies."""

    def __init__(self, nodes: int, tamper) -> None:
        super().__init__(nodes)
        self.tamper = tamper

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for reply in super().pull_messages(message_ids) if self.tamper(reply)]


def new_fleet(bandit: BanditSpec = SETTINGS.bandit) -> Fleet:
    runtime = open_runtime(TASK)
    base, blueprint = runtime.base, runtime.blueprint
    shapes = {name: tuple(base.model.get_submodule(name).weight.shape) for name in blueprint.modules}
    adapter = initial_adapter(shapes, 4, head_state(base.model, base.head), 5)
    return Fleet.new(blueprint, adapter, TASK.devices, bandit, 5)


def run(recorder: Memory, *, fleet: Fleet | None = None, grid=None, clock=None, **changes) -> FedSlim:
    settings = replace(SETTINGS, **changes)
    strategy = FedSlim(settings, fleet or new_fleet(settings.bandit), clock or Clock(), recorder, Evaluator())
    strategy.start(grid or LocalGrid(settings.nodes))
    return strategy


@pytest.fixture(scope="module")
def undisturbed() -> Memory:
    recorder = Memory()
    run(recorder)
    return recorder


def test_a_run_prunes_to_its_target_and_records_every_round(undisturbed: Memory) -> None:
    assert [record.round for record in undisturbed.rounds] == [1, 2, 3, 4]
    sparsities = [record.sparsity for record in undisturbed.rounds]
    assert sparsities == sorted(sparsities)
    assert sparsities[-1] == pytest.approx(0.5, abs=1e-3)
    last = undisturbed.rounds[-1]
    assert [device.status for device in last.devices] == ["done"] * 6
    assert all(0 <= device.reward <= 1 for device in last.devices)
    assert last.virtual_seconds == 6.0
    assert last.evaluation is not None
    assert last.device_accuracy_mean is not None
    assert undisturbed.rounds[0].evaluation is None
    assert last.train_loss < undisturbed.rounds[0].train_loss


def test_the_global_model_is_measured_on_a_sample_until_the_last_round_and_resumed_alike() -> None:
    """The stand-in has 9 test examples."""
    whole, first, rest = Memory(), Memory(stop_after=2), Memory()
    run(whole, evaluate_every=1, evaluate_examples=4)
    assert [record.evaluation.examples for record in whole.rounds] == [4, 4, 4, 9]
    with pytest.raises(StopRequestedError):
        run(first, evaluate_every=1, evaluate_examples=4)
    tensors, state = first.checkpoints[-1]
    fleet = Fleet.restore(open_runtime(TASK).blueprint, tensors, json.loads(state))
    run(rest, fleet=fleet, evaluate_every=1, evaluate_examples=4)
    assert [record.evaluation for record in first.rounds + rest.rounds] == [r.evaluation for r in whole.rounds]


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_number_of_nodes_changes_nothing(undisturbed: Memory, nodes: int) -> None:
    recorder = Memory()
    run(recorder, nodes=nodes)
    assert_same_checkpoint(recorder.checkpoints[-1], undisturbed.checkpoints[-1])


def test_a_node_is_sent_the_global_adapter_once_a_round_and_keeps_its_tokens() -> None:
    sent: list[Message] = []

    class Listening(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            kept = list(messages)
            sent.extend(message for message in kept if message.metadata.group_id == "1")
            return super().push_messages(kept)

    with pytest.raises(StopRequestedError):
        run(Memory(stop_after=1), grid=Listening(2))
    assert sorted(message.metadata.dst_node_id for message in sent) == [1, 2]
    assert [len(message.content["fleet"]["structures"].numpy()) for message in sent] == [4, 2]
    whole = sum(tensor.size for tensor in new_fleet().adapter.tensors())
    assert all(message.content["fleet"]["adapter"].numpy().size <= whole for message in sent)
    assert open_runtime(TASK) is open_runtime(TASK.model_copy())


def test_rounded_messages_are_few_bytes_and_the_same_to_the_bit_on_any_nodes_and_resumed(undisturbed: Memory) -> None:
    task = TASK.model_copy(update={"messages": MessageSpec(precision="int8")})
    whole, first, rest = Memory(), Memory(stop_after=2), Memory()
    run(whole, task=task)
    with pytest.raises(StopRequestedError):
        run(first, task=task, nodes=3)
    tensors, state = first.checkpoints[-1]
    assert "memory" in tensors
    assert {f"memory/{device}" for device in range(6)} <= tensors.keys()
    run(rest, fleet=Fleet.restore(open_runtime(TASK).blueprint, tensors, json.loads(state)), task=task, nodes=1)
    assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])
    plain, few = undisturbed.rounds[0], whole.rounds[0]
    assert few.bytes_up < 0.3 * plain.bytes_up
    assert few.bytes_down < 0.3 * plain.bytes_down
    assert whole.rounds[-1].train_loss == pytest.approx(undisturbed.rounds[-1].train_loss, rel=0.05)


@pytest.mark.parametrize(
    "bandit",
    [
        BanditSpec(name="pooled", ranks=(2, 4), local_steps=(3, 5)),
        BanditSpec(name="pooled", ranks=(2, 4), local_steps=(3, 5), control="shuffled"),
        BanditSpec(name="s-ucb", ranks=(2, 4), local_steps=(3, 5), control="shuffled"),
        BanditSpec(name="thompson", ranks=(2, 4), local_steps=(3, 5), pacing="within"),
    ],
)
def test_unequal_local_steps_are_the_same_on_any_nodes_and_resumed(bandit: BanditSpec) -> None:
    whole, first, rest = Memory(), Memory(stop_after=2), Memory()
    run(whole, bandit=bandit)
    given = [[device.assignment.local_steps for device in record.devices] for record in whole.rounds]
    assert {steps for row in given for steps in row} <= {3, 5}
    with pytest.raises(StopRequestedError):
        run(first, bandit=bandit, nodes=3)
    tensors, state = first.checkpoints[-1]
    assert ("shuffle" in tensors) is (bandit.control == "shuffled")
    run(rest, fleet=Fleet.restore(open_runtime(TASK).blueprint, tensors, json.loads(state)), bandit=bandit, nodes=1)
    assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])


def test_the_agreement_of_updates_is_the_reward_of_the_fleet_s_agent() -> None:
    recorder = Memory()
    run(recorder, bandit=BanditSpec(name="pooled", ranks=(2, 4), local_steps=(3, 6)))
    rewards = np.array([[device.reward for device in record.devices] for record in recorder.rounds])
    assert ((rewards >= 0) & (rewards <= 1)).all()
    assert len(np.unique(rewards)) > 12
    assert rewards.mean() > 0.02, "devices that learn one task agree"


def test_an_agent_that_gets_no_rewards_asks_for_no_losses() -> None:
    asked = {}
    for name, control in (("s-ucb", "none"), ("s-ucb", "still"), ("fixed", "none"), ("pooled", "none")):
        recorder = Memory()
        run(recorder, bandit=BanditSpec(name=name, ranks=(2, 4), control=control))
        devices = recorder.rounds[-1].devices
        asked[name, control] = {device.assignment.probed for device in devices}
        assert all(device.reward is not None for device in devices)
    assert asked == {
        ("s-ucb", "none"): {True},
        ("s-ucb", "still"): {False},
        ("fixed", "none"): {False},
        ("pooled", "none"): {False},
    }


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_is_the_undisturbed_run_to_the_bit(undisturbed: Memory, after: int) -> None:
    first = Memory(stop_after=after)
    with pytest.raises(StopRequestedError):
        run(first)
    assert len(first.rounds) == after
    tensors, state = first.checkpoints[-1]
    rest = Memory()
    run(rest, fleet=Fleet.restore(open_runtime(TASK).blueprint, tensors, json.loads(state)))
    assert [record.round for record in rest.rounds] == list(range(after + 1, 5))
    assert_same_checkpoint(rest.checkpoints[-1], undisturbed.checkpoints[-1])


def test_a_checkpoint_of_the_first_versions_is_read_as_it_was(undisturbed: Memory) -> None:
    """It had agents, ranks and paces as JSON."""
    tensors, state = undisturbed.checkpoints[1][0], json.loads(undisturbed.checkpoints[1][1])
    blueprint = open_runtime(TASK).blueprint
    fleet = Fleet.restore(blueprint, tensors, state)
    fleet.devices[3].rank = 2
    old = {name: tensor for name, tensor in tensors.items() if not name.startswith(("bandits/", "ranks", "paces"))}
    agents = {
        "bandits": [agent.state() for agent in fleet.agent.agents],
        "ranks": [device.rank for device in fleet.devices],
        "paces": [device.pace and astuple(device.pace) for device in fleet.devices],
    }
    assert all(agents["paces"])
    again = Fleet.restore(blueprint, old, json.loads(json.dumps({**state, **agents})))
    one, other = again.checkpoint(), fleet.checkpoint()
    assert_same_checkpoint((one[0], json.dumps(one[1])), (other[0], json.dumps(other[1])))


@pytest.mark.parametrize("optimizer", ["fedavgm", "fedadam"])
def test_a_server_optimiser_resumes_to_the_bit(optimizer: str) -> None:
    """And its moments are what makes the difference: without them the run would go elsewhere."""
    server = ServerSpec(optimizer=optimizer)
    whole, first, rest, forgetful = Memory(), Memory(stop_after=2), Memory(), Memory()
    run(whole, server=server)
    with pytest.raises(StopRequestedError):
        run(first, server=server)
    tensors, state = first.checkpoints[-1]
    blueprint = open_runtime(TASK).blueprint
    run(rest, fleet=Fleet.restore(blueprint, tensors, json.loads(state)), server=server)
    assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])
    bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("server/")}
    run(forgetful, fleet=Fleet.restore(blueprint, bare, json.loads(state)), server=server)
    name = next(name for name in tensors if name.startswith("a/"))
    assert not np.array_equal(forgetful.checkpoints[-1][0][name], whole.checkpoints[-1][0][name])


def test_ranks_that_devices_give_up_stay_given_up_and_survive_a_resume() -> None:
    """HetLoRA: each device's rank falls by itself, the next round is sent at it, and no other rank is let in."""
    changes = {
        "task": TASK.model_copy(update={"adapter": AdapterSpec(keep_ranks=0.7, tail_penalty=5.0, least_rank=2)}),
        "bandit": BanditSpec(name="fixed", ranks=(2, 4), fixed_rank=4),
        "aggregation": "hetlora",
    }
    whole, first, rest = Memory(), Memory(stop_after=2), Memory()
    run(whole, **changes)
    assert [device.status for record in whole.rounds for device in record.devices] == ["done"] * 24
    for before, after in pairwise(whole.rounds):
        for then, now in zip(before.devices, after.devices, strict=True):
            assert now.assignment.rank == then.report.rank
            assert then.report.effective_rank == then.report.rank
    last = [device.report.rank for device in whole.rounds[-1].devices]
    assert min(last) == 2, "4 -> 2 (floor of 2.8), and 2 is the least"
    with pytest.raises(StopRequestedError):
        run(first, **changes)
    tensors, state = first.checkpoints[-1]
    run(rest, fleet=Fleet.restore(open_runtime(TASK).blueprint, tensors, json.loads(state)), **changes)
    assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])


def test_what_the_clock_rules_out_costs_the_device_its_round_and_no_more() -> None:
    recorder = Memory()
    clock = Clock(out_of_memory=(0,), dropped=(1,))
    strategy = run(recorder, clock=clock, straggler_seconds=5.5, quorum=0.4)
    statuses = [device.status for device in recorder.rounds[0].devices]
    assert statuses == ["out-of-memory", "dropout", "done", "done", "done", "late"]
    assert recorder.rounds[0].virtual_seconds == 5.5, "the server waits until the deadline for one that is late"
    assert [event.kind for event in recorder.rounds[0].events] == ["out-of-memory", "dropout", "late"]
    assert strategy.fleet.devices[0].structure.sparsity == 0.0
    assert strategy.fleet.devices[2].structure.sparsity == pytest.approx(0.5, abs=1e-3)
    rewards = {device.status: device.reward for device in recorder.rounds[0].devices}
    assert rewards["out-of-memory"] == rewards["late"] == 0.0, "the arm's doing: the agent must learn from it"
    assert rewards["dropout"] is None


def test_a_node_that_never_answers_costs_its_devices_the_round() -> None:
    recorder = Memory()
    grid = Tampering(2, lambda reply: reply.metadata.src_node_id == 1)
    run(recorder, grid=grid, reply_seconds=0.5, quorum=0.5)
    assert [device.status for device in recorder.rounds[-1].devices] == [*["done"] * 2, *["failed"] * 2, *["done"] * 2]
    assert {event.kind for event in recorder.rounds[-1].events} == {"no-reply"}


def test_an_update_with_nan_changes_nothing_but_its_event(undisturbed: Memory) -> None:
    def poison(reply: Message) -> bool:
        if "update-2" in reply.content:
            record = reply.content["update-2"]
            values = record["adapter"].numpy().copy()
            values[7] = np.nan
            record["adapter"] = type(record["adapter"])(values)
        return True

    recorder = Memory()
    strategy = run(recorder, grid=Tampering(2, poison))
    assert [device.status for device in recorder.rounds[0].devices] == [
        "done",
        "done",
        "rejected",
        "done",
        "done",
        "done",
    ]
    assert recorder.rounds[0].events[0].kind == "not-finite"
    assert all(np.isfinite(tensor).all() for tensor in strategy.fleet.adapter.tensors())
    assert strategy.fleet.devices[2].structure.sparsity == 0.0


def test_below_the_quorum_the_round_is_repeated_and_then_the_run_fails() -> None:
    recorder = Memory()
    seen = []

    def lose(reply: Message) -> bool:
        seen.append(reply)
        devices = [name.removeprefix("update-") for name in reply.content if name.startswith("update-")]
        reply.content["failures"] = ConfigRecord(dict.fromkeys(devices, "no data"))
        for device in devices:
            del reply.content[f"update-{device}"]
        return True

    with pytest.raises(QuorumError, match=r"round 1: 0 of 6 updates were usable, 3 are needed; first cause: no data"):
        run(recorder, grid=Tampering(2, lose))
    assert len(seen) == 4
    assert [event.kind for event in recorder.events].count("quorum-missed") == 2
    assert not recorder.rounds


def test_missing_nodes_are_an_error_with_a_deadline() -> None:
    with pytest.raises(TimeoutError, match="only 1 of 2 nodes came within 1 s"):
        run(Memory(), grid=LocalGrid(1), reply_seconds=1)


def test_a_node_may_only_answer_for_its_own_devices() -> None:
    def forge(reply: Message) -> bool:
        for name in [name for name in reply.content if name.endswith("-0")]:
            reply.content[name.replace("-0", "-2")] = reply.content[name]
        return True

    recorder = Memory()
    run(recorder, grid=Tampering(2, forge))
    assert [event.kind for event in recorder.rounds[0].events] == ["foreign-device"]
    assert [device.status for device in recorder.rounds[0].devices] == ["done"] * 6


def test_what_the_clock_rules_out_is_not_tried_again() -> None:
    recorder = Memory()
    with pytest.raises(QuorumError, match="training does not fit the device's memory"):
        run(recorder, clock=Clock(out_of_memory=tuple(range(6))))
    assert [event.kind for event in recorder.events].count("quorum-missed") == 1


def test_a_reply_beyond_the_limit_is_not_read_and_the_run_goes_on() -> None:
    """Node 2 serves two devices: it may send 2 MB."""

    def stuff(reply: Message) -> bool:
        if reply.metadata.src_node_id == 2:
            reply.content["ballast"] = ArrayRecord({"x": Array(np.zeros(2_000_000, np.uint8))})
        return True

    recorder = Memory()
    run(recorder, grid=Tampering(2, stuff), task=TASK.model_copy(update={"message_mb": 1.0}))
    assert len(recorder.rounds) == 4
    assert [device.status for device in recorder.rounds[-1].devices] == [*["done"] * 2, *["failed"] * 2, *["done"] * 2]
    for event in recorder.rounds[-1].events:
        assert " MB for 2 devices is larger than deadlines.message_mb = 1" in event.cause
        assert "raise it, or lower bandit.ranks" in event.cause


def test_orders_beyond_the_limit_are_not_sent() -> None:
    grid = Tampering(2, lambda reply: pytest.fail("a node was asked"))
    with pytest.raises(QuorumError, match=r"larger than deadlines\.message_mb = 0\.01 allows"):
        run(Memory(), grid=grid, task=TASK.model_copy(update={"message_mb": 0.01}))


def test_a_node_says_what_it_may_not_send() -> None:
    """Its orders are small, since they have the adapter once; its answer has it for every device."""

    def answer(reply: Message) -> bool:
        assert not [name for name in reply.content if name.startswith("update-")]
        return True

    recorder = Memory()
    with pytest.raises(QuorumError, match=r"larger than deadlines\.message_mb"):
        run(recorder, grid=Tampering(1, answer), nodes=1, task=TASK.model_copy(update={"message_mb": 0.08}))


@pytest.mark.parametrize(("schedule", "slim_after"), [("one-shot", 2), ("cubic", 3)])
def test_a_shared_structure_is_scored_by_data_first_and_then_cut(schedule, slim_after):
    pruning = PruningSpec(importance="activation", structure="shared", schedule=schedule, until=0.6)
    recorder = Memory()
    run(recorder, task=TASK.model_copy(update={"pruning": pruning}))
    sparsities = [record.sparsity for record in recorder.rounds]
    assert sparsities[0] == 0.0, "nothing is removed before there are scores"
    assert all(before <= after for before, after in pairwise(sparsities))
    assert min(sparsities[slim_after - 1 :]) == max(sparsities) == pytest.approx(0.5, abs=0.06)
    for record in recorder.rounds:
        assert len({device.report.structure.keep.tobytes() for device in record.devices if device.report}) == 1
