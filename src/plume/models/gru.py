"""GRU with causal additive attention over its own past outputs (Cho et al. 2014; Bahdanau et al. 2015).

h_t is the GRU's output, a_ts = v·tanh(W h_t + U h_s) for the last `attention_window` positions s <= t,
c_t = sum_s softmax(a_t)_s h_s, and the hidden state given to the head is tanh(P [h_t; c_t]). A window bounds both the
time a token takes and the memory that decoding holds; without one they grow with the text, as a Transformer's do.
Shape suffixes: B batch, T time, S past, C width, A attention, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from plume.models import clusters, ragged
from plume.models.packed import apart
from plume.models.weights import fill, read_config, widened

_QUERY_BLOCK = 16  # bounds the (B, block, block + window, A) tensor of the additive scores
_LARGE_VOCABULARY = 5000  # from here on the output layer takes most of a step
_FREQUENT = (1000, 4000)  # where the clusters of rare words begin


class GRUConfig(PreTrainedConfig):
    """Sizes of a GRU with attention. `attention_window` None looks back at everything; `cutoffs` are the ids at
    which clusters of rare words begin, none for a plain softmax."""

    model_type = "plume_gru"

    vocab_size: int = 0
    hidden_size: int = 256
    attention_size: int = 64
    attention_window: int | None = None
    num_hidden_layers: int = 1
    dropout: float = 0.0
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False
    cutoffs: list[int] | None = None


@dataclass(slots=True)
class GRUState:
    """Every layer's output (B, S, C) at the positions still held, and the top layer's attention keys (B, S, A) there;
    the first `dropped` of each row's tokens can no longer be looked back at."""

    memory: ragged.Memory
    dropped: list[int]

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def select(self, rows: Tensor) -> GRUState:
        return GRUState(self.memory.select(rows), [self.dropped[row] for row in rows.tolist()])

    def join(self, other: GRUState) -> GRUState:
        return GRUState(self.memory.join(other.memory), self.dropped + other.dropped)

    def fork(self) -> GRUState:
        return GRUState(self.memory.fork(), list(self.dropped))

    def truncate(self, n: int) -> GRUState:
        """Raises ValueError when what the n-th token looks back at is no longer held."""
        rows = list(zip(self.memory.lengths, self.dropped, strict=True))
        if any(dropped and held + dropped > n for held, dropped in rows):
            raise ValueError(f"the window has moved on: a GRU cannot go back to {n} tokens; read the text again")
        self.memory.lengths = [held if dropped else min(held, n) for held, dropped in rows]
        return self

    def last_BC(self, layer: int) -> Tensor:
        """A layer's hidden vector after each row's last real token; zero before the first."""
        outputs_RSC, lengths = self.memory.buffers[layer], self.memory.lengths
        held_B = torch.tensor(lengths, device=outputs_RSC.device)
        last_BC = outputs_RSC[torch.arange(len(lengths), device=outputs_RSC.device), (held_B - 1).clamp(min=0)]
        return last_BC * (held_B > 0)[:, None]

    def forget_beyond(self, window: int | None) -> None:
        """Drop what no later token can look back at; now and then, so that not every token pays for a copy."""
        if window is not None and self.memory.longest > window + ragged.BLOCK:
            rows = zip(self.memory.lengths, self.dropped, strict=True)
            self.dropped = [dropped + max(0, held - window) for held, dropped in rows]
            self.memory.keep_latest(window)


