"""A tokenizer as llguidance sees it: the bytes of every id, and a second one whose tokens are the 256 bytes.

Only bytes count: any way to cut a text into tokens is accepted. Special tokens and those that end a reply are no text.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from llguidance import LLTokenizer, TokenizerWrapper
from torch import Tensor

from plume.models.bundle import Bundle

_T = TypeVar("_T")
END_OF_BYTES = 256  # the id that ends a text among the 256 bytes
_GRAMMARS = 64  # compiled grammars kept for one vocabulary, the longest unused go first
_LONGEST = 64  # bytes of a token; longer ones (runs of spaces) save nothing in an ending


class Vocabulary:
    """The text of every id of a bundle, V ids in all."""

    def __init__(self, bundle: Bundle) -> None:
        tokenizer = bundle.tokenizer
        self.size = bundle.model.vocab_size
        self.stop_ids = bundle.stop_ids
        self.drops_space = tokenizer.prepends_space
        special = set(tokenizer.special_tokens.values()) | set(bundle.stop_ids)
        self.table = [b"" if id in special else tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
        self.ids: dict[bytes, int] = {}
        for id, piece in enumerate(self.table):
            if piece:
                self.ids.setdefault(piece, id)
        self.complete = all(bytes([byte]) in self.ids for byte in range(256))
        self._lengths = sorted({len(piece) for piece in self.ids if len(piece) <= _LONGEST})
        self.text_V = torch.tensor([bool(piece) for piece in self.table] + [False] * (self.size - len(self.table)))
        self.stop_V = torch.zeros(self.size, dtype=torch.bool)
        self.stop_V[[id for id in self.stop_ids if id < self.size]] = True
        self._grammars: OrderedDict[tuple[str, Any], Any] = OrderedDict()
        self._lock = threading.Lock()

    @functools.cached_property
    def tokens(self) -> LLTokenizer:
        return LLTokenizer(TokenizerWrapper(_Tokens(self.table)), slices=LLTokenizer.json_slices())

    @functools.cached_property
    def first_V(self) -> Tensor:
        """For each id the one with the same text but for a first space, which is dropped where a reply begins; itself
        where there is no space, and `len(table)` where nothing has that text."""
        none = len(self.table)
        without = [self.ids.get(piece[1:], none) if piece[:1] == b" " else id for id, piece in enumerate(self.table)]
        return torch.tensor(without)

    @functools.cached_property
    def quoted(self) -> tuple[tuple[int, bytes], ...]:
        """Ids with a quotation mark in their text: those that can end a key."""
        return tuple((id, piece) for id, piece in enumerate(self.table) if b'"' in piece)

    @functools.cached_property
    def numeric(self) -> tuple[tuple[int, bytes], ...]:
        """Ids whose text can go on with a number."""
        return tuple((id, piece) for id, piece in enumerate(self.table) if piece and piece[0] in b"0123456789.eE+-")

    def segment(self, text: bytes, *, begun: bool = True) -> tuple[int, ...] | None:
        """The fewest ids with this text; None when some of it cannot be written. Where a reply has not begun, a first
        space is dropped from what is said, so that one that is meant is said twice."""
        if begun or not text.startswith(b" "):
            return _segment(self, text)
        found = []
        for length in range(1, len(text) + 1):
            first, rest = self.ids.get(b" " + text[:length]), _segment(self, text[length:])
            if first is not None and rest is not None and text[:length] in self.ids:
                found.append((first, *rest))
        return min(found, key=len, default=None)

    def written(self, text: bytes) -> int:
        """How many of the first bytes of a text can be written."""
        return max((at for at, count in enumerate(_counts(self, text)) if count is not None), default=0)

    def tensor(self, bitmask: bytes) -> Tensor:
        """A mask of llguidance as booleans (V,), for ids with text alone."""
        bits = np.unpackbits(np.frombuffer(bitmask, dtype=np.uint8), bitorder="little")[: len(self.table)]
        mask_V = torch.zeros(self.size, dtype=torch.bool)
        mask_V[: len(bits)] = torch.from_numpy(bits).bool()
        return mask_V & self.text_V

    def compiled(self, key: tuple[str, Any], compile: Callable[[], _T]) -> _T:
        """What was compiled under this key before, or now."""
        with self._lock:
            if key in self._grammars:
                self._grammars.move_to_end(key)
                return cast(_T, self._grammars[key])
        found = compile()
        with self._lock:
            self._grammars[key] = found
            if len(self._grammars) > _GRAMMARS:
                self._grammars.popitem(last=False)
        return found


class _Tokens:
    """What llguidance reads of a tokenizer. Its end token is one more id, behind all others."""

    bos_token_id = None

    def __init__(self, table: Sequence[bytes]) -> None:
        self.tokens = [piece or b"<%d>" % id for id, piece in enumerate(table)] + [b"<end>"]
        self.eos_token_id = len(table)
        self.special_token_ids = [id for id, piece in enumerate(table) if not piece] + [len(table)]

    def __call__(self, text: str | bytes) -> list[int]:
        """How llguidance cuts forced text; only the 256 bytes are asked, since grammars of tokens force none."""
        return list(text.encode() if isinstance(text, str) else text)


@functools.cache
def byte_tokens() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Tokens([bytes([byte]) for byte in range(256)])), slices=[])


_vocabularies: weakref.WeakKeyDictionary[Any, dict[Any, Vocabulary]] = weakref.WeakKeyDictionary()


def vocabulary(bundle: Bundle) -> Vocabulary:
    """The vocabulary of a bundle, made once for each tokenizer."""
    known = _vocabularies.setdefault(bundle.tokenizer, {})
    key = (bundle.stop_ids, bundle.model.vocab_size)
    if key not in known:
        known[key] = Vocabulary(bundle)
    return known[key]


def _counts(vocabulary: Vocabulary, text: bytes, back: list[int] | None = None) -> list[int | None]:
    """For each length of beginning of the text the fewest ids that write it."""
    counts: list[int | None] = [0] + [None] * len(text)
    ids, lengths = vocabulary.ids, vocabulary._lengths
    for at, count in enumerate(counts):
        if count is None:
            continue
        for length in lengths:
            end = at + length
            if end > len(text):
                break
            if text[at:end] in ids and (counts[end] is None or counts[end] > count + 1):  # type: ignore[operator]
                counts[end] = count + 1
                if back is not None:
                    back[end] = at
    return counts


@functools.lru_cache(maxsize=4096)
def _segment(vocabulary: Vocabulary, text: bytes) -> tuple[int, ...] | None:
    back = [0] * (len(text) + 1)
    if _counts(vocabulary, text, back)[-1] is None:
        return None
    found = []
    end = len(text)
    while end:
        found.append(vocabulary.ids[text[back[end] : end]])
        end = back[end]
    return tuple(reversed(found))
