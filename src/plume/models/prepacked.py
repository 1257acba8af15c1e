"""Weights laid out for oneDNN, once and for answering alone: on a CPU decoding then reads them about as fast as memory
gives them, where `F.linear` takes twice the time and more. One row alone is read off the same memory as a table. A row
of up to 1,024 inputs comes out the same to the bit in any batch; longer ones are added up in an order that depends on
how many there are.

Shape suffixes: N outputs, K inputs.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plume.models.one_row import of_packed

_ROWS = 16  # that the layout is made for; the one made for a single row serves no other number well
_ONE_CORE = 2**22  # bytes of weights: one thread served 0.2 M parameters twice as fast as two, and 5 M more slowly
_WORTH = 2**17  # weights of a layer from which on the product saves more than the call costs


class Prepacked(nn.Module):
    """A linear layer, or several of the same input as one, that can neither be trained nor saved any more. Small ones
    keep their weights as they are."""

    def __init__(self, *weights_NK: Tensor, bias_N: Tensor | None = None) -> None:
        super().__init__()
        self.training = False
        # weights made in inference mode cannot be packed
        with torch.inference_mode(False), torch.no_grad():
            whole_NK = torch.cat([weight.detach() for weight in weights_NK]) if len(weights_NK) > 1 else weights_NK[0]
            self.bias_N = None if bias_N is None else bias_N.detach().clone()
            self.nbytes, self.packed = whole_NK.nbytes, gains(whole_NK)
            self.weight_NK = _packed(whole_NK.detach().contiguous()) if self.packed else whole_NK.detach()
            outputs, self.inputs = whole_NK.shape
            self.one_row = of_packed(self.weight_NK, self.inputs, outputs) if self.packed else None

    def forward(self, x: Tensor) -> Tensor:
        if self.one_row is not None and x.numel() == self.inputs:
            y_N = self.one_row(x)
            return (y_N if self.bias_N is None else y_N + self.bias_N).view(*x.shape[:-1], -1)
        if not self.packed:
            return F.linear(x, self.weight_NK, self.bias_N)
        rows = x.numel() // self.inputs
        if more := filled_up(rows) - rows:
            x_RK = F.pad(x.reshape(rows, self.inputs), (0, 0, 0, more))
            return self._product(x_RK)[:rows].view(*x.shape[:-1], -1)
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight_NK, self.bias_N, "none", [], "")
        return out

    def train(self, mode: bool = True) -> Prepacked:
        """Raises ValueError: it answers only."""
        return _refuse() if mode else self

    def _save_to_state_dict(self, *_: Any, **__: Any) -> None:
        _refuse()


def prepack_layers(model: nn.Module) -> None:
    """Replace every large linear layer, GPT-2's transposed ones too."""
    for parent in list(model.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            transposed = type(child).__name__ == "Conv1D"
            if (transposed or type(child) is nn.Linear) and gains(child.weight):
                weight_NK = child.weight.t() if transposed else child.weight
                setattr(parent, name, Prepacked(weight_NK, bias_N=child.bias))


def weights_nbytes(model: Any) -> int:
    """What a model's weights hold, those laid out among them."""
    laid_out = sum(module.nbytes for module in model.modules() if isinstance(module, Prepacked))
    parameters: int = sum(parameter.nbytes for parameter in model.parameters())
    return laid_out + parameters


def threads_for(model: Any) -> int:
    """How many threads it is decoded with: one where the weights fit into a core's share of the caches, for there the
    threads' waiting for each other costs more than they bring."""
    return 1 if weights_nbytes(model) <= _ONE_CORE else torch.get_num_threads()


def filled_up(rows: int) -> int:
    """How many rows are multiplied for so many. For each number oneDNN makes a program, which takes it milliseconds,
    and keeps it: prompts come in every length, up to a thousand programs and half a megabyte each."""
    step = 1 if rows <= 16 else 16 if rows <= 64 else 64
    return -(-rows // step) * step


def gains(weight: Tensor) -> bool:
    """Whether this torch has a faster layout for such a matrix, and it is large enough."""
    on_cpu = weight.dtype == torch.float32 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_cpu and weight.numel() >= _WORTH


def _packed(weight_NK: Tensor) -> Tensor:
    reorder: Any = torch.ops.mkldnn._reorder_linear_weight
    packed: Tensor = reorder(weight_NK, _ROWS)
    return packed


def _refuse() -> NoReturn:
    raise ValueError("weights laid out for answering can be neither trained nor saved: load the model again")
