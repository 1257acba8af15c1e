"""The result of an evaluation as one JSON value: what `plume eval --json` prints and eval/NAME.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plume.evaluation.metrics import summarise
from plume.types import Scored


def result(
    model: str, data: str, rows: Sequence[Scored], baseline: Sequence[Scored] | None, baseline_name: str = ""
) -> dict[str, Any]:
    """Scores, the baseline's scores over its own rows (null without one), and every row, worst first."""
    compared = {"name": baseline_name, "rows": len(baseline), "scores": summarise(baseline)} if baseline else None
    return {
        "model": model,
        "data": data,
        "scores": summarise(rows),
        "baseline": compared,
        "rows": [as_row(row) for row in worst_first(rows)],
    }


def worst_first(rows: Sequence[Scored]) -> list[Scored]:
    """Wrong answers by how little they share with the reference, then right ones by how unlikely they were."""
    return sorted(rows, key=lambda row: (bool(row.exact_match), row.token_f1 or 0.0, -_loss(row)))


def as_row(row: Scored) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "file": row.source.file,
        "line": row.source.line,
        "turn": row.turn,
        "prompt": row.prompt,
        "reference": row.reference,
        "answer": row.answer,
        "exact_match": row.exact_match,
        "token_f1": row.token_f1,
        "json_valid": row.json_valid,
        "schema_valid": row.schema_valid,
        "stopped": row.stopped,
        "loss": _loss(row),
    }
    if row.exact_match is None:  # plain text: the file holds it already
        shown |= {"reference": row.reference[:200]}
    return shown


def rounded(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """Scores for people: four decimals."""
    return {name: None if value is None else round(value, 4) for name, value in scores.items()}


def _loss(row: Scored) -> float:
    return row.likelihood.loss / max(1, row.likelihood.tokens)


def said_forgetting(measured: Mapping[str, Any]) -> str:
    """What fine-tuning did to general text, from run.json's `forgetting`."""
    before, after = measured["perplexity_before"], measured["perplexity_after"]
    return f"perplexity of {measured['file']}: {before:.4g} of the base, {after:.4g} of the result"
