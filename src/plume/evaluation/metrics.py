"""What a score means. Rates are fractions of 1; None where no row can say."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from plume.types import Scored


def exact_match(answer: str, reference: str) -> bool:
    """Same text up to Unicode normal form and surrounding white space."""
    return _canonical(answer) == _canonical(reference)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words and marks, case folded (after SQuAD, Rajpurkar 2016)."""
    ours, theirs = _words(answer), _words(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def is_json(text: str) -> bool:
    """Strictly one JSON value and nothing else; NaN is none."""
    try:
        json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError):
        return False
    return True


def asks_for_json(reference: str) -> bool:
    """Is the reference an object or array? A bare number or word is text."""
    return reference.lstrip()[:1] in ("{", "[") and is_json(reference)


def summarise(rows: Sequence[Scored]) -> dict[str, float | None]:
    """The scores of an evaluation, in the order in which people read them."""
    return {name: metric(rows) for name, metric in METRICS.items()}


def _rate(values: list[bool] | list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _perplexity(rows: Sequence[Scored]) -> float | None:
    tokens = sum(row.likelihood.tokens for row in rows)
    return math.exp(min(700.0, sum(row.likelihood.loss for row in rows) / tokens)) if tokens else None


def _loss(rows: Sequence[Scored]) -> float | None:
    tokens = sum(row.likelihood.tokens for row in rows)
    return sum(row.likelihood.loss for row in rows) / tokens if tokens else None


def _bits_per_byte(rows: Sequence[Scored]) -> float | None:
    size = sum(row.likelihood.bytes for row in rows)
    return sum(row.likelihood.text_loss for row in rows) / size / math.log(2) if size else None


METRICS: dict[str, Callable[[Sequence[Scored]], float | None]] = {
    "exact_match": lambda rows: _rate([row.exact_match for row in rows if row.exact_match is not None]),
    "token_f1": lambda rows: _rate([row.token_f1 for row in rows if row.token_f1 is not None]),
    "json_valid": lambda rows: _rate([row.json_valid for row in rows if row.json_valid is not None]),
    "schema_valid": lambda rows: _rate([row.schema_valid for row in rows if row.schema_valid is not None]),
    "stop_rate": lambda rows: _rate([row.stopped for row in rows if row.stopped is not None]),
    "perplexity": _perplexity,
    "bits_per_byte": _bits_per_byte,
    "loss": _loss,
}


def _canonical(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", _canonical(text).casefold())


def _reject(name: str) -> float:
    raise ValueError(name)
