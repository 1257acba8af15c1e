"""The optimiser and its schedule, with state that goes through safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plume.recipe import Recipe
from plume.training.muon import Optimizer
from plume.training.sharding import alike, whole
from plume.types import LanguageModel

_FLOOR = 0.05
_MOMENTUM = 0.9


def make_optimizer(model: LanguageModel, recipe: Recipe) -> Optimizer:
    """AdamW, or Muon for the matrices inside the layers and AdamW for the rest.

    Matrices decay, vectors (norms, biases) do not.
    """
    betas, rate = (recipe.adam_beta1, recipe.adam_beta2), recipe.peak_learning_rate
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    hidden = {name for name, parameter in named.items() if recipe.optim == "muon" and _hidden(name, parameter)}
    rest = [parameter for name, parameter in named.items() if name not in hidden]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": recipe.weight_decay, "initial_lr": rate},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0, "initial_lr": rate},
    ]
    if hidden:
        matrices = [parameter for name, parameter in named.items() if name in hidden]
        settings = {"weight_decay": recipe.weight_decay, "initial_lr": recipe.muon_learning_rate or 0.0}
        groups.append({"params": matrices, **settings, "momentum": _MOMENTUM})
    return Optimizer(groups, betas=betas, bf16=bool(recipe.bf16))


def _hidden(name: str, parameter: Tensor) -> bool:
    """A matrix of a numbered layer: neither an embedding nor the head."""
    return parameter.dim() == 2 and any(part.isdigit() for part in name.split("."))


def learning_rate(step: int, recipe: Recipe) -> float:
    """AdamW's rate of a 1-based step."""
    return (recipe.peak_learning_rate) * schedule(step, recipe)


def schedule(step: int, recipe: Recipe) -> float:
    """The part of its peak that a rate has at a 1-based step: linear warm-up, then the recipe's decay."""
    warmup, last = recipe.warmup_steps or 0, recipe.max_steps or 1
    if step <= warmup:
        return step / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, last - warmup))
    if recipe.lr_scheduler_type == "linear":
        return 1 - (1 - _FLOOR) * done
    if recipe.lr_scheduler_type == "cosine":
        return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def optimizer_tensors(model: LanguageModel, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, each whole: `exp_avg.<parameter>` and so on."""
    return {
        f"{key}.{name}": whole(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: LanguageModel, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    for full, value in tensors.items():
        key, _, name = full.partition(".")
        optimizer.state[parameters[name]][key] = alike(value, parameters[name].detach())
