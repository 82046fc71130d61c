"""Selections by name: which devices a round asks. A new one is one file here, registered with ``SELECTORS``."""

from slimfed.strategies.selection.base import SELECTORS, Answer, Call, Selector, make_selector, unpack_selector
from slimfed.strategies.selection.participation import Participation

__all__ = ["SELECTORS", "Answer", "Call", "Participation", "Selector", "make_selector", "unpack_selector"]
