"""Random structures and adapters of the small models."""

import numpy as np
import torch
from small_models import CONFIGS, DECODERS

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.structure import Blueprint, Structure

CASES = [(family, causal) for family in CONFIGS for causal in ((False, True) if family in DECODERS else (False,))]


def draw_structure(blueprint: Blueprint, seed: int, within: Structure | None = None) -> Structure:
    """A random structure with unlike layers that keeps at least one unit a block."""
    draw = np.random.default_rng(seed)
    keep = draw.random(blueprint.units) < draw.uniform(0.2, 0.9)
    if within is not None:
        keep &= within.keep
    for index in range(len(blueprint.blocks)):
        span = blueprint.span(index)
        allowed = np.flatnonzero(within.keep[span]) if within is not None else np.arange(span.stop - span.start)
        keep[span.start + draw.choice(allowed)] = True
    return Structure(blueprint, keep)


def draw_adapter(model: torch.nn.Module, blueprint: Blueprint, seed: int, rank: int = 4) -> Adapter:
    """Random factors in the shape of the unpruned model."""
    draw = np.random.default_rng(seed)
    factors = {}
    for name in blueprint.modules:
        module = model.get_submodule(name)
        rows, columns = module.weight.shape if isinstance(module, torch.nn.Linear) else module.weight.shape[::-1]
        factors[name] = Factors(
            draw.normal(0, 0.3, (rank, columns)).astype(np.float32),
            draw.normal(0, 0.3, (rows, rank)).astype(np.float32),
        )
    return Adapter(factors, {})