class GRU(PreTrainedModel):
    """`plume.types.LanguageModel` over words: recurrent memory, and a look back at the latest of it."""

    config_class = GRUConfig
    config: GRUConfig
    default_template = "sep"

    def __init__(self, config: GRUConfig) -> None:
        super().__init__(config)
        width, attention = config.hidden_size, config.attention_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(config.num_hidden_layers))
        self.query = nn.Linear(width, attention)
        self.key = nn.Linear(width, attention, bias=False)
        self.score = nn.Linear(attention, 1, bias=False)
        self.project = nn.Linear(2 * width, width)
        if config.tie_word_embeddings:
            self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        else:
            self.lm_head = nn.Linear(width, config.vocab_size)
        if config.cutoffs:
            self.entries = nn.Linear(width, len(config.cutoffs))
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
        self,
        ids_BT: Tensor,
        state: GRUState | None = None,
        lengths_B: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> tuple[Tensor, GRUState]:
        """Hidden states (B, T, C) and the state after each row's real tokens.

        Where the number in `segments_BT` changes along a row, reading begins anew; only without a `state`.
        """
        added = ragged.added(lengths_B, ids_BT)
        if segments_BT is not None:
            ragged.refuse_continued(state, segments_BT)
            cut = apart(ids_BT, torch.tensor(added, device=ids_BT.device), segments_BT)
            hidden_NTC, last = self._read(cut.ids_NT, None, cut.lengths_N.tolist())
            return cut.together(hidden_NTC), last.select(cut.last_B)
        return self._read(ids_BT, state, added)

    def _read(self, ids_BT: Tensor, state: GRUState | None, added: list[int]) -> tuple[Tensor, GRUState]:
        after = state or GRUState(ragged.Memory.start(ids_BT), [0] * len(ids_BT))
        place = after.memory.place(ids_BT.shape[1], ids_BT.device)
        x_BTC = self.dropout(self.embed_tokens(ids_BT))
        for number, layer in enumerate(self.layers):
            initial = after.last_BC(number)[None].contiguous() if state else None
            x_BTC, _ = layer(x_BTC, initial)
            outputs_BSC = after.memory.write(number, x_BTC, place)
            x_BTC = self.dropout(x_BTC)
        keys_BSA = after.memory.write(len(self.layers), self.key(x_BTC), place)
        context_BTC = self._attend(x_BTC, outputs_BSC, keys_BSA, place)
        hidden_BTC = torch.tanh(self.project(torch.cat([x_BTC, context_BTC], dim=-1)))
        after.memory.advance(added)
        after.forget_beyond(self.config.attention_window)
        return self.dropout(hidden_BTC), after

    def state_nbytes(self, tokens: int) -> int:
        """Bytes that one row's state holds at most after so many tokens, padding included."""
        window = self.config.attention_window
        width = self.config.num_hidden_layers * self.config.hidden_size + self.config.attention_size
        held = tokens if window is None else min(tokens, window + ragged.BLOCK)
        return ragged.capacity(held) * width * self.embed_tokens.weight.element_size()

    def _attend(self, new_BTC: Tensor, past_BSC: Tensor, keys_BSA: Tensor, place: ragged.Place) -> Tensor:
        """What each new position finds when it looks back over itself and the window before it."""
        window = self.config.attention_window
        queries_BTA = self.query(new_BTC)
        blocks = []
        for start in range(0, new_BTC.shape[1], _QUERY_BLOCK):
            block = place.part(start, start + _QUERY_BLOCK, window)
            slots = slice(block.first, block.slots)
            query_BTA = queries_BTA[:, start : start + _QUERY_BLOCK]
            blocks.append(self._look_back(query_BTA, keys_BSA[:, slots], past_BSC[:, slots], block.visible(window)))
        return torch.cat(blocks, dim=1)

    def _look_back(self, query_BTA: Tensor, keys_BSA: Tensor, past_BSC: Tensor, seen_BTS: Tensor) -> Tensor:
        """One block of queries. The backward pass computes its scores once more instead of keeping them."""

        def context(query_BTA: Tensor, keys_BSA: Tensor, past_BSC: Tensor) -> Tensor:
            scores_BTS = self.score(torch.tanh(query_BTA[:, :, None] + keys_BSA[:, None])).squeeze(-1)
            weights_BTS: Tensor = scores_BTS.masked_fill(~seen_BTS, float("-inf")).softmax(dim=-1)
            return weights_BTS @ past_BSC

        if not torch.is_grad_enabled():
            return context(query_BTA, keys_BSA, past_BSC)
        kept: Tensor = checkpoint(context, query_BTA, keys_BSA, past_BSC, use_reentrant=False, preserve_rng_state=False)
        return kept

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, C); with `cutoffs` they are log-probabilities."""
        tied = self.config.tie_word_embeddings
        logits: Tensor = F.linear(hidden, *self._output()) if tied else self.lm_head(hidden)
        if self.config.cutoffs:
            return clusters.log_probabilities(logits, self.entries(hidden), self.config.cutoffs)
        return logits

    def untie(self) -> None:
        """Give the output layer a matrix of its own, with the numbers of the embeddings."""
        if self.config.tie_word_embeddings:
            self.lm_head = nn.Linear(self.config.hidden_size, self.vocab_size, device="meta")
            self.lm_head.weight, self.lm_head.bias = self.embed_tokens.weight, self.output_bias
            del self.output_bias
            self.config.tie_word_embeddings = False

    def summed_loss(self, hidden_NC: Tensor, labels_N: Tensor) -> Tensor:
        """Negative log-likelihood in nats, summed, without logits of clusters in which no label lies."""
        if not self.config.cutoffs:
            return F.cross_entropy(self.head(hidden_NC).float(), labels_N, reduction="sum")
        weight_VC, bias_V = self._output()
        return clusters.summed_loss(hidden_NC, labels_N, weight_VC, bias_V, self.entries, self.config.cutoffs)

    def _output(self) -> tuple[Tensor, Tensor]:
        if self.config.tie_word_embeddings:
            return self.embed_tokens.weight, self.output_bias
        return self.lm_head.weight, self.lm_head.bias

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """Widen the vocabulary; new words start near the mean of the old ones."""
        if vocab_size <= self.vocab_size:
            return
        for module in (self.embed_tokens, getattr(self, "lm_head", None)):
            if module is not None:
                module.weight = widened(module.weight, vocab_size)
        if self.config.tie_word_embeddings:
            self.output_bias = widened(self.output_bias, vocab_size)
        else:
            self.lm_head.bias = widened(self.lm_head.bias, vocab_size)
        self.config.vocab_size = vocab_size

    def save(self, directory: Path) -> None:
        self.save_pretrained(directory)


def build(sizes: Mapping[str, Any]) -> GRU:
    """An untrained model. Keys: vocab_size, hidden_size, num_hidden_layers, attention_window, dropout, max_length.

    A large vocabulary shares its embeddings with the output layer, and rare words form clusters.
    """
    large = sizes["vocab_size"] >= _LARGE_VOCABULARY
    return GRU(
        GRUConfig(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            attention_size=max(16, sizes["hidden_size"] // 4),
            attention_window=sizes.get("attention_window"),
            num_hidden_layers=sizes["num_hidden_layers"],
            dropout=sizes["dropout"],
            max_position_embeddings=sizes["max_length"],
            tie_word_embeddings=large,
            cutoffs=list(_FREQUENT) if large else None,
        )
    )


def empty(directory: Path) -> GRU:
    """A saved model without its weights, which take no memory yet."""
    with torch.device("meta"):
        return GRU(GRUConfig.from_dict(read_config(directory)))


def load(directory: Path) -> GRU:
    """Read a saved model. Raises UserError when files are missing or damaged."""
    model = empty(directory)
    fill(model, directory)
    return model


logging.disable_progress_bar()
AutoConfig.register(GRUConfig.model_type, GRUConfig)
AutoModelForCausalLM.register(GRUConfig, GRU)
