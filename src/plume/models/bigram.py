"""Bigram: an embedding and a linear layer. The next token depends on this one alone; there is no memory.

With a width of at least the vocabulary it can express every bigram table, so its loss ends at the bigram
entropy of the text: the limit that a report prints beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from plume.models import ragged
from plume.models.weights import fill, read_config, widened


class BigramConfig(PreTrainedConfig):
    """Sizes of a bigram model."""

    model_type = "plume_bigram"

    vocab_size: int = 0
    hidden_size: int = 0
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False


class Bigram(PreTrainedModel):
    """`plume.types.LanguageModel` with logits that are a function of the current token."""

    config_class = BigramConfig
    config: BigramConfig

    def __init__(self, config: BigramConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.hidden_size**-0.5)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def context_length(self) -> int:
        return self.config.max_position_embeddings

    def forward(
        self,
        ids_BT: Tensor,
        state: ragged.Memory | None = None,
        lengths_B: Tensor | None = None,
        segments_BT: Tensor | None = None,  # noqa: ARG002 - no token sees another
    ) -> tuple[Tensor, ragged.Memory]:
        """Hidden states (B, T, C) and the state after them: nothing but the number of tokens read."""
        memory = state or ragged.Memory.start(ids_BT)
        memory.advance(ragged.added(lengths_B, ids_BT))
        return self.embed_tokens(ids_BT), memory

    def state_nbytes(self, tokens: int) -> int:  # noqa: ARG002 - none is remembered
        return 0

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, C)."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def resize(self, vocab_size: int) -> None:
        """Widen the vocabulary; the ids that there were keep their weights."""
        if vocab_size > self.vocab_size:
            self.config.vocab_size = self.lm_head.out_features = vocab_size
            self.embed_tokens = nn.Embedding.from_pretrained(
                widened(self.embed_tokens.weight, vocab_size), freeze=False
            )
            self.lm_head.weight = widened(self.lm_head.weight, vocab_size)
            self.lm_head.bias = widened(self.lm_head.bias, vocab_size)

    def save(self, directory: Path) -> None:
        self.save_pretrained(directory)


def build(sizes: Mapping[str, Any]) -> Bigram:
    """An untrained model. Keys: vocab_size, hidden_size, max_length."""
    return Bigram(
        BigramConfig(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            max_position_embeddings=sizes["max_length"],
        )
    )


def empty(directory: Path) -> Bigram:
    """A saved model without its weights, which take no memory yet."""
    with torch.device("meta"):
        return Bigram(BigramConfig.from_dict(read_config(directory)))


def load(directory: Path) -> Bigram:
    """Read a saved model. Raises UserError when files are missing or damaged."""
    model = empty(directory)
    fill(model, directory)
    return model


logging.disable_progress_bar()
AutoConfig.register(BigramConfig.model_type, BigramConfig)
AutoModelForCausalLM.register(BigramConfig, Bigram)
