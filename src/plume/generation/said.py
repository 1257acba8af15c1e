"""What one answer has read and said, kept so that a further token costs the same however long it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from plume.types import Sampling


class Tally:
    """How often each token came: `ids_N`, each once, and `counts_N`, in tensors that grow by doubling."""

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self._ids: Tensor
        self._counts: Tensor
        self._ids, self._counts = torch.tensor(ids, dtype=torch.long).unique(return_counts=True)
        self._place = {id: place for place, id in enumerate(self._ids.tolist())}

    @property
    def ids_N(self) -> Tensor:
        return self._ids[: len(self._place)]

    @property
    def counts_N(self) -> Tensor:
        return self._counts[: len(self._place)]

    def push(self, id: int) -> None:
        place = self._place.setdefault(id, len(self._place))
        if place == len(self._ids):
            more = self._ids.new_zeros(max(16, len(self._ids)))
            self._ids, self._counts = torch.cat([self._ids, more]), torch.cat([self._counts, more])
        self._ids[place] = id
        self._counts[place] += 1

    def fork(self) -> Tally:
        twin = Tally()
        twin._ids, twin._counts, twin._place = self._ids.clone(), self._counts.clone(), self._place.copy()
        return twin


class NGrams:
    """What followed each `size` - 1 tokens: of `ids`, and then of what is pushed, unless that is only read on."""

    def __init__(self, size: int, ids: Sequence[int] = (), *, learns: bool) -> None:
        self._size = size
        self._learns = True
        self._last: tuple[int, ...] = ()
        self._after: dict[tuple[int, ...], tuple[int, ...]] = {}
        for id in ids:
            self.push(id)
        self._learns = learns

    def push(self, id: int) -> None:
        full = len(self._last) == self._size - 1
        if self._learns and full:
            self._after[self._last] = (*self._after.get(self._last, ()), id)
        self._last = tuple(islice((*self._last, id), int(full), None))

    def completing(self) -> tuple[int, ...]:
        """The tokens that would make an n-gram come again here."""
        return self._after.get(self._last, ())

    def fork(self) -> NGrams:
        twin = NGrams(self._size, learns=self._learns)
        twin._last, twin._after = self._last, self._after.copy() if self._learns else self._after
        return twin


class Said:
    """What the settings that look back need; what none of them needs is not filled."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        needed = {
            "both": sampling.repetition_penalty != 1,
            "reply": sampling.presence_penalty != 0 or sampling.frequency_penalty != 0,
            "reply_ngrams": sampling.no_repeat_ngram_size > 0,
            "prompt_ngrams": sampling.encoder_no_repeat_ngram_size > 0,
        }
        self._needed = [name for name, need in needed.items() if need]
        self.both = Tally(prompt_ids if needed["both"] else ())
        self.reply = Tally()
        self.reply_ngrams = NGrams(sampling.no_repeat_ngram_size, learns=True)
        known = prompt_ids if needed["prompt_ngrams"] else ()
        self.prompt_ngrams = NGrams(sampling.encoder_no_repeat_ngram_size, known, learns=False)

    def push(self, id: int) -> None:
        """The reply has one more token."""
        for name in self._needed:
            getattr(self, name).push(id)

    def fork(self) -> Said:
        """The same, to go on differently."""
        twin = copy.copy(self)
        for name in self._needed:
            setattr(twin, name, getattr(self, name).fork())
        return twin
