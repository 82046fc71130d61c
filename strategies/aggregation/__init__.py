"""Ways to aggregate by name. A new one is one file here and one line below."""

from slimfed.strategies.aggregation.base import Accumulation, Aggregator
from slimfed.strategies.aggregation.coverage import Coverage
from slimfed.strategies.aggregation.fedavg import FedAvg
from slimfed.strategies.aggregation.initial import initial_adapter

AGGREGATIONS: dict[str, Aggregator] = {
    "coverage": Coverage(),
    "fedavg": FedAvg(),
}

__all__ = ["AGGREGATIONS", "Accumulation", "Aggregator", "initial_adapter"]
