"""Long texts are encoded in pieces: a tokenizer holds about a hundred bytes for each token of a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

PIECE = 2**20  # characters
_LINE_BREAK = re.compile(r"(?<=\S\n)(?=\S)")
_AROUND = 200  # characters on each side of a cut that is tried out
_TRIES = 20


def encode_long(text: str, encode: Callable[[str], list[int]], *, piece: int = PIECE) -> list[int]:
    """The ids of a text of any length, those of encoding it whole.

    It is cut after a line break between two words, where what stands around encodes alike in one and in two: words
    are told apart before they are encoded, so nothing further off can differ. A tokenizer for which no place can be
    cut (SentencePiece begins every text with a space) is given the whole.
    """
    ids: list[int] = []
    for part in _parts(text, encode, piece):
        ids += encode(part)
    return ids


def _parts(text: str, encode: Callable[[str], list[int]], piece: int) -> Iterator[str]:
    start = 0
    while len(text) - start > piece:
        cut = next((at for at in _places(text, start + piece) if _harmless(text, at, encode)), len(text))
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _places(text: str, near: int) -> Iterator[int]:
    for number, found in enumerate(_LINE_BREAK.finditer(text, near), 1):
        yield found.start()
        if number == _TRIES:
            return


def _harmless(text: str, at: int, encode: Callable[[str], list[int]]) -> bool:
    before, after = text[max(0, at - _AROUND) : at], text[at : at + _AROUND]
    return encode(before) + encode(after) == encode(before + after)
