"""The rows of an evaluation that say most, as a page shows them: what was expected and where the answer differs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from plume.evaluation.charts import Row, number, percent

_ROWS, _RIGHT_ROWS = 20, 5  # most of each on the page
_AROUND, _DIFFERING, _TEXT = 160, 600, 2000  # characters shown beside a difference, of it, of any other text


def row_list(rows: Sequence[Row], *, asks: bool) -> dict[str, Any]:
    """The rows that say most, worst first as they are stored, and what is said about them.

    `asks`: questions were answered; plain text is only scored.
    """
    wrong = [row for row in rows if row["exact_match"] is False]
    shown: Sequence[Row]
    if wrong:
        shown, about = wrong[:_ROWS], f"{len(wrong):,} of {len(rows):,} answers are wrong, the worst first."
    elif asks:
        shown, about = rows[:_RIGHT_ROWS], f"All {len(rows):,} answers are right. It was least certain of these:"
    else:
        shown, about = rows[:_RIGHT_ROWS], "The stretches of text that it predicts worst:"
    rest = len(rows) - len(shown)
    more = f"{rest:,} more{', all right,' if 0 < len(wrong) <= len(shown) else ''} in" if rest else "All of them are in"
    return {"about": about, "rows": [_shown_row(row) for row in shown], "more": more}


def _shown_row(row: Row) -> dict[str, Any]:
    answered = row["exact_match"] is not None
    expected, answer = _difference(row["reference"], row["answer"]) if answered else (None, None)
    wrong = row["exact_match"] is False
    notes = [f"word overlap {percent(row['token_f1'])}"] if wrong and row["token_f1"] is not None else []
    faults = {"stopped": "does not stop", "json_valid": "not JSON", "schema_valid": "does not fit the schema"}
    notes += [fault for key, fault in faults.items() if row[key] is False]
    return {
        "where": f"{row['file']}:{row['line']}" + (f", turn {row['turn']}" if row["turn"] > 1 else ""),
        "notes": [*notes, f"loss {number(row['loss'])}"],
        "prompt": cut(row["prompt"]),
        "text": cut(row["reference"]),
        "answered": answered,
        "differs": expected != answer,
        "expected": expected,
        "answer": answer,
    }


def _difference(expected: str, answer: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Both texts as (common start, what differs, common end), cut at word borders and shortened."""
    texts = [unicodedata.normalize("NFC", text).strip() for text in (expected, answer)]
    start = _common(texts[0], texts[1])
    end = _common(texts[0][start:][::-1], texts[1][start:][::-1])
    if texts[0] != texts[1]:
        letters = r"[0-9A-Za-z\u00c0-\u04ff]{0,24}"
        start -= len(re.findall(f"{letters}$", texts[0][:start])[0])
        after = texts[0][len(texts[0]) - end :]
        end -= len((re.match(letters, after) or [""])[0])
    parts = [(text[:start], text[start : len(text) - end], text[len(text) - end :]) for text in texts]
    return _shortened(parts[0]), _shortened(parts[1])


def _common(ours: str, theirs: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(ours), len(theirs)))


def _shortened(parts: tuple[str, str, str]) -> tuple[str, str, str]:
    before, differing, after = parts
    if len(before) > _AROUND:
        before = "…" + before[-_AROUND:]
    return before, cut(differing, _DIFFERING), cut(after, _AROUND)


def cut(text: str, length: int = _TEXT) -> str:
    return text if len(text) <= length else text[:length] + "…"
