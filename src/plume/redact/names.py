"""Names that the person lists, found as whole words whatever their case and accents."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from plume.errors import UserError
from plume.redact.match import Match
from plume.redact.nouns import NOUNS

Names = frozenset[tuple[str, ...]]
"""Each name as its folded words: `Jean-Paul de Villèle` is ("jean-paul", "de", "villele")."""

_WORD = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f])+(?:[-‐‑](?:[^\W\d_]|[\u0300-\u036f])+)*")
_GAP = re.compile(r"[\s.'’]{1,2}")


def read_names(path: str | os.PathLike[str]) -> Names:
    """The names of a UTF-8 text file, one a line; blank lines and lines that begin with # are skipped.

    Raises UserError when the file cannot be read or holds no name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{os.fspath(path)}: the list of names cannot be read ({reason})", "check the path") from None
    names = listed(line for line in lines if not line.lstrip().startswith("#"))
    if not names:
        raise UserError(f"{os.fspath(path)}: there is no name in it", "write one name a line")
    return names


def listed(lines: Iterable[str]) -> Names:
    """Names made ready to be looked for; a line without letters is none."""
    return frozenset(name for line in lines if (name := folded(line)))


def folded(text: str) -> tuple[str, ...]:
    """The words of a name without case and accents."""
    return tuple(_fold(word) for word in _WORD.findall(text))


def named(text: str, names: Names) -> Iterator[Match]:
    """The longest listed name that begins at each word; `Anne` is not in `Anne-Laure`, nor `Rose` in `une rose`."""
    by_first = _by_first(names)
    words = list(_WORD.finditer(text))
    for at, word in enumerate(words):
        for name in by_first.get(_fold(word[0]), ()):
            found = words[at : at + len(name)]
            if (
                tuple(_fold(part[0]) for part in found) == name
                and all(_GAP.fullmatch(text, left.end(), right.start()) for left, right in pairwise(found))
                and not (len(name) == 1 and name[0] in NOUNS and word[0][0].islower())
            ):
                yield Match("name", word.start(), found[-1].end(), text[word.start() : found[-1].end()])
                break


def may_hold_name(text: str, names: Names) -> bool:
    """Whether the first word of a name occurs; cheap for long texts, whose words repeat."""
    by_first = _by_first(names)
    return any(_fold(word) in by_first for word in set(_WORD.findall(text)))


@functools.lru_cache(maxsize=4)
def _by_first(names: Names) -> dict[str, list[tuple[str, ...]]]:
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for name in sorted(names, key=len, reverse=True):
        by_first.setdefault(name[0], []).append(name)
    return by_first


@functools.lru_cache(maxsize=65536)
def _fold(word: str) -> str:
    apart = unicodedata.normalize("NFD", word.casefold())
    return "".join("-" if c in "‐‑" else c for c in apart if not unicodedata.combining(c))
