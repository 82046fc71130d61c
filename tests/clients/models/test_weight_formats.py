"""The formats of a quantised base: what they round to, what they take, and that rows can be cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.clients.models.weight_formats import FORMATS

# The largest distance of neighbouring NF4 levels is 0.304, and of int8's 2 / 254, both of the largest weight.
WORST = {"int8": 1 / 254, "nf4": 0.304 / 2}


def matrix(seed: int, rows: int, width: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 0.05


@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), width=st.integers(1, 200), seed=st.integers(0, 99))
def test_every_weight_is_near_and_rows_are_their_own(name: str, rows: int, width: int, seed: int) -> None:
    form, whole = FORMATS[name], matrix(seed, rows, width)
    whole[0, 0] = 0.0
    codes, scales = form.pack(whole)
    back = form.unpack(codes, scales, width)
    assert back.dtype == torch.float32
    assert ((back - whole).abs() <= (WORST[name] + 1e-6) * whole.abs().amax(1, keepdim=True)).all()
    assert rows * form.row_bytes(width) == sum(t.numel() * t.element_size() for t in (codes, scales))
    kept = torch.arange(0, rows, 2)
    assert torch.equal(form.unpack(codes[kept], scales[kept], width), back[kept])
    for again, first in zip(form.pack(whole[kept]), (codes[kept], scales[kept]), strict=True):
        assert torch.equal(again, first), "cutting and quantising commute"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_zeros_stay_zeros(name: str) -> None:
    codes, scales = FORMATS[name].pack(torch.zeros(3, 70))
    assert torch.equal(FORMATS[name].unpack(codes, scales, 70), torch.zeros(3, 70))


def test_nf4_is_that_of_the_paper() -> None:
    """Levels and packing as bitsandbytes 0.50.2 gives them for this row of 64."""
    row = torch.linspace(-1.0, 1.0, 64)[None]
    codes, scales = FORMATS["nf4"].pack(row)
    assert scales.tolist() == [[1.0]]
    assert codes.flatten().tolist() == BITSANDBYTES
    levels = FORMATS["nf4"].unpack(codes, scales, 64).unique()
    assert len(levels) == 16
    assert levels[[0, 1, 7, 8, 15]].tolist() == pytest.approx([-1.0, -0.6961928, 0.0, 0.0795803, 1.0])


BITSANDBYTES = [
    0,
    0,
    1,
    17,
    17,
    17,
    18,
    34,
    34,
    51,
    52,
    68,
    69,
    85,
    102,
    103,
    120,
    136,
    153,
    170,
    171,
    187,
    204,
    204,
    221,
    221,
    238,
    238,
    238,
    239,
    255,
    255,
]
