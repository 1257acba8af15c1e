"""Words without case and accents, for a database that cannot fold them itself."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_CHARACTERS = 200_000  # of a message: whatever stands in so many fits the megabyte of PostgreSQL's tsvector
_LONGEST = 255  # characters of a word


def folded_words(text: str) -> list[str]:
    """In their order, of the first 200,000 characters; longer words than 255 are cut."""
    plain = unicodedata.normalize("NFKD", text[:_CHARACTERS])
    bare = "".join(sign for sign in plain if not unicodedata.combining(sign)).casefold()[:_CHARACTERS]
    return [word[:_LONGEST] for word in _WORD.findall(bare)]
