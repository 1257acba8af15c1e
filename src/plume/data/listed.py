"""Words and values found whatever their case, accents and apostrophes, as whole words."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Scripts written without spaces: there a word may begin and end anywhere.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = rf"[^\W{_UNSPACED}]"
_TOKEN = re.compile(rf"{_WORD}+|[{_UNSPACED}]|[^\w\s]")
_DECIMALS = re.compile(r"\d[.,]\d")
_FOLDED = {"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-"}


@dataclass(frozen=True, slots=True)
class Hit:
    """A stretch of a text, and the folded value that stands there."""

    start: int
    end: int
    value: str


def fold(text: str) -> str:
    """The text without case, accents, typographic apostrophes, ligatures and invisible characters."""
    return text.lower() if text.isascii() else "".join(map(_folded, text))


def fold_words(text: str) -> str:
    """`fold`, with every stretch of white space as one space."""
    return " ".join(fold(text).split())


class Listed:
    """Values to look for. The cost of a search depends on the text, not on how many values there are."""

    def __init__(self, values: Iterable[str]) -> None:
        heads: dict[str, set[str]] = {}
        for value in map(fold_words, values):
            if first := _TOKEN.search(value):
                heads.setdefault(first.group(), set()).add(value)
        self._heads = {head: _one_of(found) for head, found in heads.items()}

    def find(self, text: str) -> Iterator[Hit]:
        """Every value in the text, longest first where several begin, none overlapping."""
        if not self._heads:
            return
        folded, places = _fold_with_places(text)
        end = 0
        for token in _TOKEN.finditer(folded):
            pattern = self._heads.get(token.group())
            found = pattern.match(folded, token.start()) if pattern and token.start() >= end else None
            if found and not _inside_number(folded, found.start(), found.end()):
                end = found.end()
                stop = places[end] if end < len(folded) else len(text)  # with the marks that fold to nothing
                yield Hit(places[found.start()], stop, " ".join(found.group().split()))


def _one_of(values: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return re.compile("|".join(r"\s+".join(map(re.escape, value.split())) + _edge(value) for value in longest_first))


def _edge(value: str) -> str:
    return f"(?!{_WORD})" if re.match(_WORD, value[-1]) else ""


def _inside_number(text: str, start: int, end: int) -> bool:
    """12 does not stand in 12,5 nor in 3.12."""
    before = _DECIMALS.fullmatch(text, max(start - 2, 0), start + 1)
    return bool(before or _DECIMALS.fullmatch(text, end - 1, min(end + 2, len(text))))


def _fold_with_places(text: str) -> tuple[str, range | list[int]]:
    """The folded text and, for each of its characters, the place it came from."""
    if text.isascii():
        return text.lower(), range(len(text))
    pieces = list(map(_folded, text))
    if set(map(len, pieces)) == {1}:
        return "".join(pieces), range(len(text))
    return "".join(pieces), [place for place, piece in enumerate(pieces) for _ in piece]


@functools.lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    base = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    kept = (one for one in base if not unicodedata.combining(one) and unicodedata.category(one) != "Cf")
    return "".join(_FOLDED.get(one, one) for one in kept)
