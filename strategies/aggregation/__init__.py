"""Ways to aggregate by name. A new one is one file here and one line below."""

from slimfed.strategies.aggregation.base import Accumulation, Aggregator
from slimfed.strategies.aggregation.coverage import Coverage
from slimfed.strategies.aggregation.fedavg import FedAvg
from slimfed.strategies.aggregation.initial import initial_adapter
from slimfed.strategies.aggregation.median import Median
from slimfed.strategies.aggregation.multi_krum import MultiKrum
from slimfed.strategies.aggregation.trimmed_mean import TrimmedMean

_LIARS = 0.2  # of all devices, so many may lie

AGGREGATIONS: dict[str, Aggregator] = {
    "coverage": Coverage(),
    "fedavg": FedAvg(),
    "trimmed-mean": TrimmedMean(_LIARS),
    "median": Median(),
    "multi-krum": MultiKrum(_LIARS),
}

__all__ = ["AGGREGATIONS", "Accumulation", "Aggregator", "initial_adapter"]
