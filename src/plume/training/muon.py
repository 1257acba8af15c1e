"""Muon for hidden matrices and AdamW for everything else, as one optimiser.

Muon (Jordan 2024): the momentum of a matrix, looked ahead (Nesterov), is replaced by the nearest matrix whose
singular values are all about one, so that a step moves every direction alike. Not a torch.optim.Optimizer, whose first
use imports torch's compiler: a second of every start.
Shape suffixes: N matrices of one shape, R rows, C columns (R ≤ C).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

_STEPS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # Jordan's quintic: steepest at zero, ends between 0.7 and 1.2
_EPSILON = 1e-7
_ADAM_EPSILON = 1e-8


class Optimizer:
    """Groups with a `momentum` are orthogonalised, the others stepped by AdamW (Loshchilov & Hutter 2019).

    A group has `params`, `lr` and `weight_decay`; `state` holds tensors by name for each parameter stepped so far.
    With `bf16` matrices are orthogonalised in bfloat16.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, betas: tuple[float, float], bf16: bool = False) -> None:
        self.param_groups = list(groups)
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self._betas = betas
        self._products = torch.bfloat16 if bf16 else torch.float32

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            given = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if "momentum" in group:
                self._orthogonal_step(group, given)
            else:
                self._adamw_step(group, given)

    def _orthogonal_step(self, group: Mapping[str, Any], given: Sequence[tuple[Tensor, Tensor]]) -> None:
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, gradient in given:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(state["momentum_buffer"], group["momentum"])
            alike[tuple(sorted(parameter.shape))].append((parameter, ahead))
        for pairs in alike.values():
            ahead_NRC = torch.stack([_lying(ahead) for _, ahead in pairs])
            # A CPU gains nothing from many products at once, and one matrix fits its caches.
            parts = ahead_NRC.split(1 if ahead_NRC.device.type == "cpu" else len(pairs))
            updates_NRC = torch.cat([orthogonalised(part, self._products) for part in parts])
            for (parameter, _), update_RC in zip(pairs, updates_NRC, strict=True):
                rows, columns = parameter.shape
                update = update_RC if rows <= columns else update_RC.mT
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _adamw_step(self, group: Mapping[str, Any], given: Sequence[tuple[Tensor, Tensor]]) -> None:
        for parameter, _ in given:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter, _ in given]
        adamw(
            [parameter for parameter, _ in given],
            [gradient for _, gradient in given],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=_ADAM_EPSILON,
            maximize=False,
        )


def orthogonalised(matrices_NRC: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """About U Vᵀ of each U S Vᵀ, by five Newton–Schulz steps: products alone, no decomposition."""
    x_NRC: Tensor = (matrices_NRC / (matrices_NRC.norm(dim=(-2, -1), keepdim=True) + _EPSILON)).to(products)
    for _ in range(_STEPS):
        gram_NRR = x_NRC @ x_NRC.mT
        weights_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=_B, alpha=_C)
        x_NRC = torch.baddbmm(x_NRC, weights_NRR, x_NRC, beta=_A)
    return x_NRC.to(matrices_NRC.dtype)


def _lying(matrix: Tensor) -> Tensor:
    """No higher than wide, so that its Gram matrix is small."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
