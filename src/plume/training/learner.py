"""What learns: a model with its loss and optimiser, on its device, alone or as one of several processes."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from plume.errors import UserError
from plume.recipe import Recipe
from plume.training.batches import IGNORE, Batch
from plume.training.devices import move, pick_device, wants_bf16
from plume.training.muon import Optimizer
from plume.training.optim import make_optimizer
from plume.training.processes import World
from plume.training.sharding import fill_in, shard, whole
from plume.types import LanguageModel

# Tokens a row up to which attention on a CPU in bfloat16 is quicker whole than in torch's tiles, whose backward pass
# makes many small products.
_SHORT = 256


@runtime_checkable
class OwnLoss(Protocol):
    """A model that computes the summed loss of hidden states (N, C) for less than all their logits."""

    def summed_loss(self, hidden_NC: Tensor, labels_N: Tensor) -> Tensor: ...


@runtime_checkable
class _Packable(Protocol):
    """A model of which it is not known beforehand that it keeps packed documents apart."""

    def check_packing(self) -> None: ...


class Objective(nn.Module):
    """The loss as a module, so that whatever shards or replicates modules sees the head used inside it."""

    def __init__(self, model: LanguageModel, *, bf16: bool = False, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self._bf16 = bf16
        # A function, not the module: what is evaluated stays as it is. How many positions are trained differs from
        # batch to batch, so the loss stays outside.
        self._compiled = torch.compile(lambda *inputs: model(*inputs)) if compiled else None

    def forward(self, batch: Batch) -> Tensor:
        """Negative log-likelihood in nats, summed over trained positions; logits exist at those alone."""
        device = batch.ids_BT.device.type
        few = self._bf16 and device == "cpu" and batch.ids_BT.shape[1] <= _SHORT
        attention = sdpa_kernel(SDPBackend.MATH) if few else contextlib.nullcontext()
        with torch.autocast(device, torch.bfloat16, enabled=self._bf16), attention:
            read = self._compiled or self.model
            hidden_BTC, _ = read(batch.ids_BT, None, batch.lengths_B, batch.segments_BT)
            trained_BT = batch.labels_BT != IGNORE
            hidden_NC, labels_N = hidden_BTC[trained_BT], batch.labels_BT[trained_BT]
            if isinstance(self.model, OwnLoss):
                return self.model.summed_loss(hidden_NC, labels_N)
            logits_NV = self.model.head(hidden_NC)
        return F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


@dataclass(frozen=True)
class Learner:
    """`model` is what is trained: with FSDP a sharded copy, else the model that was given."""

    model: LanguageModel
    objective: nn.Module
    optimizer: Optimizer
    device: torch.device
    world: World

    def share(self, batch: Batch, at_most: int) -> Iterator[Batch]:
        """This process's rows of a batch on its device, at most so many at a time.

        Every process gets as many parts; one that has no row left gets an untrained one.
        """
        total, size = len(batch.ids_BT), self.world.size
        parts = -(-total // (size * at_most))
        for number in range(parts):
            mine = batch.rows(slice(self.world.rank + number * size, None, size * parts))
            yield (mine if len(mine.ids_BT) else batch.rows(slice(0, 1)).untrained()).to(self.device)

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, whole and each tensor once: trained parameters and buffers.

        Every process of a sharded model must call it together.
        """
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        own: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():  # a tied tensor is one object
            if name not in frozen:
                own.setdefault(id(tensor), (name, tensor))
        return {name: whole(tensor.detach()) for name, tensor in own.values()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        fill_in(self.model, tensors)

    def publish(self, model: LanguageModel) -> None:
        """Bring a model outside of this learner up to date; every process of a sharded model calls it together."""
        if model is not self.model:
            tensors = self.tensors()
            if self.world.main:
                fill_in(model, tensors)


def refuse_place(recipe: Recipe, world: World) -> torch.device:
    """The device, unless the recipe asks for a place or a way of sharing that is not to be had: UserError."""
    device = pick_device(recipe, world)
    wants_bf16(recipe, device)
    if recipe.torch_compile and device.type == "cpu" and not _compiler():
        raise UserError("torch_compile=true: no C++ compiler was found", "install g++, or set CXX; or leave it out")
    if recipe.fsdp and world.size == 1:
        raise UserError("fsdp=true with one process: there is nothing to share", "start several with torchrun")
    if recipe.fsdp and recipe.optim == "muon":
        reason = "fsdp=true: Muon needs whole matrices, and FSDP gives each process a part"
        raise UserError(reason, "--set optim=adamw")
    return device


def make_learner(model: LanguageModel, recipe: Recipe, world: World) -> Learner:
    """Raises what `refuse_place` raises."""
    device = refuse_place(recipe, world)
    if recipe.packing and isinstance(model, _Packable):
        model.check_packing()
    learning = copy.deepcopy(model) if recipe.fsdp else model
    for part in {id(model): model, id(learning): learning}.values():
        move(part, device)
    objective: nn.Module = Objective(learning, bf16=wants_bf16(recipe, device), compiled=recipe.torch_compile)
    if recipe.fsdp:
        shard(objective)
    elif world.size > 1:
        objective = DistributedDataParallel(objective, device_ids=[device.index] if device.type == "cuda" else None)
    return Learner(learning, objective, make_optimizer(learning, recipe), device, world)


def _compiler() -> str | None:
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "cl"]
    return next((found for name in names if (found := shutil.which(name))), None)


def alone(model: LanguageModel, optimizer: Optimizer, *, bf16: bool = False) -> Learner:
    """A learner of one process where the model lies."""
    device = next(model.parameters()).device
    return Learner(model, Objective(model, bf16=bf16), optimizer, device, World())
