"""Any causal language model that transformers knows, behind Plume's protocol.

The cache grows by whole columns, so a shorter row has holes in it; the attention mask hides them and
positions count real tokens only. Shape suffixes: B batch, T new tokens, S slots.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging

from plume.errors import UserError
from plume.models import ragged
from plume.models.weights import weight_files

# Its bars and advice would stand among our own output; its errors still come through as exceptions.
logging.disable_progress_bar()
logging.set_verbosity_error()


@dataclass(slots=True)
class HFState:
    """transformers' cache, which tokens in it are real (B, S), and how many each row has."""

    cache: DynamicCache
    real_BS: Tensor
    lengths_B: Tensor

    @property
    def nbytes(self) -> int:
        layers: list[Any] = self.cache.layers
        return sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in layers)

    def select(self, rows: Tensor) -> HFState:
        self.cache.batch_select_indices(rows)
        return HFState(self.cache, self.real_BS[rows], self.lengths_B[rows])

    def fork(self) -> HFState:
        return HFState(copy.deepcopy(self.cache), self.real_BS.clone(), self.lengths_B.clone())

    def truncate(self, n: int) -> HFState:
        """Forget every row's tokens from the n-th on: hidden, and cut off where no row needs the column."""
        real_BS = self.real_BS & (self.real_BS.cumsum(dim=1) <= n)
        needed = int(real_BS.any(dim=0).nonzero().max()) + 1 if real_BS.any() else 0
        self.cache.crop(needed - real_BS.shape[1])
        return HFState(self.cache, real_BS[:, :needed], real_BS.sum(dim=1))

    def aligned(self) -> HFState:
        """Every row's tokens moved to the end, without holes: a window over columns (GPT-Neo's local attention) then
        holds as many tokens as in a row read alone."""
        order_BS = self.real_BS.long().argsort(dim=1, stable=True)
        empty = self.real_BS.shape[1] - int(self.lengths_B.max())
        if not empty and bool((order_BS.diff(dim=1) > 0).all()):
            return self
        order_BS = order_BS[:, empty:]
        layers: list[Any] = self.cache.layers
        for layer in layers:
            order_BHSD = order_BS[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
            layer.keys, layer.values = layer.keys.gather(2, order_BHSD), layer.values.gather(2, order_BHSD)
        return HFState(self.cache, self.real_BS.gather(1, order_BS), self.lengths_B)


class HFModel(nn.Module):
    """`plume.types.LanguageModel` around an `AutoModelForCausalLM`."""

    def __init__(self, inner: PreTrainedModel, *, filled: bool = True) -> None:
        """`filled` says that it has its weights: then what its head gives is compared with what it gives itself."""
        super().__init__()
        self.inner = inner
        self._isolates: bool | None = None
        self.checkpointing = False
        if filled:
            self._check_head()

    @property
    def vocab_size(self) -> int:
        return int(self.inner.get_output_embeddings().out_features)

    @property
    def context_length(self) -> int:
        return int(getattr(self.inner.config, "max_position_embeddings", None) or 2048)

    def forward(
        self,
        ids_BT: Tensor,
        state: HFState | None = None,
        lengths_B: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> tuple[Tensor, HFState]:
        """Hidden states (B, T, C) and the state after each row's real tokens; none is kept in training."""
        ragged.refuse_continued(state, segments_BT)
        if state is None and (self.training or segments_BT is not None):
            return self._stateless(ids_BT, segments_BT)
        if state and "local" in getattr(self.inner.config, "attention_layers", ()):
            state = state.aligned()
        before_B = state.lengths_B if state else ragged.start_lengths(ids_BT)
        added_B = ragged.added(lengths_B, ids_BT)
        new_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < added_B[:, None]
        real_BS = torch.cat([state.real_BS, new_BT], dim=1) if state else new_BT
        cache = state.cache if state else DynamicCache(config=self.inner.config)
        positions = ragged.new_positions(before_B, ids_BT.shape[1]).clamp(max=self.context_length - 1)
        output = self.inner.base_model(
            input_ids=ids_BT,
            attention_mask=real_BS.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state, HFState(output.past_key_values, real_BS, before_B + added_B)

    def _stateless(self, ids_BT: Tensor, segments_BT: Tensor | None) -> tuple[Tensor, HFState]:
        """Without mask or cache: no token looks at the padding right of it, and transformers keeps documents apart
        where positions start again."""
        before_B = ragged.start_lengths(ids_BT)
        if segments_BT is None:
            positions_BT = ragged.new_positions(before_B, ids_BT.shape[1])
        else:
            self.check_packing()
            positions_BT = ragged.segment_positions(segments_BT)
        hidden_BTC = self._read(ids_BT, positions_BT)
        return hidden_BTC, HFState(DynamicCache(config=self.inner.config), ids_BT[:, :0].bool(), before_B)

    def _read(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        positions_BT = positions_BT.clamp(max=self.context_length - 1)
        output = self.inner.base_model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False)
        hidden_BTC: Tensor = output.last_hidden_state
        return hidden_BTC

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, C)."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden)
        return logits

    def resize(self, vocab_size: int) -> None:
        """Widen the vocabulary; new rows start around the mean of the old ones (transformers' default)."""
        if vocab_size > self.vocab_size:
            self.inner.resize_token_embeddings(vocab_size)

    def checkpoint_layers(self, on: bool = True) -> None:
        """Keep each layer's input alone in training; the backward pass computes the layer again."""
        self.checkpointing = on
        if on:
            self.inner.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.inner.activation_checkpointing_disable()

    def save(self, directory: Path) -> None:
        self.inner.save_pretrained(directory)

    @torch.no_grad()
    def check_packing(self) -> None:
        """Raise UserError when positions that start again do not keep documents apart, as in recurrent architectures.

        It reads a little, so it is to be asked before the model is shared out among processes.
        """
        if self._isolates is None:
            training = self.inner.training
            self.inner.eval()
            ids_BT = torch.tensor([[0, 1, 0, 1]], device=self.inner.device)
            packed_BTC = self._read(ids_BT, torch.tensor([[0, 1, 0, 1]], device=self.inner.device))
            self._isolates = torch.allclose(packed_BTC[:, :2], packed_BTC[:, 2:], atol=1e-4)
            self.inner.train(training)
        if not self._isolates:
            kind = self.inner.config.model_type
            raise UserError(f"the architecture {kind} does not keep packed documents apart", "set packing=false")

    @torch.no_grad()
    def _check_head(self) -> None:
        """Some architectures scale or cap logits behind the head; then `head` alone would be wrong."""
        self.inner.eval()
        ids = torch.tensor([[0, 1]], device=self.inner.device)
        hidden, _ = self(ids)
        if not torch.allclose(self.head(hidden), self.inner(input_ids=ids).logits, atol=1e-4):
            kind = self.inner.config.model_type
            raise UserError(
                f"the architecture {kind} changes its logits behind the output layer, which is not supported",
                "use a model without logit scaling or soft-capping",
            )


class _Unfilled(TorchFunctionMode):
    """Parameters take no memory, tables that are computed do: transformers' buffers stand in no file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def empty(directory: Path) -> HFModel:
    """The model of a directory without its weights, which take no memory yet."""
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        config.tie_word_embeddings = False
        with _Unfilled():
            return HFModel(AutoModelForCausalLM.from_config(config, dtype=torch.float32), filled=False)
    except (ValueError, OSError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{directory}: transformers cannot open it: {first}", "check config.json") from None


def load(directory: Path) -> HFModel:
    """Read a transformers model directory in float32. Raises UserError when it is not one."""
    if not weight_files(directory):
        raise UserError(
            f"{directory} has no weights in safetensors",
            "Plume reads safetensors only; convert older weights with transformers: model.save_pretrained(DIR)",
        )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{directory}: transformers cannot open it: {first}", "check config.json and the weights"
        ) from None
    inner, report = loaded
    absent = [*report["missing_keys"], *report["mismatched_keys"]]
    if absent:  # transformers would fill them with random numbers
        raise UserError(f"{directory}: the weights lack {absent[0]}", "restore the weights from the model's source")
    return HFModel(inner)
