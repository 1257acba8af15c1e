"""The report of a run: one HTML page that needs no network, made from the files of the run directory alone."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from os.path import commonprefix
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from plume.files import write_atomic
from plume.recipe import Recipe
from plume.runs import Run

_ROWS, _RIGHT_ROWS, _SAMPLES, _FINDINGS, _POINTS = 20, 5, 40, 100, 1000  # most of each on the page
_AROUND, _DIFFERING = 160, 600  # characters shown beside a difference, and of it
_LOG_RATIO = 100.0  # a loss that falls further than this is drawn on a logarithmic scale
_NBSP = "\N{NO-BREAK SPACE}"

_METRICS = {
    "exact_match": ("Exact match", "Answers that are the expected text, to the letter, and stop there."),
    "token_f1": ("Word overlap (F1)", "Words that answer and expected text share; counts answers that are nearly right."),
    "json_valid": ("JSON valid", "Answers that parse as JSON, where JSON is expected."),
    "schema_valid": ("Schema valid", "Answers that fit the JSON Schema."),
    "stop_rate": ("Stop rate", "Answers that end by themselves instead of being cut off."),
    "perplexity": ("Perplexity", "Tokens it hesitates between at each step of the expected text; lower is better, 1 is certain."),
    "bits_per_byte": ("Bits per byte", "The same, whatever the tokenizer: bits for each byte of the expected text; lower is better."),
    "loss": ("Loss", "What training lowers: the logarithm of perplexity, in nats per token."),
}
_RATES = ("exact_match", "token_f1", "json_valid", "schema_valid", "stop_rate")
_PLOTTED_RATES = ("exact_match", "stop_rate", "json_valid", "schema_valid")
_KINDS = {"held_out": "held-out", "recall": "recall"}


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One file of eval/: what was asked, in words, and the stored result."""

    name: str
    title: str
    note: str
    result: Mapping[str, Any]

    @property
    def scores(self) -> Mapping[str, float | None]:
        return dict(self.result["scores"])

    @property
    def baseline(self) -> Mapping[str, Any] | None:
        return self.result.get("baseline")

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        return list(self.result["rows"])


def write_report(run: Run) -> Path:
    """Write the run's report.html and return its path. The same run directory gives the same page."""
    write_atomic(run.report_file, _render(run))
    return run.report_file


def _render(run: Run) -> str:
    info, recipe, metrics = run.info(), run.recipe(), run.metrics()
    is_text = _is_text(info, metrics)
    evaluations, unread = _evaluations(run.path / "eval", recipe, is_text=is_text)
    samples = _json_lines(run.samples_file)
    environment = Environment(
        loader=PackageLoader("plume.evaluation", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent, number=_number, score=_score)
    return environment.get_template("report.html.jinja").render(
        name=run.path.resolve().name,
        info=info,
        facts=_facts(info, recipe, metrics),
        verdict=_verdict(info, evaluations, is_text=is_text),
        memory=_memory(evaluations, is_text=is_text),
        evaluations=evaluations,
        unread=unread,
        metrics=_metrics(evaluations),
        plots=_plots(info, recipe, metrics),
        lists=[_row_list(evaluation) for evaluation in evaluations],
        question=_common_question(samples),
        samples=_spread(samples, _SAMPLES),
        sample_count=len(samples),
        is_text=is_text,
        findings_shown=_FINDINGS,
        recipe=[(key, value, Recipe.model_fields[key].description) for key, value in recipe.model_dump().items()],
        script=_vendored("uPlot.iife.min.js"),
        style=_vendored("uPlot.min.css"),
    )


def _vendored(name: str) -> Markup:
    return Markup((files("plume.evaluation") / "vendor" / name).read_text(encoding="utf-8"))


# --- reading --------------------------------------------------------------------------------------


def _is_text(info: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Was plain text learnt? Then no question is asked and no answer can be right."""
    evaluated = [row for row in metrics if "kind" in row]
    return "bigram_entropy" in info or (bool(evaluated) and all(row.get("exact_match") is None for row in evaluated))


def _evaluations(folder: Path, recipe: Recipe, *, is_text: bool) -> tuple[list[_Evaluation], list[str]]:
    """The stored results, held-out and recall first, and the names of files that are none."""
    order = {"held_out": 0, "recall": 1}
    found, unread = [], []
    for file in sorted(folder.glob("*.json"), key=lambda file: (order.get(file.stem, 2), file.name)):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            words = {"held_out": ("Held-out", _held_out(recipe, is_text=is_text)), "recall": ("Recall", "memory, not understanding")}
            title, note = words.get(file.stem, (file.stem, str(result["data"])))
            evaluation = _Evaluation(file.stem, title, note, result)
            assert evaluation.scores and evaluation.rows is not None
            found.append(evaluation)
        except (ValueError, TypeError, KeyError):
            unread.append(file.name)
    return found, unread
