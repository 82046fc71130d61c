"""All trained parameters of a cohort as one matrix, so that norms, clipping and the optimiser are few operations."""

import torch
from torch import nn
from torch.linalg import vector_norm

from slimfed.clients.adapters.training.base import outer_factors
from slimfed.clients.training.cohort.model import CohortModel


class Trained:
    """Values and gradients of ``cohort``'s trained parameters as [devices, entries]; parameters become views."""

    def __init__(self, cohort: CohortModel, weight_decay: float, proximal: float = 0.0, lora_plus: float = 1.0) -> None:
        self.parameters = cohort.parameters()
        self.adapter_entries = sum(parameter[0].numel() for parameter in cohort.adapter_parameters())
        self.values = nn.Parameter(torch.cat([p.detach().flatten(1) for p in self.parameters], dim=1))
        self.gradients = torch.zeros_like(self.values)
        self.values.grad = self.gradients
        for parameter, value, slope in zip(
            self.parameters, self.views(self.values.detach()), self.views(self.gradients), strict=True
        ):
            parameter.data, parameter.grad = value, slope
        self.proximal = proximal
        self.sent = self.values.detach().clone() if proximal > 0 else None
        spared = {id(p) for p in cohort.undecayed()}
        self._times: torch.Tensor | None = None
        if lora_plus != 1:
            quick = {id(p) for p in outer_factors(cohort)}
            self._times = torch.ones_like(self.values[:1].detach())
            for parameter, part in zip(self.parameters, self.views(self._times), strict=True):
                if id(parameter) in quick:
                    part.fill_(lora_plus)
        self._decay: torch.Tensor | None = None
        if weight_decay > 0:
            self._decay = torch.full_like(self.values[:1].detach(), weight_decay)
            for parameter, part in zip(self.parameters, self.views(self._decay), strict=True):
                if id(parameter) in spared:
                    part.zero_()
            if self._times is not None:
                self._decay.mul_(self._times)

    def views(self, whole: torch.Tensor) -> list[torch.Tensor]:
        """Parts of ``whole``, [devices, entries], in the shapes of the parameters."""
        parts = whole.split([parameter[0].numel() for parameter in self.parameters], dim=1)
        return [part.unflatten(1, p.shape[1:]) for part, p in zip(parts, self.parameters, strict=True)]

    def optimizer(self, learning_rate: float) -> torch.optim.AdamW:
        """AdamW over all entries, for :meth:`move`; its ``state`` has the moments of each parameter too, as views.

        For :meth:`hold` the state also has ``sent``, the start value of each parameter.

        On a GPU the step count and ``param_groups[0]["lr"]`` are tensors on the GPU, so that steps can be recorded.
        """
        gpu = self.values.is_cuda
        rate = torch.tensor(learning_rate, device=self.values.device) if gpu else learning_rate
        optimizer = torch.optim.AdamW([self.values], lr=rate, weight_decay=0.0, fused=True, capturable=gpu)
        moments = {name: torch.zeros_like(self.values.detach()) for name in ("exp_avg", "exp_avg_sq")}
        count = torch.zeros((), dtype=torch.float32, device=self.values.device if gpu else "cpu")
        optimizer.state[self.values] = {"step": count, **moments}
        known = moments if self.sent is None else moments | {"sent": self.sent}
        views = {name: self.views(whole) for name, whole in known.items()}
        for index, parameter in enumerate(self.parameters):
            optimizer.state[parameter] = {name: parts[index] for name, parts in views.items()}
        return optimizer

    def differentiate(self, loss: torch.Tensor) -> None:
        """Replace the gradients by those of ``loss``."""
        slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        torch.cat([slope.flatten(1) for slope in slopes], dim=1, out=self.gradients)

    def hold(self) -> None:
        """Add the gradient of FedProx's mu/2 |w - w_sent|^2 (arXiv 1812.06127, equation 2)."""
        if self.sent is not None:
            self.gradients.add_(self.values.detach() - self.sent, alpha=self.proximal)

    def clip(self, largest: float) -> None:
        """Scale each device's gradients to its own norm, as ``clip_grad_norm_`` does for one."""
        norms = vector_norm(self.gradients, dim=1, keepdim=True)
        self.gradients.mul_((largest / (norms + 1e-6)).clamp(max=1.0))

    def sensitivity(self) -> torch.Tensor:
        """Sum of |p * gp| over each device's adapter parameters, [devices]."""
        values, slopes = (whole[:, : self.adapter_entries] for whole in (self.values.detach(), self.gradients))
        return (values * slopes).abs_().sum(dim=1)  # the 1-norm, five times as fast on a CPU

    def move(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of AdamW, with weight decay first, except for entries without weight decay.

        A step of AdamW is proportional to the learning rate, so LoRA+ lengthens the steps of factors B.
        """
        if self._decay is not None:
            with torch.no_grad():
                self.values.mul_(1.0 - optimizer.param_groups[0]["lr"] * self._decay)
        if self._times is None:
            optimizer.step()
            return
        before = self.values.detach().clone()
        optimizer.step()
        with torch.no_grad():
            self.values.sub_(before).mul_(self._times).add_(before)
