"""Any causal language model that transformers knows, behind Plume's protocol.

Shape suffixes: B batch, T new tokens, C width, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging

from plume.errors import UserError
from plume.models import gpt, gpt2, hf_cache, ragged
from plume.models.hf_columns import Columns
from plume.models.prepacked import prepack_layers
from plume.models.weights import weight_files

# Its bars and advice would stand among our own output; its errors still come through as exceptions.
logging.disable_progress_bar()
logging.set_verbosity_error()


class HFModel(nn.Module):
    """`plume.types.LanguageModel` around an `AutoModelForCausalLM`."""

    def __init__(self, inner: PreTrainedModel, *, filled: bool = True) -> None:
        """`filled` says that it has its weights; else `probe` it when it has."""
        super().__init__()
        self.inner = inner
        self._isolates: bool | None = None
        self.checkpointing = False
        self._windows = hf_cache.windows(inner.config)
        self._layers = len(DynamicCache(config=inner.config).layers)
        self._slot_nbytes = 0
        if filled:
            self.probe()

    @property
    def vocab_size(self) -> int:
        return int(self.inner.config.get_text_config().vocab_size)

    @property
    def context_length(self) -> int:
        return int(getattr(self.inner.config, "max_position_embeddings", None) or 2048)

    def forward(
        self,
        ids_BT: Tensor,
        state: ragged.Memory | Columns | None = None,
        lengths_B: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> tuple[Tensor, ragged.Memory | Columns]:
        """Hidden states (B, T, C) and the state after each row's real tokens; none is kept in training."""
        ragged.refuse_continued(state, segments_BT)
        if state is None and (self.training or segments_BT is not None):
            return self._stateless(ids_BT, segments_BT)
        if isinstance(state, Columns) or self._windows is None:
            return self._by_columns(ids_BT, state, lengths_B)
        memory = state or ragged.Memory.start(ids_BT)
        place = memory.place(ids_BT.shape[1], ids_BT.device)
        hidden_BTC = self._read(
            ids_BT,
            place.positions_BT,
            attention_mask=hf_cache.mask(place, self._windows, self.inner.dtype),
            past_key_values=hf_cache.cache(memory, place, self._layers),
        )
        memory.advance(ragged.added(lengths_B, ids_BT))
        return hidden_BTC, memory

    def _by_columns(self, ids_BT: Tensor, state: Any, lengths_B: Tensor | None) -> tuple[Tensor, Columns]:
        columns = state.aligned() if state else Columns(DynamicCache(config=self.inner.config), ids_BT[:, :0].bool())
        steps_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        added_B1 = torch.tensor(ragged.added(lengths_B, ids_BT), device=ids_BT.device)[:, None]
        real_BS = torch.cat([columns.real_BS, steps_T < added_B1], dim=1)
        positions_BT = columns.lengths_B[:, None] + steps_T
        hidden_BTC = self._read(ids_BT, positions_BT, attention_mask=real_BS.long(), past_key_values=columns.cache)
        return hidden_BTC, Columns(columns.cache, real_BS)

    def state_nbytes(self, tokens: int) -> int:
        """Bytes that one row's state holds at most after so many tokens, padding included."""
        return (tokens if self._windows is None else ragged.capacity(tokens)) * self._slot_nbytes

    def _stateless(self, ids_BT: Tensor, segments_BT: Tensor | None) -> tuple[Tensor, ragged.Memory]:
        """Without mask or cache: no token looks at the padding right of it, and transformers keeps documents apart
        where positions start again."""
        if segments_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand(len(ids_BT), -1)
        else:
            self.check_packing()
            positions_BT = ragged.segment_positions(segments_BT)
        return self._read(ids_BT, positions_BT, use_cache=False), ragged.Memory.start(ids_BT)

    def _read(self, ids_BT: Tensor, positions_BT: Tensor, **past: Any) -> Tensor:
        positions_BT = positions_BT.clamp(max=self.context_length - 1)  # padding may stand beyond
        output = self.inner.base_model(input_ids=ids_BT, position_ids=positions_BT, **past)
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

    def for_answering(self, *, batched: bool = False) -> HFModel | gpt.GPT | gpt2.GPT2:
        """The same model, faster: as a class of our own where that computes the same. From here on neither it nor this
        one can be trained or saved."""
        own = gpt.adopted(self.inner)
        if own is not None:
            return own.for_answering(batched=batched)
        self.eval()
        prepack_layers(self.inner)
        return gpt2.adopted(self.inner) or self

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
            packed_BTC = self._read(ids_BT, torch.tensor([[0, 1, 0, 1]], device=self.inner.device), use_cache=False)
            self._isolates = torch.allclose(packed_BTC[:, :2], packed_BTC[:, 2:], atol=1e-4)
            self.inner.train(training)
        if not self._isolates:
            kind = self.inner.config.model_type
            raise UserError(f"the architecture {kind} does not keep packed documents apart", "set packing=false")

    @torch.no_grad()
    def probe(self, tolerance: float = 1e-4) -> None:
        """Find out how rows of different lengths can be continued, and whether `head` gives the logits: some
        architectures scale or cap them behind it. Raises UserError where they cannot, or it does not. `tolerance` is
        how far the same number may differ when it is computed in another order."""
        self.eval()
        kind = self.inner.config.model_type
        if not (self._windows and self._continues(tolerance)):
            self._windows = None
            if not self._continues(tolerance):
                raise UserError(
                    f"the architecture {kind} cannot go on with rows of different lengths, which Plume needs",
                    "use a model whose layers remember keys and values",
                )
        ids_BT = torch.tensor([[0, 1]], device=self.inner.device)
        hidden_BTC, _ = self(ids_BT)
        if not torch.allclose(self.head(hidden_BTC), self.inner(input_ids=ids_BT).logits, atol=tolerance):
            raise UserError(
                f"the architecture {kind} changes its logits behind the output layer, which is not supported",
                "use a model without logit scaling or soft-capping",
            )

    def _continues(self, tolerance: float) -> bool:
        """Whether a token means the same read behind a shorter row of two as read at once."""
        ids_BT = torch.tensor([[0, 1], [0, 0]], device=self.inner.device)
        try:
            read_BTC, state = self(ids_BT, None, torch.tensor([2, 1], device=self.inner.device))
            self._slot_nbytes = state.nbytes // (2 * (2 if self._windows is None else ragged.BLOCK))
            next_BTC, _ = self(ids_BT[0, 1].expand(2, 1), state)
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
        return torch.allclose(next_BTC[1, 0], read_BTC[0, 1], atol=tolerance)


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
