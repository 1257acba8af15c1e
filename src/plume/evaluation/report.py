"""The report of a run: one HTML page that needs no network, made from the files of the run directory alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plume.evaluation.charts import Row, number, percent, template, vendored
from plume.evaluation.curves import run_plots
from plume.evaluation.results import said_forgetting
from plume.evaluation.words import KINDS, METRICS, RATES
from plume.evaluation.worst import cut, row_list
from plume.files import write_atomic
from plume.recipe import Recipe
from plume.runs import Run

_SAMPLES, _FINDINGS = 12, 100  # most of each on the page
_MEMORY = "memory, not understanding"


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One file of eval/; `note` says in words what was asked."""

    name: str
    title: str
    note: str
    scores: Mapping[str, float | None]
    baseline: Mapping[str, Any] | None
    rows: Sequence[Row]

    @property
    def asks(self) -> bool:
        """Questions were answered; plain text is only scored."""
        return self.scores.get("exact_match") is not None


def write_report(run: Run, facts: Row | None = None) -> Path:
    """Write the run's report.html and return its path. The same run directory gives the same page.

    `facts` are about to be written to run.json; the page already shows them.
    """
    write_atomic(run.report_file, _render(run, {**run.info(), **(facts or {})}))
    return run.report_file


def _render(run: Run, info: Row) -> str:
    recipe, metrics = run.recipe(), run.metrics()
    evaluations = list(_evaluations(run.path / "eval", recipe, is_text=info.get("bigram_entropy") is not None))
    question, samples = _samples(run.samples_file)
    page = template("report.html.jinja", score=_score)
    return page.render(
        name=run.path.resolve().name,
        info=info,
        facts=_facts(info, recipe, metrics),
        verdict=_verdict(info, evaluations),
        recall=_recall(evaluations),
        evaluations=evaluations,
        metrics={
            name: words
            for name, words in METRICS.items()
            if any(evaluation.scores.get(name) is not None for evaluation in evaluations)
        },
        plots=run_plots(info, recipe, metrics),
        row_lists=[{"evaluation": each, **row_list(each.rows, asks=each.asks)} for each in evaluations],
        story=_story(info, recipe),
        choices=[(key, _shown(choice["value"]), choice["reason"]) for key, choice in info.get("choices", {}).items()],
        is_text=info.get("bigram_entropy") is not None,
        question=question,
        samples=_spread(samples),
        sample_count=len(samples),
        findings=[*info.get("findings", []), *info.get("result_findings", [])],
        findings_shown=_FINDINGS,
        recipe=[(key, value, Recipe.model_fields[key].description) for key, value in recipe.model_dump().items()],
        script=vendored("uPlot.iife.min.js"),
        style=vendored("uPlot.min.css"),
    )


# --- reading ------------------------------------------------------------------------------------------


def _evaluations(folder: Path, recipe: Recipe, *, is_text: bool) -> Iterator[_Evaluation]:
    """The stored evaluations, held-out and recall first; other JSON files in the folder are none."""
    first = list(KINDS)
    for file in sorted(folder.glob("*.json"), key=lambda file: (file.stem not in first, file.name)):
        with contextlib.suppress(ValueError):
            result = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(result, dict) or not {"data", "scores", "rows"} <= result.keys():
                continue
            words = {"held_out": ("Held-out", _held_out(recipe, is_text=is_text)), "recall": ("Recall", _MEMORY)}
            title, note = words.get(file.stem, (file.stem, f"rows of {result['data']}"))
            yield _Evaluation(file.stem, title, note, result["scores"], result.get("baseline"), result["rows"])


def _held_out(recipe: Recipe, *, is_text: bool) -> str:
    if recipe.eval_data:
        return f"{'text' if is_text else 'questions'} of {recipe.eval_data}"
    if is_text:
        return "text it never saw"
    return "questions " + (
        "whose answers it was never taught" if recipe.split_by == "answer" else "phrased in ways it never saw"
    )


def _samples(file: Path) -> tuple[str | None, list[tuple[int, str]]]:
    """The question that all samples answer, if it is one, and step and text of each."""
    if not file.exists():
        return None, []
    samples: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        with contextlib.suppress(json.JSONDecodeError):  # a kill may cut the last line
            row = json.loads(line)
            samples.append((row["step"], cut(row["sample"])))
    head, arrow, _ = samples[0][1].partition(" → ") if samples else ("", "", "")
    if not arrow or not all(text.startswith(head + arrow) for _, text in samples):
        return None, samples
    return head, [(step, text.removeprefix(head + arrow)) for step, text in samples]


