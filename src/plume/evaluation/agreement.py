"""What quantising a model costs: the same questions to both, and where they answer differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plume.evaluation.metrics import summarise
from plume.evaluation.run import evaluate
from plume.generation.engine import Engine
from plume.types import Example, Scored

LEAST_EXACT_MATCH = -0.02  # how far it may fall: two questions of a hundred
MOST_PERPLEXITY = 1.05  # times that of the original
LEAST_AGREEMENT = 0.5  # of the questions: a copy of a model that is mostly wrong must be wrong as it is


@dataclass(frozen=True, slots=True)
class Agreement:
    """`agreement` is the share of questions that both answer alike, None for plain text, which is only scored."""

    questions: int
    agreement: float | None
    original: dict[str, float | None]
    quantized: dict[str, float | None]
    differing: list[dict[str, Any]]

    @property
    def passed(self) -> bool:
        """Exact match fell by at most 0.02, perplexity rose by at most a twentieth, and half of the answers are the
        original's."""
        before, after = self.original, self.quantized
        lost = (after["exact_match"] or 0.0) - (before["exact_match"] or 0.0)
        risen = (after["perplexity"] or 1.0) / (before["perplexity"] or 1.0)
        alike = self.agreement is None or self.agreement >= LEAST_AGREEMENT
        return alike and lost >= LEAST_EXACT_MATCH and risen <= MOST_PERPLEXITY  # NaN fails both


def agree(original: Engine, quantized: Engine, examples: Sequence[Example]) -> Agreement:
    """Ask both the same, greedily. Raises UserError when a question does not fit into the context."""
    before, after = (list(evaluate(engine, examples)) for engine in (original, quantized))
    asked = [pair for pair in zip(before, after, strict=True) if pair[0].exact_match is not None]
    differing = [_difference(one, other) for one, other in asked if one.answer != other.answer]
    share = 1 - len(differing) / len(asked) if asked else None
    return Agreement(len(before), share, _scores(before), _scores(after), differing)


def _scores(rows: Sequence[Scored]) -> dict[str, float | None]:
    scores = summarise(rows)
    return {name: scores[name] for name in ("exact_match", "token_f1", "perplexity")}


def _difference(before: Scored, after: Scored) -> dict[str, Any]:
    return {
        "file": before.source.file,
        "line": before.source.line,
        "prompt": before.prompt,
        "reference": before.reference,
        "original": before.answer,
        "quantized": after.answer,
    }
