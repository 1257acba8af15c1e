"""A tokenizer as llguidance sees it: the bytes of every id, and a second one whose tokens are the 256 bytes.

Only bytes count: any way to cut a text into tokens is accepted. Special tokens and those that end a reply are no text.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray
from torch import Tensor

from plume.errors import PlumeError
from plume.generation.constrain.strict import Place, alike, walk
from plume.models.bundle import Bundle

_T = TypeVar("_T")
END_OF_BYTES = 256  # the id that ends a text among the 256 bytes
_GRAMMARS = 64  # compiled grammars kept for one vocabulary, the longest unused go first
_ONE = (1,)
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
        self._lengths = _lengths(self.ids)
        self._text_V = np.array([bool(piece) for piece in self.table])
        self.stops = [id for id in sorted(self.stop_ids) if id < self.size]
        self._grammars: OrderedDict[tuple[str, Any], Future[Any]] = OrderedDict()
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
    def quoted(self) -> NDArray[np.int64]:
        """Ids with a quotation mark in their text: those that can end a key."""
        return np.array([id for id, piece in enumerate(self.table) if b'"' in piece], dtype=np.int64)

    @functools.cached_property
    def numeric(self) -> dict[bytes, NDArray[np.int64]]:
        """Ids whose text goes on with a number, by that beginning of it, every digit but 0 said as 1."""
        found: dict[bytes, list[int]] = {}
        for id, piece in enumerate(self.table):
            number = alike(piece[: len(piece) - len(piece.lstrip(b"0123456789.eE+-"))])
            if number:
                found.setdefault(number, []).append(id)
        return {number: np.array(ids) for number, ids in found.items()}

    @functools.lru_cache(maxsize=4096)  # noqa: B019 a vocabulary lives as long as its bundle
    def unreadable(self, number: bytes, digits: int) -> NDArray[np.int64]:
        """The ids with which a number that begins like this, said as `alike` does, would become unreadable."""
        begun = Place(None, "n", number, False, digits)
        struck = [ids for rest, ids in self.numeric.items() if walk(begun, rest) is None]
        return np.concatenate(struck) if struck else np.empty(0, dtype=np.int64)

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

    def mask_V(self, matcher: LLMatcher) -> Tensor | None:
        """What a matcher allows, as booleans (V,), for ids with text alone; None when it came to its limits."""
        words = np.zeros((len(self.table) + 32) // 32, dtype=np.int32)  # one id more: the end
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if matcher.is_error():
            return None
        allowed_V = np.zeros(self.size, dtype=bool)
        count = min(len(self.table), self.size)
        bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little").view(bool)
        np.logical_and(bits, self._text_V[:count], out=allowed_V[:count])
        return torch.from_numpy(allowed_V)

    def compiled(self, key: tuple[str, Any], compile: Callable[[], _T]) -> _T:
        """What was compiled under this key before, or now. Whoever asks meanwhile waits for whoever compiles, and is
        refused for the same reason."""
        with self._lock:
            known = self._grammars.get(key)
            if known is None:
                made = self._grammars[key] = Future[Any]()
                if len(self._grammars) > _GRAMMARS:
                    self._grammars.popitem(last=False)
            else:
                self._grammars.move_to_end(key)
        if known is not None:
            return cast(_T, known.result())
        try:
            found = compile()
        except BaseException as error:
            with self._lock:
                if self._grammars.get(key) is made:
                    del self._grammars[key]
            interrupted = PlumeError("compiling was interrupted", "ask again")
            made.set_exception(error if isinstance(error, Exception) else interrupted)
            raise
        made.set_result(found)
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
_making = threading.Lock()


def vocabulary(bundle: Bundle) -> Vocabulary:
    """The vocabulary of a bundle, made once for each tokenizer."""
    key = (bundle.stop_ids, bundle.model.vocab_size)
    with _making:
        known = _vocabularies.setdefault(bundle.tokenizer, {})
        if key not in known:
            known[key] = Vocabulary(bundle)
        return known[key]


def _lengths(pieces: Iterable[bytes]) -> dict[bytes, list[int]]:
    """How long the pieces are that begin with these two bytes, and 1, in order."""
    found: dict[bytes, set[int]] = {}
    for piece in pieces:
        if 1 < len(piece) <= _LONGEST:
            found.setdefault(piece[:2], {1}).add(len(piece))
    return {begin: sorted(lengths) for begin, lengths in found.items()}


def _counts(vocabulary: Vocabulary, text: bytes, back: list[int] | None = None) -> list[int | None]:
    """For each length of beginning of the text the fewest ids that write it."""
    counts: list[int | None] = [0] + [None] * len(text)
    ids, lengths = vocabulary.ids, vocabulary._lengths
    for at, count in enumerate(counts):
        if count is None:
            continue
        for length in lengths.get(text[at : at + 2], _ONE):
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