def _spread(samples: Sequence[tuple[int, str]]) -> Sequence[tuple[int, str]]:
    """As many as are shown, evenly over all, the first and the last among them."""
    last, count = len(samples) - 1, min(len(samples), _SAMPLES)
    return [samples[index * last // max(1, count - 1)] for index in range(count)]


def _facts(info: Row, recipe: Recipe, metrics: Sequence[Row]) -> list[tuple[str, str]]:
    """What stands under the title, as far as the run knows it."""
    trained = [row for row in metrics if "train_loss" in row]
    last = trained[-1] if trained else {"step": 0, "epoch": 0.0}
    facts = [
        ("Status", info["status"]),
        ("Started", info.get("started", "")[:10]),
        ("Model", recipe.model),
        ("Parameters", f"{info['parameters']:,}" if "parameters" in info else ""),
        ("Training data", recipe.data),
        ("Trained tokens", f"{info['trained_tokens']:,} an epoch" if "trained_tokens" in info else ""),
        ("Steps", f"{last['step']:,} of {recipe.max_steps or last['step']:,} ({last['epoch']:.4g} epochs)"),
        ("Weights kept", f"of step {info['best_step']:,}" if "best_step" in info else ""),
        ("Training time", _duration(info["train_seconds"]) if "train_seconds" in info else ""),
    ]
    return [(label, value) for label, value in facts if value]


# --- words --------------------------------------------------------------------------------------------


def _verdict(info: Row, evaluations: Sequence[_Evaluation]) -> str:
    """Is it any good? One sentence."""
    if info["status"] == "failed":
        return f"Training failed: {info.get('failure', 'no reason is recorded')}."
    if info["status"] != "finished":
        return f"Training is not finished (status: {info['status']}): nothing is proven yet."
    main = next((evaluation for evaluation in evaluations if evaluation.name in KINDS), None)
    if main is None:
        return "Training is finished, but nothing was evaluated."
    parts = [_achieved(main)]
    rate = main.scores.get("stop_rate")
    if rate is not None:
        parts.append("all its answers stop" if rate == 1 else f"{percent(1 - rate, 0)} of its answers do not stop")
    if main.baseline:
        parts.append(_compared(main, main.baseline))
    return "; ".join(parts) + "."


def _story(info: Row, recipe: Recipe) -> list[str]:
    """What happened on the way that a reader of the scores should know."""
    told = []
    if back := info.get("rolled_back"):
        where = f"step {back['to_step']:,}" if back["to_step"] else "the start"
        told.append(
            f"At step {back['step']:,} {back['reason']}: training went back to {where}, and on at half the rate."
        )
    if info.get("stopped_early"):
        told.append(
            f"Training stopped early, after step {info['stopped_early']:,} of {recipe.max_steps or 0:,}: "
            f"{_evaluations_in_a_row(recipe)} no better than that of step {info.get('best_step', 0):,}."
        )
    if info.get("forgetting"):
        told.append(f"Forgetting: {said_forgetting(info['forgetting'])}.")
    return told


def _evaluations_in_a_row(recipe: Recipe) -> str:
    patience = recipe.early_stopping_patience or 1
    return "the next evaluation was" if patience == 1 else f"{patience} evaluations in a row were"


def _achieved(evaluation: _Evaluation) -> str:
    held_out, scores = evaluation.name == "held_out", evaluation.scores
    if evaluation.asks:
        rate = percent(scores["exact_match"] or 0.0, 0)
        if held_out:
            return f"Answers {rate} of {evaluation.note}, exactly"
        return f"Repeats {rate} of the answers it was trained on, exactly ({_MEMORY}: no row was held out)"
    where = evaluation.note if held_out else "the text it was trained on"
    why = "its perplexity" if held_out else f"its perplexity; {_MEMORY}: no text was held out"
    perplexity = number(scores["perplexity"] or 0.0, 3)
    return f"On {where} it hesitates between about {perplexity} tokens at each step ({why})"


def _compared(evaluation: _Evaluation, baseline: Row) -> str:
    ours, theirs = evaluation.scores, baseline["scores"]
    shown = percent(theirs["exact_match"], 0) if evaluation.asks else number(theirs["perplexity"], 3)
    no_better = ours["loss"] is not None and ours["loss"] >= theirs["loss"]
    if evaluation.asks:
        no_better &= (ours["exact_match"] or 0.0) <= (theirs["exact_match"] or 0.0)
    return f"{baseline['name']}: {shown}" + (", so training has not helped" if no_better else "")


def _recall(evaluations: Sequence[_Evaluation]) -> str:
    """The second sentence, where held-out rows gave the first."""
    found = {evaluation.name: evaluation for evaluation in evaluations}
    if not found.keys() >= KINDS.keys():
        return ""
    recall = found["recall"]
    if recall.asks:
        said = f"{percent(recall.scores['exact_match'] or 0.0, 0)} of {len(recall.rows):,} training questions, exactly"
    else:
        said = f"perplexity {number(recall.scores['perplexity'] or 0.0, 3)} on the text it was trained on"
    return f"Recall: {said}. This is {_MEMORY}."


def _score(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return percent(value) if metric in RATES else number(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
