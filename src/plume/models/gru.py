"""GRU with causal additive attention over its own past outputs (Cho et al. 2014; Bahdanau et al. 2015).

h_t is the GRU's output, a_ts = v·tanh(W h_t + U h_s) for s <= t, c_t = sum_s softmax(a_t)_s h_s, and the
hidden state given to the head is tanh(P [h_t; c_t]). Shape suffixes: B batch, T time, S past, C width, A attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from plume.models import ragged
from plume.models.weights import fill, read_config

_QUERY_BLOCK = 64  # bounds the (B, block, S, A) tensor of the additive scores


class GRUConfig(PreTrainedConfig):
    """Sizes of a GRU with attention."""

    model_type = "plume_gru"

    vocab_size: int = 0
    hidden_size: int = 256
    attention_size: int = 64
    num_hidden_layers: int = 1
    dropout: float = 0.0
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False


@dataclass(slots=True)
class GRUState:
    """Every layer's output at every past position, and the top layer's attention keys."""

    outputs_LBSC: list[Tensor]
    keys_BSA: Tensor
    lengths_B: Tensor

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.outputs_LBSC, self.keys_BSA))

    def select(self, rows: Tensor) -> GRUState:
        return GRUState([outputs[rows] for outputs in self.outputs_LBSC], self.keys_BSA[rows], self.lengths_B[rows])

    def fork(self) -> GRUState:
        return GRUState(
            [outputs.clone() for outputs in self.outputs_LBSC], self.keys_BSA.clone(), self.lengths_B.clone()
        )

    def truncate(self, n: int) -> GRUState:
        return GRUState(self.outputs_LBSC, self.keys_BSA, self.lengths_B.clamp(max=n))

    def last_BC(self, layer: int) -> Tensor:
        """A layer's hidden vector after each row's last real token; zero before the first."""
        outputs = self.outputs_LBSC[layer]
        rows = torch.arange(len(self.lengths_B), device=outputs.device)
        last = outputs[rows, (self.lengths_B - 1).clamp(min=0)]
        return torch.where(self.lengths_B[:, None] > 0, last, torch.zeros_like(last))


class GRU(PreTrainedModel):
    """`plume.types.LanguageModel` over words: recurrent memory, and a look back at all of it."""

    config_class = GRUConfig
    config: GRUConfig

    def __init__(self, config: GRUConfig) -> None:
        super().__init__(config)
        width, attention = config.hidden_size, config.attention_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(config.num_hidden_layers))
        self.query = nn.Linear(width, attention)
        self.key = nn.Linear(width, attention, bias=False)
        self.score = nn.Linear(attention, 1, bias=False)
        self.project = nn.Linear(2 * width, width)
        self.lm_head = nn.Linear(width, config.vocab_size)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.hidden_size**-0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GRU):
            for name, parameter in module.named_parameters():
                nn.init.zeros_(parameter) if "bias" in name else nn.init.orthogonal_(parameter)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def context_length(self) -> int:
        return self.config.max_position_embeddings

    def forward(
        self, ids_BT: Tensor, state: GRUState | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, GRUState]:
        """Hidden states (B, T, C) and the state after each row's real tokens."""
        before_B = state.lengths_B if state else ragged.start_lengths(ids_BT)
        x_BTC = self.dropout(self.embed_tokens(ids_BT))
        outputs = []
        for number, layer in enumerate(self.layers):
            initial = state.last_BC(number)[None].contiguous() if state else None
            x_BTC, _ = layer(x_BTC, initial)
            outputs.append(ragged.append(state.outputs_LBSC[number] if state else None, x_BTC, before_B))
            x_BTC = self.dropout(x_BTC)
        keys_BSA = ragged.append(state.keys_BSA if state else None, self.key(outputs_new := x_BTC), before_B)
        context_BTC = self._attend(outputs_new, outputs[-1], keys_BSA, before_B)
        hidden_BTC = torch.tanh(self.project(torch.cat([outputs_new, context_BTC], dim=-1)))
        after = GRUState(outputs, keys_BSA, before_B + ragged.added(lengths_B, ids_BT))
        return self.dropout(hidden_BTC), after

    def _attend(self, new_BTC: Tensor, past_BSC: Tensor, keys_BSA: Tensor, before_B: Tensor) -> Tensor:
        """What each new position finds when it looks back over itself and everything before."""
        count, slots = new_BTC.shape[1], int(before_B.max()) + new_BTC.shape[1]
        past_BSC, keys_BSA = past_BSC[:, :slots], keys_BSA[:, :slots]
        queries_BTA = self.query(new_BTC)
        blocks = []
        for start in range(0, count, _QUERY_BLOCK):
            query = queries_BTA[:, start : start + _QUERY_BLOCK]
            scores_BTS = self.score(torch.tanh(query[:, :, None] + keys_BSA[:, None])).squeeze(-1)
            seen_BTS = ragged.visible(before_B + start, query.shape[1], slots)
            weights_BTS = scores_BTS.masked_fill(~seen_BTS, float("-inf")).softmax(dim=-1)
            blocks.append(weights_BTS @ past_BSC)
        return torch.cat(blocks, dim=1)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, C)."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def save(self, directory: Path) -> None:
        self.save_pretrained(directory)


def build(sizes: Mapping[str, Any]) -> GRU:
    """An untrained model. Keys: vocab_size, hidden_size, num_hidden_layers, dropout, max_length."""
    return GRU(
        GRUConfig(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            attention_size=max(16, sizes["hidden_size"] // 4),
            num_hidden_layers=sizes["num_hidden_layers"],
            dropout=sizes["dropout"],
            max_position_embeddings=sizes["max_length"],
        )
    )


def load(directory: Path) -> GRU:
    """Read a saved model. Raises UserError when files are missing or damaged."""
    with torch.device("meta"):
        model = GRU(GRUConfig.from_dict(read_config(directory)))
    fill(model, directory)
    return model


logging.disable_progress_bar()
AutoConfig.register(GRUConfig.model_type, GRUConfig)
AutoModelForCausalLM.register(GRUConfig, GRU)
