"""Where a run is inside a round: told by the server's own loop, and by nodes before they reply."""

from dataclasses import replace
from functools import partial

import pytest
from rounds import Clock, Memory, small_settings, small_task
from training import assignment

from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.telemetry.meter import Amount, Meter
from slimfed.clients.telemetry.telling import VARIABLE, folder_of, telling, told
from slimfed.platform.server.evaluator import GlobalEvaluator
from slimfed.strategies.first_adapter import first_adapter
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.progress import RunProgress
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.strategy import FedSlim

TASK = small_task(devices=4, rounds=1)
SETTINGS = small_settings(TASK, every=1, own=0, retries=1)


def new_fleet() -> Fleet:
    runtime = open_runtime(TASK)
    adapter = first_adapter(runtime.base, runtime.blueprint, "lora", 4, 5)
    return Fleet.new(runtime.blueprint, adapter, TASK.devices, SETTINGS.bandit, 5)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_meter_tells_twice_a_second_however_often_it_counts() -> None:
    clock, heard = Time(), []
    meter = Meter(heard.append, clock)
    for _ in range(100):
        meter.train(0.5)
        clock.now += 0.01
    assert [amount.trained for amount in heard] == [25.5]
    assert meter.amount == Amount(trained=50.0)


def test_devices_count_when_their_message_is_answered_or_its_node_tells_of_them() -> None:
    under_way = {0: Amount(2.5), 10: Amount(10.0, 30, 40)}
    progress = RunProgress(lambda _round, firsts: sum((under_way[first] for first in firsts), Amount()))
    progress.begin(3, 21)
    assert (progress.now().phase, progress.now().round) == ("planning", 3)
    progress.send([0, 10], absent=1)
    assert (progress.now().phase, progress.now().trained) == ("training", 13.5)
    progress.receive(10, 10)
    progress.receive(10, 10)  # a reply that comes twice
    assert progress.now().trained == 13.5
    under_way[0] = Amount(10.0, 5, 40)
    moment = progress.now()
    assert (moment.phase, moment.trained, moment.rows_done, moment.rows) == ("measuring", 21.0, 5, 40)
    progress.send([0, 10])  # the round is repeated
    under_way.clear()
    under_way.update({0: Amount(), 10: Amount(1.0)})
    assert (progress.now().phase, progress.now().trained) == ("training", 1.0)


def test_rows_of_nodes_that_have_replied_stay_counted() -> None:
    under_way = {0: Amount(1.0, 10, 100), 1: Amount(1.0, 90, 100)}
    progress = RunProgress(lambda _round, firsts: sum((under_way[first] for first in firsts), Amount()))
    progress.begin(1, 2)
    progress.send([0, 1])
    assert (progress.now().rows_done, progress.now().rows) == (100, 200)
    progress.receive(1, 1)
    assert (progress.now().rows_done, progress.now().rows) == (110, 200)


def test_what_a_node_tells_is_gone_when_it_replies(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meter, "every_seconds", 0.0)
    blueprint = open_runtime(TASK).blueprint
    with telling(tmp_path, [assignment(7, 4, blueprint.dense(), 0.5)]) as meter:
        meter.train(0.25)
        (number,) = {assignment(7, 4, blueprint.dense(), 0.5).round}
        assert told(tmp_path, number, [7]) == Amount(0.25)
        assert told(tmp_path, number + 1, [7]) == told(tmp_path, number, [8]) == Amount()
    assert list(tmp_path.iterdir()) == []
    assert told(None, 1, [7]) == Amount()


def test_a_folder_that_cannot_be_written_costs_the_display_and_not_the_round(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Meter, "every_seconds", 0.0)
    with telling(tmp_path / "gone", [assignment(7, 4, open_runtime(TASK).blueprint.dense(), 0.5)]) as meter:
        meter.train(0.25)


def test_the_folder_comes_from_the_environment_or_the_node(tmp_path) -> None:
    assert folder_of({}, {}) is None
    assert folder_of({}, {VARIABLE: str(tmp_path)}) == folder_of({VARIABLE: str(tmp_path)}, {}) == tmp_path


@pytest.mark.parametrize("engine", ["cohort", "sequential"])
def test_a_round_is_followed_from_its_plan_to_its_record(engine: str, tmp_path, monkeypatch) -> None:
    """Real parts: every step that a node trains and every batch that is evaluated is seen by another reader."""
    monkeypatch.setattr(Meter, "every_seconds", 0.0)
    task = TASK.model_copy(update={"engine": engine})
    settings = replace(SETTINGS, task=task, evaluate_devices=2)
    progress = RunProgress(partial(told, tmp_path))
    seen = []

    class Watched(Memory):
        def record(self, *given) -> None:
            seen.append(progress.now())
            super().record(*given)

    tell, evaluate = Meter._maybe_tell, Meter.evaluate

    def looked(meter: Meter) -> None:
        tell(meter)
        if meter is not progress.meter:
            seen.append(progress.now())

    def evaluated(meter: Meter, rows: int) -> None:
        evaluate(meter, rows)
        if meter is progress.meter:
            seen.append(progress.now())

    monkeypatch.setattr(Meter, "_maybe_tell", looked)
    monkeypatch.setattr(Meter, "evaluate", evaluated)
    evaluator = GlobalEvaluator(open_runtime(task), 1, progress.meter)
    strategy = FedSlim(settings, new_fleet(), Clock(), Watched(), evaluator, progress=progress)
    strategy.start(LocalGrid(2, config={VARIABLE: str(tmp_path)}))
    assert {moment.phase for moment in seen if moment.round == 0} == {"evaluating"}, "the untuned model"
    seen = [moment for moment in seen if moment.round > 0]
    phases = list(dict.fromkeys(moment.phase for moment in seen))
    assert phases == ["training", "measuring", "evaluating", "recording"]
    training = [moment.trained for moment in seen if moment.phase == "training"]
    assert training == sorted(training)
    assert any(value % 1 for value in training), "parts of a device count"
    measuring = [(moment.rows_done, moment.rows) for moment in seen if moment.phase == "measuring"]
    assert measuring[-1][0] == measuring[-1][1] > 0
    last = next(moment for moment in reversed(seen) if moment.phase == "evaluating")
    assert last.rows_done == last.rows == len(open_runtime(task).test)
    assert list(tmp_path.iterdir()) == []
