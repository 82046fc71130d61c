"""Importance criteria by name. A new one is one file here and one line below."""

from slimfed.clients.importance.activation import Activation
from slimfed.clients.importance.base import Importance, SmoothedScores
from slimfed.clients.importance.lora_gradient import LoraGradient
from slimfed.clients.importance.magnitude import Magnitude
from slimfed.clients.importance.random import Random

IMPORTANCE: dict[str, type[Importance]] = {
    "lora-gradient": LoraGradient,
    "magnitude": Magnitude,
    "activation": Activation,
    "random": Random,
}

__all__ = ["IMPORTANCE", "Importance", "SmoothedScores"]
