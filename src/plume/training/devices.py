"""Where training runs: CUDA, Apple's MPS or the CPU, and in which precision."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from plume.errors import UserError
from plume.events import Choice
from plume.processors import bfloat16_units
from plume.recipe import Recipe
from plume.training.processes import World
from plume.types import LanguageModel

_LARGE = 10_000_000  # parameters of a model whose products outweigh what casting costs on a CPU


def pick_device(recipe: Recipe, world: World) -> torch.device:
    """The device that the recipe names, else the best there is; each process of a machine takes its own GPU.

    Raises UserError when the named device is not there.
    """
    there: dict[str, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name: str = recipe.device or next(name for name, present in there.items() if present)
    if not there[name]:
        here = ", ".join(name for name, present in there.items() if present)
        raise UserError(f"device={name}: torch finds none on this machine", f"leave device out; there is: {here}")
    if name != "cuda":
        return torch.device(name)
    if world.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {world.local_rank} of this machine has no GPU: torch finds {torch.cuda.device_count()}",
            "start as many processes as there are GPUs (--nproc-per-node)",
        )
    torch.cuda.set_device(world.local_rank)
    # Products of float32 may round their inputs to TF32: ten bits of mantissa, the range of float32.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", world.local_rank)


def move(model: LanguageModel, device: torch.device) -> None:
    """Bring a model's tensors to a device, in place."""
    cast(nn.Module, model).to(device)


def choose_bf16(model: LanguageModel, device: torch.device, root: Path = Path("/")) -> Choice:
    """Whether products in bfloat16 pay: where the device has units for it, and on a CPU for large models alone.

    A CPU without such units takes several times longer; torch's GRU in bfloat16 was not tried on one.
    `root` is where /proc begins.
    """
    if device.type == "cpu" and bfloat16_units(root):
        recurrent = any(isinstance(part, nn.RNNBase) for part in cast(nn.Module, model).modules())
        large = sum(parameter.numel() for parameter in model.parameters()) >= _LARGE
        if recurrent or not large:
            return Choice(False, f"on a CPU it pays from {_LARGE:,} parameters on, recurrent layers apart")
        return Choice(True, "a large model, and the CPU has units for bfloat16")
    able = _able(device)
    return Choice(able, "it has units for bfloat16" if able else "it has no units for bfloat16")


def wants_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether products are in bfloat16: as the recipe says, else on a GPU with units for it.

    Raises UserError when asked for on a GPU without them.
    """
    able = _able(device)
    if recipe.bf16 and device.type == "cuda" and not able:
        raise UserError("bf16=true: this GPU has no units for bfloat16", "leave bf16 out")
    return able if recipe.bf16 is None else recipe.bf16


def _able(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
