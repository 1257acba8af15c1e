"""GPT: a pre-norm decoder with RMSNorm, RoPE, QK-norm, gated SiLU MLP and grouped-query attention.

Parameters bear the names of transformers' Qwen3ForCausalLM (LlamaForCausalLM without QK-norm) and the
mathematics is the same, so every engine that opens those opens what is saved here.
Shape suffixes: B batch, T new tokens, S slots, C width, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plume.errors import UserError
from plume.models import ragged
from plume.models.attention import Place, attend, positions_and_mask, rotary, rotate
from plume.models.lean import LeanLayer
from plume.models.prepacked import Prepacked, prepack_layers
from plume.models.small import OneToken, one_token
from plume.models.weights import fill, read_config, widened, write_config, write_tensors


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Sizes; names as in transformers' configs."""

    vocab_size: int
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 48
    max_position_embeddings: int = 256
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    qk_norm: bool = True
    tie_word_embeddings: bool = True
    dropout: float = 0.0


class Attention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        query, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, shared, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, shared, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = nn.RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x_BTC: Tensor, place: Place, memory: ragged.Memory | None, number: int) -> Tensor:
        batch, count, _ = x_BTC.shape
        heads = (batch, count, -1, self.config.head_dim)
        q_BTHD, k_BTHD, v_BTHD = (p(x_BTC).view(heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.config.qk_norm:
            exact = self.q_norm.weight.dtype  # products may have been rounded
            q_BTHD, k_BTHD = self.q_norm(q_BTHD.to(exact)), self.k_norm(k_BTHD.to(exact))
        q_BTHD, k_BTHD = rotate(q_BTHD, *place.rope), rotate(k_BTHD, *place.rope)
        mixed: Tensor = self.o_proj(attend(q_BTHD, k_BTHD, v_BTHD, place, memory, number))
        return mixed


class MLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor, place: Place, memory: ragged.Memory | None, number: int) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.self_attn(self.input_layernorm(x_BTC), place, memory, number))
        out: Tensor = x_BTC + self.dropout(self.mlp(self.post_attention_layernorm(x_BTC)))
        return out


