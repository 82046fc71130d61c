"""Ways to aggregate by name. A new one is one file here and one line below."""

from slimfed.strategies.aggregation.base import PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.coverage import Coverage
from slimfed.strategies.aggregation.fedavg import FedAvg
from slimfed.strategies.aggregation.fedex import FedEx
from slimfed.strategies.aggregation.flexlora import FlexLora
from slimfed.strategies.aggregation.flora import Flora
from slimfed.strategies.aggregation.hetlora import HetLora
from slimfed.strategies.aggregation.initial import initial_adapter
from slimfed.strategies.aggregation.median import Median
from slimfed.strategies.aggregation.multi_krum import MultiKrum
from slimfed.strategies.aggregation.r2sp import R2sp
from slimfed.strategies.aggregation.soups import Soups
from slimfed.strategies.aggregation.trimmed_mean import TrimmedMean
from slimfed.strategies.aggregation.zero_padding import ZeroPadding

_LIARS = 0.2  # of all devices, so many may lie

AGGREGATIONS: dict[str, Aggregator] = {
    "coverage": Coverage(),
    "fedavg": FedAvg(),
    "zero-padding": ZeroPadding(),
    "hetlora": HetLora(),
    "flexlora": FlexLora(),
    "flora": Flora(),
    "fedex": FedEx(),
    "r2sp": R2sp(),
    "soups": Soups(),
    "trimmed-mean": TrimmedMean(_LIARS),
    "median": Median(),
    "multi-krum": MultiKrum(_LIARS),
}

EQUAL_STRUCTURES = ("fedavg", "soups")
"""Ways that refuse devices of unequal rank or structure."""

PLAIN_FACTORS = ("hetlora", "flexlora", "flora", "fedex", "r2sp")
"""Ways that know LoRA's two factors alone."""

SUMS = ("coverage", "fedavg", "zero-padding", "hetlora")
"""Ways whose factors are weighted sums of the devices', so that errors of one round and the next cancel."""

NO_DIRECTION = ("flexlora", "flora", "fedex")
"""Ways that write factors anew or put a part of the change elsewhere: factors before and after are no direction."""

__all__ = [
    "AGGREGATIONS",
    "EQUAL_STRUCTURES",
    "NO_DIRECTION",
    "PLAIN",
    "PLAIN_FACTORS",
    "SUMS",
    "Accumulation",
    "Aggregator",
    "Frame",
    "initial_adapter",
]
