"""Flower's server optimisers, applied to an aggregate that is already computed."""

from collections.abc import Iterable

from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

from slimfed.strategies.server.base import Arrays


class Averaged(FedAvg):
    """Replaces Flower's averaging by a given average, from which Flower's optimisers make their step."""

    averaged: ArrayRecord

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The value of :attr:`averaged`; there are no replies."""
        return self.averaged, None


class AveragedFedAdam(FedAdam, Averaged):
    """Flower's FedAdam on :attr:`averaged`."""


class AveragedFedAvgM(FedAvgM, Averaged):
    """Flower's FedAvgM on :attr:`averaged`."""


def record(arrays: Arrays) -> ArrayRecord:
    """Named tensors as Flower's record."""
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})
