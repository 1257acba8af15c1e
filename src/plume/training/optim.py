"""AdamW and its schedule, with state that goes through safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from plume.recipe import Recipe
from plume.types import LanguageModel

_FLOOR = 0.05


def make_optimizer(model: LanguageModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); matrices decay, vectors (norms, biases) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (recipe.adam_beta1, recipe.adam_beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate or 0.0, betas=betas, fused=True)


def learning_rate(step: int, recipe: Recipe) -> float:
    """The rate of a 1-based step: linear warm-up, then the recipe's decay."""
    peak, warmup, last = recipe.learning_rate or 0.0, recipe.warmup_steps or 0, recipe.max_steps or 1
    if step <= warmup:
        return peak * step / (warmup + 1)
    done = (step - warmup) / max(1, last - warmup)
    if recipe.lr_scheduler_type == "linear":
        return peak * max(_FLOOR, 1 - (1 - _FLOOR) * done)
    if recipe.lr_scheduler_type == "cosine":
        return peak * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
    return peak


def optimizer_tensors(model: LanguageModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `exp_avg.<parameter>` and so on."""
    return {
        f"{key}.{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: LanguageModel, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    for full, value in tensors.items():
        key, _, name = full.partition(".")
        optimizer.state[parameters[name]][key] = value
