"""The criterion "fisher" is what the loss says of a unit's mask."""

from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch
from small_models import CONFIGS, DECODERS
from training import adapter, assignment, device_data, opened, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.structure import Cut
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import Batch, DeviceContext, DeviceData, DeviceWork

CASES = [(family, causal) for family in CONFIGS for causal in ((False, True) if family in DECODERS else (False,))]
# The norms of decoders compute in float32, which a smaller step would drown in.
STEP = 0.02


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_the_score_is_the_square_of_the_loss_s_derivative_by_the_mask(family: str, causal: bool) -> None:
    base, blueprint = opened(family, causal)
    job, sent = task(causal, importance="fisher", events=1), adapter(base, blueprint, 3, 4)
    part = replace(assignment(0, 4, blueprint.dense(), 0.0, steps=1), score=True)
    text = next(iter(device_data(0, causal, 1).batches()))
    data = DeviceData(lambda: repeat(text), (text,), 1)
    nothing = np.zeros(blueprint.units, dtype=np.float32)
    scores = train_device(DeviceContext(base, blueprint, job), DeviceWork(part, sent, nothing, data)).scores

    adapted = ADAPTERS["lora"].training.attach(slice_model(base.model, blueprint.dense()), blueprint.dense(), sent, job)
    adapted.model.eval()
    place = 0
    for block in blueprint.blocks:
        cut = next(cut for cut in block.cuts if cut.side == "in")
        module = adapted.layer(cut.module).module
        for unit in range(min(block.units, 3)):
            up, down = (_loss(adapted.model, module, cut, unit, 1 + step, text) for step in (STEP, -STEP))
            assert np.sqrt(scores[place + unit]) == pytest.approx(abs(up - down) / (2 * STEP), rel=0.02, abs=3e-5)
        place += block.units
    assert np.sqrt(scores.max()) > 1e-3


def _loss(model: torch.nn.Module, module: torch.nn.Module, cut: Cut, unit: int, mask: float, text: Batch) -> float:
    """The loss with the unit's part of the input of ``module`` times ``mask``."""

    def scaled(_module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        x = inputs[0].clone()
        x[..., cut.indices(np.array([unit]))] *= mask
        return (x,)

    hook = module.register_forward_pre_hook(scaled)
    try:
        with torch.no_grad():
            return float(model(**text).loss)
    finally:
        hook.remove()
