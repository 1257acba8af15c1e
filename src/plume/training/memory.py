"""How much memory training takes, and how much there is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from plume.models.memory import resident
from plume.training.batches import Batch
from plume.training.learner import Objective
from plume.types import LanguageModel

_STATES = 3  # gradient and AdamW's two moments (Muon: one, and its workspace), each as large as what is trained
_OTHERS = 2  # models held beside the trained one while the result is proven and compared


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes: what does not depend on the batch, what each row of the longest batch adds, and the peak of all."""

    fixed: int
    per_row: int
    peak: int


@runtime_checkable
class _Checkpointing(Protocol):
    checkpointing: bool

    def checkpoint_layers(self, on: bool = True) -> None: ...


def estimate(model: LanguageModel, longest_row: Batch, rows: int) -> Need:
    """The peak of a whole run, from what one row's forward pass keeps for its backward pass.

    `longest_row` is a batch of one: the longest row of the largest batch, which has `rows` rows.
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    held = resident() or weights
    one, two = _kept_in_all(model, longest_row), _kept_in_all(model, _twice(longest_row))
    per_row, once = two - one, max(0, 2 * one - two)  # an adapter also computes whole matrices, whatever the rows
    fixed = held + _STATES * trained + once
    return Need(fixed, per_row, max(fixed + per_row * rows, fixed + _OTHERS * weights))


def _twice(batch: Batch) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: torch.cat([value, value]) for name, value in values.items() if value is not None})


def _kept_in_all(model: LanguageModel, batch: Batch) -> int:
    """With checkpoints also each layer's input, and what one layer at a time keeps while it is computed again."""
    kept = _kept(model, batch)
    if not isinstance(model, nn.Module) or not isinstance(model, _Checkpointing) or not model.checkpointing:
        return kept
    model.checkpoint_layers(False)
    whole = _kept(model, batch)
    model.checkpoint_layers()
    layers = max(len(module) for module in model.modules() if isinstance(module, nn.ModuleList))
    with torch.no_grad():
        hidden_BTC, _ = model(batch.ids_BT, None, batch.lengths_B)
    return kept + layers * int(hidden_BTC.nbytes) + (whole - kept) // layers


def _kept(model: LanguageModel, batch: Batch) -> int:
    """Bytes that one forward pass saves for the backward pass, its weights apart, and the logits' gradients."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train(True)
    with torch.autograd.graph.saved_tensors_hooks(note, _same):
        loss = Objective(model)(batch)
    total = sum(kept.values())
    del loss
    model.train(False)
    return total + 2 * 4 * batch.trained * model.vocab_size


def _same(tensor: Any) -> Any:
    return tensor
