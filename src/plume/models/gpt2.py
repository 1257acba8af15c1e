"""GPT-2 for answering alone: around the very layers of transformers' model, without its work for every token.

Shape suffixes: B batch, T new tokens, C width, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch.nn.functional as F
from torch import Tensor, nn

from plume.models import ragged
from plume.models.attention import Place, attend, positions_and_mask


class Layer(nn.Module):
    """What a `GPT2Block` computes, whatever its linear layers have become."""

    def __init__(self, block: Any, config: Any) -> None:
        super().__init__()
        tanh = config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        self.activation: Callable[[Tensor], Tensor] = _gelu if tanh else block.mlp.act
        self.width = block.attn.head_dim
        self.before, self.qkv, self.out = block.ln_1, block.attn.c_attn, block.attn.c_proj
        self.between, self.up, self.down = block.ln_2, block.mlp.c_fc, block.mlp.c_proj

    def forward(self, x_BTC: Tensor, place: Place, memory: ragged.Memory | None, number: int) -> Tensor:
        # `forward` is called as it is: `nn.Module.__call__` would take as long again as a small product
        qkv_BTC: Tensor = self.qkv.forward(self.before.forward(x_BTC))
        q_BTHD, k_BTHD, v_BTHD = qkv_BTC.unflatten(-1, (3, -1, self.width)).unbind(2)
        x_BTC = x_BTC + self.out.forward(attend(q_BTHD, k_BTHD, v_BTHD, place, memory, number))
        mixed_BTC: Tensor = self.down.forward(self.activation(self.up.forward(self.between.forward(x_BTC))))
        return x_BTC + mixed_BTC


class GPT2(nn.Module):
    """`plume.types.LanguageModel`."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.config = stock.config
        self.embeddings, self.positions = stock.transformer.wte, stock.transformer.wpe
        self.layers = nn.ModuleList(Layer(block, stock.config) for block in stock.transformer.h)
        self.norm, self.lm_head = stock.transformer.ln_f, stock.lm_head
        self.train(False)

    @property
    def vocab_size(self) -> int:
        return len(self.embeddings.weight)

    @property
    def context_length(self) -> int:
        return int(self.config.n_positions)

    def forward(
        self,
        ids_BT: Tensor,
        state: ragged.Memory | None = None,
        lengths_B: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> tuple[Tensor, ragged.Memory]:
        """Hidden states (B, T, C) and the state after each row's real tokens; none is kept of packed documents."""
        ragged.refuse_continued(state, segments_BT)
        memory = state or ragged.Memory.start(ids_BT)
        kept = memory if segments_BT is None else None
        among = memory.place(ids_BT.shape[1], ids_BT.device)
        at, mask_B1TS = positions_and_mask(among, segments_BT, self.embeddings.weight.dtype)
        if isinstance(at, Tensor):
            at = at.clamp(max=self.context_length - 1)  # padding may stand beyond
        x_BTC = self.embeddings(ids_BT) + self.positions.weight[at]
        place = Place(among, (), mask_B1TS)
        for number, layer in enumerate(self.layers):
            x_BTC = layer.forward(x_BTC, place, kept, number)
        if kept is not None:
            kept.advance(ragged.added(lengths_B, ids_BT))
        return self.norm(x_BTC), memory

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, C)."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def state_nbytes(self, tokens: int) -> int:
        """Bytes that one row's state holds at most after so many tokens, padding included."""
        width: int = 2 * self.config.n_embd * self.config.n_layer
        size: int = self.embeddings.weight.element_size()
        return ragged.capacity(tokens) * width * size

    def save(self, directory: Path) -> NoReturn:
        """Raises ValueError: it answers only."""
        raise ValueError(f"a model for answering cannot be saved in {directory}: load the model again")


def adopted(stock: Any) -> GPT2 | None:
    """A GPT-2 around the layers of a transformers model, if that is one with the usual attention."""
    config = stock.config
    if type(stock).__name__ != "GPT2LMHeadModel" or not config.scale_attn_weights:
        return None
    if config.scale_attn_by_inverse_layer_idx or config.add_cross_attention:
        return None
    return GPT2(stock)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")
