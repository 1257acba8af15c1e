"""One-token steps of a small GPT in NumPy, over the same memory: where a product takes a few microseconds, torch's own
time around every operation is most of a step.

Shape suffixes: K inputs, N outputs, S slots, H heads, G heads of keys, R heads that share one, D head width, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plume.models import ragged
from plume.models.attention import rotary

_MOST = 2**18  # weights of a matrix; from there on OpenBLAS calls its threads, which disturb torch's

Array = NDArray[np.float32]


class _Layer(NamedTuple):
    """A layer's matrices as they are multiplied, with the norms before them and other constant factors in them; the
    scales of queries and keys where those are normed."""

    qkv_KN: Array
    out_KN: Array
    gate_up_KN: Array
    down_KN: Array
    qk_HD: Array | None


class OneToken:
    """What a `gpt.GPT` computes for one new token of one row. It holds the layers' weights a second time."""

    def __init__(self, layers: Sequence[_Layer], embedding: Array, norm_C: Array, head_VC: Array, config: Any) -> None:
        self._layers, self._embedding, self._norm_C, self._head_VC = layers, embedding, norm_C, head_VC
        self._queries, self._shared = config.num_attention_heads, config.num_key_value_heads
        self._width, self._eps = config.head_dim, config.rms_norm_eps
        cos, sin = rotary(self._width, config.rope_theta, config.max_position_embeddings, torch.device("cpu"))
        self._cos, self._sin = (table.numpy().reshape(-1, 2, self._width // 2) for table in (cos, sin))

    def __call__(self, id: int, memory: ragged.Memory) -> Tensor:
        """Hidden state (1, 1, C) of one more token of the only row, which is remembered."""
        held = memory.lengths[0]
        cos, sin = self._cos[held], self._sin[held]
        x_C = self._embedding[id]
        with np.errstate(all="ignore"):  # a model that is no number says so in its logits
            for number, layer in enumerate(self._layers):
                q_HD, k_GD, v_GD = self._projected(layer, self._normed(x_C), cos, sin)
                keys_GSD = _with(memory.buffers[2 * number], held, k_GD)
                values_GSD = _with(memory.buffers[2 * number + 1], held, v_GD)
                q_GRD = q_HD.reshape(self._shared, -1, self._width)
                x_C = x_C + np.dot(_attended(q_GRD, keys_GSD, values_GSD).reshape(-1), layer.out_KN)
                half_gate, up = np.dot(self._normed(x_C), layer.gate_up_KN).reshape(2, -1)
                silu = (np.tanh(half_gate) + 1) * half_gate  # which does not overflow
                x_C = x_C + np.dot(silu * up, layer.down_KN)
            hidden_C = self._normed(x_C) * self._norm_C
        memory.advance([1])
        return torch.from_numpy(hidden_C.reshape(1, 1, -1))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of one hidden state (…, C)."""
        with np.errstate(all="ignore"):
            logits_V = np.dot(self._head_VC, hidden.numpy().reshape(-1))
        return torch.from_numpy(logits_V.reshape(*hidden.shape[:-1], -1))

    def _projected(self, layer: _Layer, x_C: Array, cos: Array, sin: Array) -> tuple[Array, Array, Array]:
        """Queries, turned and scaled, keys and values."""
        all_HD = np.dot(x_C, layer.qkv_KN).reshape(-1, self._width)
        turned_HD = all_HD[: -self._shared]
        if layer.qk_HD is not None:
            squares_H1 = np.vecdot(turned_HD, turned_HD)[:, None]
            turned_HD = turned_HD / np.sqrt(squares_H1 + self._width * self._eps) * layer.qk_HD
        halves = turned_HD.reshape(len(turned_HD), 2, -1)
        turned_HD = (halves * cos + halves[:, ::-1] * sin).reshape(-1, self._width)
        return turned_HD[: self._queries], turned_HD[self._queries :], all_HD[-self._shared :]

    def _normed(self, x_C: Array) -> Array:
        normed_C: Array = x_C * (float(np.dot(x_C, x_C)) / len(x_C) + self._eps) ** -0.5
        return normed_C


def _with(buffer: Tensor, held: int, new_GD: Array) -> Array:
    """Put the new entry behind those of the only row of a buffer; all of them (G, S, D)."""
    entries_SGD: Array = buffer.numpy()[0]
    entries_SGD[held] = new_GD
    return entries_SGD[: held + 1].transpose(1, 0, 2)


def _attended(q_GRD: Array, keys_GSD: Array, values_GSD: Array) -> Array:
    scores_GRS = np.matmul(q_GRD, keys_GSD.transpose(0, 2, 1))
    weights_GRS = np.exp(scores_GRS - np.maximum.reduce(scores_GRS, axis=-1, keepdims=True))
    mixed: Array = np.matmul(weights_GRS, values_GSD) / np.add.reduce(weights_GRS, axis=-1, keepdims=True)
    return mixed


def one_token(model: Any) -> OneToken | None:
    """The steps of a `gpt.GPT` that still has its own layers; none where its matrices are too large."""
    layers = [_layer(layer) for layer in model.model.layers]
    if any(matrix.size > _MOST for layer in layers for matrix in layer[:4]):
        return None
    embedding, norm_C = (_array(module.weight) for module in (model.model.embed_tokens, model.model.norm))
    head_VC = _array(model.lm_head.weight) if hasattr(model, "lm_head") else embedding
    return OneToken(layers, embedding, norm_C, head_VC, model.config)


def _layer(layer: Any) -> _Layer:
    attention, mlp, config = layer.self_attn, layer.mlp, layer.self_attn.config
    queries, shared, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    before, between = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    q_proj, qk = attention.q_proj.weight * width**-0.5, None
    if config.qk_norm:
        q_proj = attention.q_proj.weight
        keys = attention.k_norm.weight.expand(shared, -1) * width**0.5
        qk = _array(torch.cat([attention.q_norm.weight.expand(queries, -1), keys]))
    qkv = torch.cat([q_proj, attention.k_proj.weight, attention.v_proj.weight])
    gate_up = torch.cat([mlp.gate_proj.weight / 2, mlp.up_proj.weight])
    matrices = (qkv * before, attention.o_proj.weight, gate_up * between, mlp.down_proj.weight)
    qkv_KN, out_KN, gate_up_KN, down_KN = (_array(matrix.t().contiguous()) for matrix in matrices)
    return _Layer(qkv_KN, out_KN, gate_up_KN, down_KN, qk)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().numpy()
    return array
