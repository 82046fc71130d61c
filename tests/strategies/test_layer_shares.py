"""Layer shares in a run: what devices measure adds up to that of their text, decides once, and survives a resume."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rounds import Clock, Evaluator, Memory, assert_same_checkpoint

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.calibration.stream_angles import stream_angles
from slimfed.clients.messages.records import decode_results, encode_results, update_bytes
from slimfed.clients.node.layer_shares import calibration_batches
from slimfed.clients.node.runtime import NodeRuntime, open_runtime
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.seeds import derive
from slimfed.clients.spec import (
    AdapterSpec,
    CalibrationSpec,
    DataSpec,
    ModelSpec,
    PrivacySpec,
    PruningSpec,
    TaskSpec,
    TrainingSpec,
)
from slimfed.clients.update import Assignment, Report, Update, Workload
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.bandits import BanditSpec
from slimfed.strategies.checks.update_checks import find_unfit
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.strategy import FedSlim
from slimfed.strategies.transport import StopRequestedError

TARGET = 0.5


def task(allocation: str = "cfsp", importance: str = "magnitude", devices: int = 4, tokens: int = 200) -> TaskSpec:
    return TaskSpec(
        seed=5,
        devices=6,
        model=ModelSpec(),
        data=DataSpec(max_length=24),
        adapter=AdapterSpec(),
        pruning=PruningSpec(
            structure="shared",
            schedule="cubic",
            until=0.75,
            allocation=allocation,
            importance=importance,
            target_sparsity=TARGET,
        ),
        training=TrainingSpec(rounds=4, local_steps=3, batch_size=4, learning_rate=5e-3),
        calibration=CalibrationSpec(devices=devices, tokens=tokens),
        cohort_size=2,
    )


def settings(of: TaskSpec) -> StrategySettings:
    return StrategySettings(
        task=of,
        bandit=BanditSpec(name="fixed", ranks=(4,)),
        aggregation="coverage",
        target_sparsity=TARGET,
        evaluate_every=4,
        evaluate_devices=0,
        nodes=2,
        reply_seconds=120,
        straggler_seconds=None,
        quorum=0.5,
        retries=1,
    )


def begun(runtime: NodeRuntime, measured: np.ndarray | None = None) -> Fleet:
    base, blueprint = runtime.base, runtime.blueprint
    shapes = {name: tuple(base.model.get_submodule(name).weight.shape) for name in blueprint.modules}
    adapter = initial_adapter(shapes, 4, head_state(base.model, base.head), 5)
    scores = runtime.scores_of_base()
    return Fleet.new(blueprint, adapter, 6, BanditSpec(name="fixed", ranks=(4,)), 5, scores, measured=measured)


def run(of: TaskSpec, recorder: Memory, fleet: Fleet | None = None) -> Fleet:
    fleet = fleet or begun(open_runtime(of))
    FedSlim(settings(of), fleet, Clock(), recorder, Evaluator()).start(LocalGrid(2))
    return fleet


def test_devices_measure_once_what_their_text_says_together_and_the_shares_follow() -> None:
    of, recorder = task(), Memory()
    runtime = open_runtime(of)
    fleet = run(of, recorder)
    asked = [[d.assignment.device for d in r.devices if d.assignment.calibrate] for r in recorder.rounds]
    assert [len(each) for each in asked] == [4, 0, 0, 0], "the first round decides"
    assert recorder.rounds[0].devices[0].assignment.structure.sparsity == 0, "nothing goes before anything is known"
    text = []
    for device in asked[0]:
        seed = derive(of.seed, "calibration", device)
        text += calibration_batches(runtime.train, runtime.parts[device], 200, 4, seed)
    model = slice_model(runtime.base.model, runtime.blueprint.dense())
    together = stream_angles(model, runtime.blueprint, text)
    assert fleet.measured is not None
    assert fleet.measured[0] == together.tokens
    assert fleet.measured[0] <= 4 * 200
    np.testing.assert_allclose(fleet.measured[1:], together.total, rtol=1e-5)
    assert 0 <= TARGET - fleet.structure.sparsity < 2e-3
    shares = [len(fleet.structure.kept(n)) / block.units for n, block in enumerate(fleet.blueprint.blocks)]
    weights = ALLOCATIONS["cfsp"].weights(fleet.blueprint, fleet.measured, 1 - TARGET)
    ffns = [n for n, block in enumerate(fleet.blueprint.blocks) if block.kind == "ffn"]
    assert np.argsort([shares[n] for n in ffns]).tolist() == np.argsort(weights[ffns]).tolist()
    assert len({shares[n] for n in ffns}) > 1
    bytes_up = {d.assignment.device: d.bytes_up for d in recorder.rounds[0].devices}
    extra = 8 * (1 + len(fleet.blueprint.blocks))
    assert {bytes_up[d] - min(bytes_up.values()) for d in asked[0]} == {extra}, "a number for each block, and a weight"


def test_a_resumed_run_goes_on_with_what_was_measured_to_the_bit() -> None:
    of, whole, first, rest = task(), Memory(), Memory(stop_after=1), Memory()
    run(of, whole)
    with pytest.raises(StopRequestedError):
        run(of, first)
    tensors, state = first.checkpoints[-1]
    assert "measured" in tensors
    run(of, rest, Fleet.restore(open_runtime(of).blueprint, tensors, json.loads(state)))
    assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])


def test_shares_by_shape_need_no_text_and_begin_in_the_first_round() -> None:
    recorder = Memory()
    fleet = run(task("erk"), recorder)
    assert fleet.measured is None
    assert not any(d.assignment.calibrate for r in recorder.rounds for d in r.devices)
    assert recorder.rounds[0].devices[0].assignment.structure.sparsity > 0.1
    assert 0 <= TARGET - fleet.structure.sparsity < 2e-3


def test_criteria_of_text_and_shares_are_learnt_in_the_same_round() -> None:
    recorder = Memory()
    fleet = run(task(importance="activation", devices=2), recorder)
    assert 0 <= TARGET - fleet.structure.sparsity < 2e-3
    assert [r.devices[0].assignment.structure.sparsity > 0 for r in recorder.rounds] == [False, True, True, True]


def test_a_server_that_has_measured_asks_no_device() -> None:
    of = task()
    of = of.model_copy(update={"calibration": CalibrationSpec(source="server", tokens=100)})
    runtime = open_runtime(of)
    adapter = begun(runtime).adapter
    measured = runtime.measured_by_server(adapter, runtime.blueprint.dense())
    assert measured[0] <= 100
    np.testing.assert_array_equal(measured, runtime.measured_by_server(adapter, runtime.blueprint.dense()))
    recorder = Memory()
    fleet = run(of, recorder, begun(runtime, measured))
    assert not any(d.assignment.calibrate for r in recorder.rounds for d in r.devices)
    assert recorder.rounds[0].devices[0].assignment.structure.sparsity > 0.1
    np.testing.assert_array_equal(fleet.measured, measured)


@pytest.fixture(scope="module")
def assigned() -> Assignment:
    """Of a device that measures."""
    recorder = Memory(stop_after=1)
    with pytest.raises(StopRequestedError):
        run(task(), recorder)
    return next(d.assignment for d in recorder.rounds[0].devices if d.assignment.calibrate)


def test_a_device_cuts_nothing_of_unequal_layers_that_it_was_sent() -> None:
    """Layers that are less sparse than the whole are not cut to the sparsity of the whole."""
    of = task(importance="activation")
    runtime, recorder = open_runtime(of), Memory()
    turned = np.linspace(10, 90, len(runtime.blueprint.blocks))
    run(of, recorder, begun(runtime, np.array([100.0, *turned])))
    for record in recorder.rounds:
        for device in record.devices:
            assert device.report is not None, record.events
            assert device.report.structure == device.assignment.structure
    last = recorder.rounds[-1].devices[0].report.structure
    shares = [len(last.kept(n)) / block.units for n, block in enumerate(last.blueprint.blocks)]
    assert max(shares) - min(shares) > 0.3


def test_a_private_fleet_trains_the_server_s_shares_and_nothing_is_cut_beside_them() -> None:
    privacy = PrivacySpec(kind="central", noise_multiplier=0.1)
    source = CalibrationSpec(source="server", tokens=100)
    of = task(importance="random").model_copy(update={"privacy": privacy, "calibration": source})
    runtime, recorder = open_runtime(of), Memory()
    turned = np.linspace(10, 90, len(runtime.blueprint.blocks))
    fleet = run(of, recorder, begun(runtime, np.array([100.0, *turned])))
    assert 0 <= TARGET - fleet.structure.sparsity < 2e-3
    assert all(device.structure == fleet.structure for device in fleet.devices)


def _update(runtime: NodeRuntime, adapter: Adapter, measured: np.ndarray | None) -> Update:
    dense = runtime.blueprint.dense()
    report = Report(0, 1, 4, 4.0, dense, 1.0, 0.9, 0.1, 10, 1.0, 0, Workload(1e9, 1e6, 1e6), None)
    return Update(report, adapter, np.zeros(runtime.blueprint.units, np.float32), measured)


@pytest.mark.parametrize(
    ("measured", "kind"),
    [
        ("sound", None),
        ("none", "names"),
        ("float32", "shape"),
        ("short", "shape"),
        ("nan", "not-finite"),
        ("negative", "range"),
        ("weightless", "range"),
        ("weighty", "range"),
    ],
)
def test_what_a_device_measured_is_checked(assigned: Assignment, measured: str, kind: str | None) -> None:
    runtime = open_runtime(task())
    fleet = begun(runtime)
    sound = np.full(1 + len(runtime.blueprint.blocks), 3.0)
    given = {
        "sound": sound,
        "none": None,
        "float32": sound.astype(np.float32),
        "short": sound[1:],
        "nan": np.where(np.arange(len(sound)) == 2, np.nan, sound),
        "negative": np.where(np.arange(len(sound)) == 2, -1.0, sound),
        "weightless": np.where(np.arange(len(sound)) == 0, 0.0, sound),
        "weighty": np.where(np.arange(len(sound)) == 0, 201.0, sound),
    }[measured]
    update = _update(runtime, fleet.adapter, given).with_report(device=assigned.device)
    (back,) = decode_results(encode_results([update]), runtime.blueprint)
    assert isinstance(back, Update), back
    assert update_bytes(back) == update_bytes(update)
    found = find_unfit([back], {assigned.device: assigned}, fleet.adapter)
    assert [each.finding.kind for each in found] == ([] if kind is None else [kind])
    if measured == "sound":
        (odd,) = find_unfit([back], {assigned.device: replace(assigned, calibrate=0)}, fleet.adapter)
        assert "not asked" in odd.finding.cause