class Decoder(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class GPT(nn.Module):
    """`plume.types.LanguageModel`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        self._rotary: Tensor | None = None
        self._one_token: OneToken | None = None
        self.model = Decoder(config)
        self.dropout = nn.Dropout(config.dropout)
        if not config.tie_word_embeddings:
            self.lm_head: Any = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

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
        segments_BT: Tensor | None = None,
    ) -> tuple[Tensor, ragged.Memory]:
        """Hidden states (B, T, C) and the state after each row's real tokens: keys and values (B, S, H, D) of every
        layer. None is kept in training, nor of packed documents."""
        ragged.refuse_continued(state, segments_BT)
        if self._one_token and state and state.buffers and ids_BT.numel() == 1 and lengths_B is None:
            state.reserve(1)
            return self._one_token(int(ids_BT), state), state
        memory = state or ragged.Memory.start(ids_BT)
        kept = None if state is None and (self.training or segments_BT is not None) else memory
        place = self._place(memory.place(ids_BT.shape[1], ids_BT.device), segments_BT)
        x_BTC = self.dropout(self.model.embed_tokens(ids_BT))
        for number, layer in enumerate(self.model.layers):
            if self.checkpointing and self.training and kept is None:
                x_BTC = checkpoint(layer, x_BTC, place, None, number, use_reentrant=False)
            else:
                x_BTC = layer(x_BTC, place, kept, number)
        if kept is not None:
            kept.advance(ragged.added(lengths_B, ids_BT))
        return self.model.norm(x_BTC), memory

    def _place(self, among: ragged.Place, segments_BT: Tensor | None) -> Place:
        at, mask_B1TS = positions_and_mask(among, segments_BT, self.model.embed_tokens.weight.dtype)
        return Place(among, self._rope(at, among), mask_B1TS)

    def _rope(self, at: Tensor | slice, among: ragged.Place) -> tuple[Tensor, Tensor]:
        """Rotary cosines and sines (B or none, T, 1, D) of these positions."""
        cos, sin = self._table(among.slots, among.positions_BT.device)[at].unbind(-3)
        return cos, sin

    def _table(self, positions: int, device: torch.device) -> Tensor:
        """Rotary cosines and sines (T, 2, 1, D) of at least so many positions, made once."""
        if self._rotary is None or len(self._rotary) < positions or self._rotary.device != device:
            most = max(positions, self.context_length)
            self._rotary = torch.stack(rotary(self.config.head_dim, self.config.rope_theta, most, device), dim=1)
        return self._rotary

    def state_nbytes(self, tokens: int) -> int:
        """Bytes that one row's state holds at most after so many tokens, padding included."""
        width = 2 * self.config.num_key_value_heads * self.config.head_dim * self.config.num_hidden_layers
        return ragged.capacity(tokens) * width * self.model.embed_tokens.weight.element_size()

    def checkpoint_layers(self, on: bool = True) -> None:
        """Keep each layer's input alone in training; the backward pass computes the layer again (Chen et al. 2016)."""
        self.checkpointing = on

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, C)."""
        if self._one_token and hidden.numel() == self.config.hidden_size:
            return self._one_token.head(hidden)
        if self.config.tie_word_embeddings and not hasattr(self, "lm_head"):
            return F.linear(hidden, self.model.embed_tokens.weight)
        logits: Tensor = self.lm_head(hidden)
        return logits

    def untie(self) -> None:
        """Give the output layer a matrix of its own, with the numbers of the embeddings."""
        if self.config.tie_word_embeddings:
            self.lm_head = nn.Linear(self.config.hidden_size, self.vocab_size, bias=False, device="meta")
            self.lm_head.weight = self.model.embed_tokens.weight
            self.config = replace(self.config, tie_word_embeddings=False)

    def for_answering(self, *, batched: bool = False) -> GPT:
        """Itself, faster: from here on it can be neither trained nor saved. A tied output layer is laid out beside the
        embeddings. Unless `batched`, a small one decodes a row that is alone in NumPy."""
        self.eval()
        if all(type(module) is nn.Linear for module in self.model.modules() if hasattr(module, "in_features")):
            self._one_token = None if batched else one_token(self)
            self.model.layers = nn.ModuleList(LeanLayer(layer) for layer in self.model.layers)
        if not hasattr(self, "lm_head"):
            self.lm_head = Prepacked(self.model.embed_tokens.weight)
        prepack_layers(self)
        return self

    def resize(self, vocab_size: int) -> None:
        """Widen the vocabulary; the ids that there were keep their weights."""
        if vocab_size > self.vocab_size:
            self.config = replace(self.config, vocab_size=vocab_size)
            self.model.embed_tokens = nn.Embedding.from_pretrained(
                widened(self.model.embed_tokens.weight, vocab_size), freeze=False
            )
            if not self.config.tie_word_embeddings:
                self.lm_head.weight = widened(self.lm_head.weight, vocab_size)
                self.lm_head.out_features = vocab_size

    def save(self, directory: Path) -> None:
        """Write config.json and model.safetensors in the layout of the stock class."""
        write_config(directory, _stock_config(self.config))
        write_tensors(directory / "model.safetensors", self.state_dict())


def build(sizes: Mapping[str, Any]) -> GPT:
    """An untrained model. Keys: vocab_size, hidden_size, num_hidden_layers, num_attention_heads, dropout, max_length.

    Matrices start at N(0, 0.02), what writes into the residual stream at zero (each layer begins as identity). A
    vocabulary no larger than the width gets a head of its own, which starts at zero: it learns sooner than a tied one.
    """
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if width % (2 * heads):
        raise UserError(
            f"hidden_size={width} does not divide into {heads} heads of an even width",
            f"choose a multiple of {2 * heads}, or another num_attention_heads",
        )
    config = GPTConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=width,
        intermediate_size=max(1, width * 8 // 3 // 32) * 32,
        num_hidden_layers=sizes["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=sizes["max_length"],
        tie_word_embeddings=sizes["vocab_size"] > width,
        dropout=sizes["dropout"],
    )
    model = GPT(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    return model


def empty(directory: Path) -> GPT:
    """A saved model without its weights, which take no memory yet."""
    stock = read_config(directory)
    names = GPTConfig.__dataclass_fields__
    kept = {name: stock[name] for name in names if name in stock}
    rope = stock.get("rope_parameters") or {}
    config = GPTConfig(
        **{**kept, "qk_norm": stock["model_type"] == "qwen3", "rope_theta": rope.get("rope_theta", 10000.0)}
    )
    with torch.device("meta"):
        return GPT(config)


def load(directory: Path) -> GPT:
    """Read a saved model. Raises UserError when files are missing or damaged."""
    model = empty(directory)
    fill(model, directory)
    return model


def adopted(stock: Any) -> GPT | None:
    """A GPT around the very weights of a transformers model, if that is one with the same mathematics."""
    config, rope = stock.config, getattr(stock.config, "rope_parameters", None) or {}
    known = type(stock).__name__ in ("LlamaForCausalLM", "Qwen3ForCausalLM")
    if not known or config.hidden_act != "silu" or rope.get("rope_type") != "default" or _windowed(config):
        return None
    sizes = {name: getattr(config, name) for name in GPTConfig.__dataclass_fields__ if hasattr(config, name)}
    sizes |= {"qk_norm": config.model_type == "qwen3", "rope_theta": rope["rope_theta"], "dropout": 0.0}
    with torch.device("meta"):
        model = GPT(GPTConfig(**sizes))
    weights = stock.state_dict()
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    if weights.keys() != model.state_dict().keys():  # biases, or layers put in from outside
        return None
    model.load_state_dict(weights, assign=True)
    model.eval()
    return model


def _windowed(config: Any) -> bool:
    return any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())


def _stock_config(config: GPTConfig) -> dict[str, Any]:
    kind, architecture = ("qwen3", "Qwen3ForCausalLM") if config.qk_norm else ("llama", "LlamaForCausalLM")
    return {
        "architectures": [architecture],
        "model_type": kind,
        "plume": "gpt",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dropout": config.dropout,
        "dtype": "float32",
    }
