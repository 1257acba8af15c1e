"""Tensors of which each process holds a part (FSDP2), and whole ones, by the same calls.

What makes such tensors takes a second to import, so it is imported where there are some.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from plume.types import LanguageModel


@runtime_checkable
class Shared(Protocol):
    """What is used of torch's DTensor, which is a Tensor besides."""

    @property
    def device_mesh(self) -> Any: ...
    @property
    def placements(self) -> Any: ...
    def full_tensor(self) -> Tensor: ...


def shard(module: nn.Module) -> None:
    """Zhao et al. 2023, layer by layer: each is gathered when it is needed and freed after."""
    from torch.distributed.fsdp import fully_shard

    # Keys and values leave a layer as views; nothing writes into them while training.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for stack in [part for part in module.modules() if isinstance(part, nn.ModuleList)]:
        for layer in stack:
            fully_shard(layer)
    fully_shard(module)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of a shared one, every process must ask together."""
    return tensor.full_tensor() if isinstance(tensor, Shared) else tensor


def alike(full: Tensor, tensor: Tensor) -> Tensor:
    """What this process holds of a whole tensor that is shared out as `tensor` is."""
    if not isinstance(tensor, Shared) or full.shape != tensor.shape:
        return full.to(tensor.device)
    from torch.distributed.tensor import distribute_tensor

    part: Tensor = distribute_tensor(full.to(tensor.device), tensor.device_mesh, tensor.placements)
    return part


def fill_in(model: LanguageModel, tensors: Mapping[str, Tensor]) -> None:
    """Replace the tensors of a model that are named; the others stay."""
    held: dict[str, Any] = model.state_dict()
    model.load_state_dict({**held, **{name: alike(tensor, held[name]) for name, tensor in tensors.items()}})
