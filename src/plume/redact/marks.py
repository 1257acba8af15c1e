"""What stands in the place of what was removed, in two forms.

`[EMAIL]`, `[EMAIL_2]` in conversations and in data made to be trained on. `<email-1>` where a check repairs a file:
there `[EMAIL]` would look like a placeholder that somebody forgot to fill.
"""

from __future__ import annotations

import re

from plume.redact.names import folded
from plume.redact.personal import PERSONAL
from plume.redact.secrets import SECRETS

WORDS = {
    **dict.fromkeys(SECRETS, "SECRET"),
    "iban": "IBAN",
    "nir": "NIR",
    "card": "CARTE",
    "ip": "IP",
    "email": "EMAIL",
    "phone": "TEL",
    "birth-date": "NAISSANCE",
    "name": "NOM",
}
KINDS = (*SECRETS, *PERSONAL, "birth-date", "name")

REPAIRED = re.compile(r"<(?:" + "|".join(KINDS) + r")-[0-9]{1,9}>")
MARK = re.compile(r"\[(?P<word>" + "|".join(dict.fromkeys(WORDS.values())) + r")(?:_(?P<number>[0-9]{1,9}))?\]")
ANY = re.compile(f"{REPAIRED.pattern}|{MARK.pattern}")

_SEPARATORS = re.compile(r"[\s\u00a0\u202f.()/-]+")


def written(word: str, number: int) -> str:
    """The mark of the value of that number."""
    return f"[{word}]" if number == 1 else f"[{word}_{number}]"


def same(kind: str, text: str) -> str:
    """What is equal for two spellings of one value: `06 12 34 56 78` and `06.12.34.56.78`."""
    if kind in SECRETS:
        return text
    if kind == "name":
        return " ".join(folded(text))
    return _SEPARATORS.sub("", text).casefold()
