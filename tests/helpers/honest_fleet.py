"""A small fleet whose devices follow their plans, and what the checks of a round say of its replies."""

from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, RecordDict
from training import adapter, opened

from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.selection import select
from slimfed.clients.update import Assignment, Report, Update, Workload
from slimfed.strategies.accumulation import GradedAccumulators, RoundAccumulator
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import Arm, BanditSpec
from slimfed.strategies.checks.reply_validation import ReplyValidation, RoundOutcome, ValidationRules
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Completion
from slimfed.strategies.server_state import Fleet

DEVICES = 7
BASE, BLUEPRINT = opened("bert", False)
WHOLE = adapter(BASE, BLUEPRINT, 1, 4)
FLEET = Fleet.new(BLUEPRINT, WHOLE, DEVICES, BanditSpec(ranks=(2, 4)), 1)


class Clock:
    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        return Completion(0.0, 1.0, 0.0)


def honest(device: int) -> tuple[Plan, Update]:
    """A device's plan, and what a device that followed it would send."""
    draw, rank = np.random.default_rng(device), 2 + 2 * (device % 2)
    dense = BLUEPRINT.dense()
    scores = draw.random(BLUEPRINT.units).astype(np.float32)
    left = select(dense, scores, 0.3, "layer")
    assignment = Assignment(device, 1, rank, 0.3, 3, 1e-3, 1e-3, device, False, dense)
    own = narrow(WHOLE, dense, left, rank)
    for tensor in own.tensors():
        tensor += (1e-3 * draw.standard_normal(tensor.shape)).astype(np.float32)
    scores = np.where(left.keep, scores, 0).astype(np.float32)
    report = Report(device, 1, rank, rank, left, 1.0, 0.9, 0.1, 10, 1.0, 5, Workload(1.0, 1.0, 1.0), None)
    return Plan(assignment, Arm(0.3, rank)), Update(report, own, scores)


HONEST = [honest(device) for device in range(DEVICES)]


def reply(node: int, content: RecordDict) -> Message:
    LocalGrid(0)  # sets what Flower asks for when a message is made
    return Message(content, reply_to=Message(RecordDict(), node, "train"))


@dataclass(frozen=True)
class Validated(RoundOutcome):
    """An outcome, and the sums of the accepted updates."""

    accumulated: RoundAccumulator = field(kw_only=True)


def validate(replies: list[Message], rules: ValidationRules | None = None) -> Validated:
    """The outcome of replies, each of a node that was given one device."""
    sums = GradedAccumulators(
        lambda: RoundAccumulator(AGGREGATIONS["coverage"].start(WHOLE), BLUEPRINT.units, range(DEVICES))
    )
    space = GlobalVector(WHOLE, BLUEPRINT)
    plans = [plan for plan, _ in HONEST]
    validation = ReplyValidation(FLEET, plans, Clock(), sums, space, rules or ValidationRules())
    for each in replies:
        validation.receive(each, {each.metadata.src_node_id - 1}, elapsed=1.0)
    found, accumulated = validation.finish()
    return Validated(found.devices, found.events, accumulated=accumulated)
