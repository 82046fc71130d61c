"""Aggregations by name. A new one is one file here, whose class is registered with ``AGGREGATIONS``."""

from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.initial import initial_adapter

__all__ = ["AGGREGATIONS", "PLAIN", "Accumulation", "Aggregator", "Frame", "initial_adapter"]
