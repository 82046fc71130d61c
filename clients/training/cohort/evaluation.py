"""Evaluation of the devices' own models: a cohort in one pass instead of one sliced model after another."""

from collections.abc import Sequence

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.data.batching import TokenisedSplit
from slimfed.clients.evaluation.choices import choose
from slimfed.clients.evaluation.metrics import (
    Tally,
    batches,
    bytes_of,
    count,
    count_tokens,
    pass_tokens,
    with_choices,
)
from slimfed.clients.evaluation.next_token import predictions
from slimfed.clients.models.families import without_cache
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.training.cohort.first_token import read_first_token
from slimfed.clients.training.cohort.model import CohortModel, Members, attach_cohort
from slimfed.clients.training.work import DeviceContext
from slimfed.clients.update import Evaluation, Update


def together(task: TaskSpec, adapters: Sequence[Adapter]) -> bool:
    """True if the finished adapters are plain factors, which one pass can evaluate together.

    A quantised base is always evaluated so: the plain model of a device would hold its weights dequantised.
    """
    plain = [ADAPTERS[task.adapter.name].finished(adapter) for adapter in adapters]
    shared = task.engine == "cohort" or task.model.quantization != "none"
    return shared and not any(a.deltas or a.extra or a.residual or not a.factors for a in plain)


def evaluate_cohort(
    context: DeviceContext,
    updates: Sequence[Update],
    split: TokenisedSplit,
    rows: np.ndarray,
    tokens: int | None = None,
) -> list[Evaluation]:
    """Each device's model, after its round, on the same ``rows`` of ``split``: equal to ``evaluate`` up to rounding.

    For adapters of which :func:`together` is true. ``tokens``: those in a pass of all devices; default: by the device
    and its free memory, as for one model.
    """
    cohort = _attached(context, updates)
    device, devices = cohort.device, len(updates)
    tallies: list[Tally] = []
    answers: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        tokens = tokens or pass_tokens(cohort.model, device, split, rows)
        for batch in batches(split, rows, tokens // devices):
            labels = batch.pop("labels")
            joined = {name: tensor.to(device).repeat(devices, 1) for name, tensor in batch.items()}
            if labels.dim() == 2:
                counted = count_tokens(*predictions(cohort.model, joined, labels, devices))
                tallies = [old + new for old, new in zip(tallies, counted, strict=True)] if tallies else counted
            else:  # few numbers: fetched once, not after every pass
                logits = cohort.model(**joined, **without_cache(cohort.model)).logits.unflatten(0, (devices, -1))
                answers.append((logits, labels.to(device)))
            context.meter.evaluate(len(labels) * devices)
        shares = None if split.choices is None else choose(cohort.model, split.choices, rows, tokens, devices)
    if answers:
        logits, labels = torch.cat([each for each, _ in answers], dim=1), torch.cat([each for _, each in answers])
        tallies = [count(of_device, labels) for of_device in logits]
    found = [tally.evaluation(len(rows), bytes_of(split, rows)) for tally in tallies]
    if shares is None:
        return found
    plain, normalised = (share.tolist() for share in shares)
    return [with_choices(*each) for each in zip(found, plain, normalised, strict=True)]


def _attached(context: DeviceContext, updates: Sequence[Update]) -> CohortModel:
    """The cohort's model with the finished adapters."""
    spec = context.task.adapter
    finished = [ADAPTERS[spec.name].finished(update.adapter) for update in updates]
    structures, ranks = [update.report.structure for update in updates], [update.report.rank for update in updates]
    plain = AdapterSpec(scaling=spec.scaling)
    cohort = attach_cohort(context.base.model, Members(finished, structures, ranks), plain, context.dtype)
    if not all(structure.keep.all() for structure in structures):
        cohort.set_structures(structures)
    read_first_token(cohort.model, context.blueprint)
    cohort.model.eval()
    return cohort
