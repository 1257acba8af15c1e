"""When two texts count as the same question."""

from __future__ import annotations

import unicodedata

_SAME = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "«": '"', "»": '"', "…": "."})


def normalise(text: str) -> str:
    """Fold what people vary without meaning to: case, spacing, typographic quotes, final punctuation, NFC/NFD.

    Nothing that may carry meaning is folded: accents (`cote`, `côte`), symbols (`C`, `C++`), digits.
    """
    folded = unicodedata.normalize("NFC", text).casefold().translate(_SAME)
    words = " ".join(folded.split())
    for mark in "?!:;":
        words = words.replace(f" {mark}", mark)
    return words.rstrip(" .?!") or words
