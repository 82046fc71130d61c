"""Linear modules of a cohort: one product with the frozen weight for all rows, and each device's own part.

The rows of a batch belong to the devices in equal parts, in order: x is [devices * rows, ..., in].
"""

from dataclasses import dataclass

import torch
from torch import nn

from slimfed.clients.adapter import Factors
from slimfed.clients.adapters.training import lora_math
from slimfed.clients.adapters.training.batched_product import AdaptedProduct
from slimfed.clients.models.linear import bias_of, place_of, shape_of, weight_of
from slimfed.clients.models.quantised_linear import Source, frozen_product, weight_source
from slimfed.clients.models.tensors import to_array


def clear(parameter: nn.Parameter, has: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Zero the entries where ``has`` (0/1 in the parameter's shape) is 0: values, moments, and start values."""
    with torch.no_grad():
        parameter.mul_(has)
        for name in ("exp_avg", "exp_avg_sq", "sent"):
            if name in optimizer.state.get(parameter, {}):
                optimizer.state[parameter][name].mul_(has)


def masked_rows(x: torch.Tensor, devices: int, mask: torch.Tensor | None) -> torch.Tensor:
    """[devices * rows, ..., in] -> [devices, rows, in], with missing inputs (``mask`` [devices, in]) set to 0."""
    rows = x.reshape(devices, -1, x.shape[-1])
    return rows if mask is None else rows * mask[:, None, :]


@dataclass(frozen=True)
class _Cast:
    """A frozen weight and bias in one type."""

    dtype: torch.dtype
    weight: Source
    bias: torch.Tensor | None


def _cast(base: nn.Module, dtype: torch.dtype) -> _Cast:
    bias = bias_of(base)
    return _Cast(dtype, weight_source(base, dtype), None if bias is None else bias.to(dtype))


class CohortLinear(nn.Module):
    """y_n = W (m_n * x_n) + bias + scaling * B_n (A_n (m_n * x_n)) for device n.

    W [out, in] is shared and frozen; A is [devices, r, in], B [devices, out, r]. Smaller ranks are padded with zeros,
    which stay zero: the gradient of a zero row of A is made of the zero column of B, and the other way round. ``mask``,
    0/1 [devices, in], is set on the modules whose inputs are cut: with it, the factors' entries of a removed unit get
    no gradient, so that masking equals slicing. Computes in the type of x; weights and factors keep their types.
    """

    def __init__(self, base: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)
        self.scaling = scaling
        self.mask: torch.Tensor | None = None
        self._cast: _Cast | None = None

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight [out, in]."""
        return weight_of(self.base)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the frozen weight."""
        return shape_of(self.base)

    def frozen(self, dtype: torch.dtype) -> tuple[Source, torch.Tensor | None]:
        """Frozen weight and bias in ``dtype``; kept, since every step needs them, unless the weight is quantised."""
        if self._cast is None or self._cast.dtype != dtype:
            self._cast = _cast(self.base, dtype)
        return self._cast.weight, self._cast.bias

    @property
    def module(self) -> nn.Module:
        """The module, for hooks."""
        return self

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The effective A and B."""
        return self.a, self.b

    def trained(self) -> tuple[nn.Parameter, ...]:
        """A and B."""
        return self.a, self.b

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Empty: weight decay acts on A and B."""
        return ()

    def merged(self) -> torch.Tensor:
        """W + scaling * B A of every device."""
        return lora_math.merged(self.weight, *self.factors(), self.scaling)

    def first_order(self, side: str) -> torch.Tensor:
        """LoRAPrune's importance."""
        return lora_math.first_order(self.weight, self.a, self.b, self.scaling, side)

    def clear(self, side: str, mask: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Zero the rows of B or columns of A that devices have pruned, and their moments, so that they stay zero."""
        if side == "in":
            clear(self.a, mask[:, None, :], optimizer)
        else:
            clear(self.b, mask[:, :, None], optimizer)

    def read(self) -> list[Factors]:
        """The devices' factors, unpruned and at the cohort's rank. Each parameter is copied to the host once."""
        return [Factors(a, b) for a, b in zip(to_array(self.a), to_array(self.b), strict=True)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[devices * rows, ..., in] -> [devices * rows, ..., out]."""
        rows = masked_rows(x, len(self.a), self.mask)
        a, b = self.factors()
        y = AdaptedProduct.apply(
            rows,
            *self.frozen(rows.dtype),
            a.to(rows.dtype),
            (self.scaling * b).to(rows.dtype),
        )
        return y.reshape(*x.shape[:-1], -1)


class BareCohortLinear(nn.Module):
    """y_n = W (m_n * x_n) + bias for device n: a linear without adapter, whose inputs are masked where they are cut."""

    def __init__(self, base: nn.Module, devices: int) -> None:
        super().__init__()
        self.base = base
        self.devices = devices
        self.mask: torch.Tensor | None = None
        self._cast: _Cast | None = None

    @property
    def weight(self) -> torch.Tensor:
        """Frozen weight [out, in]."""
        return weight_of(self.base)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the frozen weight."""
        return shape_of(self.base)

    @property
    def module(self) -> nn.Module:
        """The module, for hooks."""
        return self

    def trained(self) -> tuple[nn.Parameter, ...]:
        """Nothing."""
        return ()

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Nothing."""
        return ()

    def merged(self) -> torch.Tensor:
        """W of every device, a view."""
        return self.weight.expand(self.devices, -1, -1)

    def first_order(self, side: str) -> torch.Tensor:
        """0: its gradient is not known."""
        device, dtype = place_of(self.base)
        return torch.zeros(self.devices, self.shape[0 if side == "out" else 1], dtype=dtype, device=device)

    def clear(self, side: str, mask: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Nothing lies in what the devices have pruned."""

    def read(self) -> list[Factors]:
        """Nothing."""
        return []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[devices * rows, ..., in] -> [devices * rows, ..., out]."""
        if self._cast is None or self._cast.dtype != x.dtype:
            self._cast = _cast(self.base, x.dtype)
        rows = masked_rows(x, self.devices, self.mask)
        return frozen_product(rows, self._cast.weight, self._cast.bias).reshape(*x.shape[:-1], -1)


class CohortHead(nn.Module):
    """A linear module of the task head, trained in full by every device: W [devices, out, in], bias [devices, out]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[devices * rows, ..., in] -> [devices * rows, ..., out]."""
        rows = x.reshape(len(self.weight), -1, x.shape[-1])
        weight = self.weight.mT.to(rows.dtype)
        y = (
            torch.bmm(rows, weight)
            if self.bias is None
            else torch.baddbmm(self.bias[:, None].to(rows.dtype), rows, weight)
        )
        return y.reshape(*x.shape[:-1], -1)
