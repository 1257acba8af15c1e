"""The report of a run: one HTML page that needs no network, made from the files of the run directory alone."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plume.evaluation.charts import Row, number, percent, plot, points, template, vendored
from plume.evaluation.results import said_forgetting
from plume.files import write_atomic
from plume.recipe import Recipe
from plume.runs import Run

_ROWS, _RIGHT_ROWS, _SAMPLES, _FINDINGS = 20, 5, 12, 100  # most of each on the page
_AROUND, _DIFFERING, _TEXT = 160, 600, 2000  # characters shown beside a difference, of it, of any other text
_LOG_RATIO = 100.0  # a loss that falls further than this is drawn on a logarithmic scale
_MEMORY = "memory, not understanding"
_KINDS = {"held_out": "held-out", "recall": "recall"}
_METRICS = {
    "exact_match": ("Exact match", "Answers that are the expected text, to the letter, and stop there."),
    "token_f1": ("Word overlap (F1)", "Words shared with the expected text, so that nearly right answers count too."),
    "json_valid": ("JSON valid", "Answers that parse as JSON, where JSON is expected."),
    "schema_valid": ("Schema valid", "Answers that fit the JSON Schema."),
    "stop_rate": ("Stop rate", "Answers that end by themselves instead of being cut off."),
    "perplexity": ("Perplexity", "Tokens it hesitates between at each step of the text. Lower is better, 1 best."),
    "bits_per_byte": (
        "Bits per byte",
        "Surprise at each byte of the expected text, whatever the tokenizer. Lower is better.",
    ),
    "loss": ("Loss", "What training lowers: the logarithm of perplexity, in nats per token."),
}
_RATES = frozenset({"exact_match", "token_f1", "json_valid", "schema_valid", "stop_rate"})
_PLOTTED_RATES = ("exact_match", "stop_rate", "json_valid", "schema_valid")


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
            for name, words in _METRICS.items()
            if any(evaluation.scores.get(name) is not None for evaluation in evaluations)
        },
        plots=_plots(info, recipe, metrics),
        row_lists=[_row_list(evaluation) for evaluation in evaluations],
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
    first = list(_KINDS)
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
            samples.append((row["step"], _cut(row["sample"])))
    head, arrow, _ = samples[0][1].partition(" → ") if samples else ("", "", "")
    if not arrow or not all(text.startswith(head + arrow) for _, text in samples):
        return None, samples
    return head, [(step, text.removeprefix(head + arrow)) for step, text in samples]


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
        ("Forgetting", said_forgetting(info["forgetting"]) if info.get("forgetting") else ""),
    ]
    return [(label, value) for label, value in facts if value]


# --- words --------------------------------------------------------------------------------------------


def _verdict(info: Row, evaluations: Sequence[_Evaluation]) -> str:
    """Is it any good? One sentence."""
    if info["status"] == "failed":
        return f"Training failed: {info.get('failure', 'no reason is recorded')}."
    if info["status"] != "finished":
        return f"Training is not finished (status: {info['status']}): nothing is proven yet."
    main = next((evaluation for evaluation in evaluations if evaluation.name in _KINDS), None)
    if main is None:
        return "Training is finished, but nothing was evaluated."
    parts = [_achieved(main)]
    rate = main.scores.get("stop_rate")
    if rate is not None:
        parts.append("all its answers stop" if rate == 1 else f"{percent(1 - rate, 0)} of its answers do not stop")
    if main.baseline:
        parts.append(_compared(main, main.baseline))
    return "; ".join(parts) + "."


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
    if not found.keys() >= _KINDS.keys():
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
    return percent(value) if metric in _RATES else number(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"


# --- rows ---------------------------------------------------------------------------------------------


def _row_list(evaluation: _Evaluation) -> dict[str, Any]:
    """The rows that say most, worst first as they are stored, and what is said about them."""
    rows = list(evaluation.rows)
    wrong = [row for row in rows if row["exact_match"] is False]
    if wrong:
        shown, about = wrong[:_ROWS], f"{len(wrong):,} of {len(rows):,} answers are wrong, the worst first."
    elif evaluation.asks:
        shown, about = rows[:_RIGHT_ROWS], f"All {len(rows):,} answers are right. It was least certain of these:"
    else:
        shown, about = rows[:_RIGHT_ROWS], "The stretches of text that it predicts worst:"
    rest = len(rows) - len(shown)
    more = f"{rest:,} more{', all right,' if 0 < len(wrong) <= len(shown) else ''} in" if rest else "All of them are in"
    return {"evaluation": evaluation, "about": about, "rows": [_shown_row(row) for row in shown], "more": more}


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
        "prompt": _cut(row["prompt"]),
        "text": _cut(row["reference"]),
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
    return before, _cut(differing, _DIFFERING), _cut(after, _AROUND)


def _cut(text: str, length: int = _TEXT) -> str:
    return text if len(text) <= length else text[:length] + "…"


def _spread(samples: Sequence[tuple[int, str]]) -> Sequence[tuple[int, str]]:
    """As many as are shown, evenly over all, the first and the last among them."""
    last, count = len(samples) - 1, min(len(samples), _SAMPLES)
    return [samples[index * last // max(1, count - 1)] for index in range(count)]


# --- curves -------------------------------------------------------------------------------------------


def _plots(info: Row, recipe: Recipe, metrics: Sequence[Row]) -> list[dict[str, Any]]:
    """The curves that have points, as the page's script draws them."""
    kinds = {row["kind"]: _KINDS.get(row["kind"], str(row["kind"])) for row in metrics if "kind" in row}
    evaluated = {label: [row for row in metrics if row.get("kind") == kind] for kind, label in kinds.items()}
    limit = info.get("bigram_entropy")
    losses = {"training loss": points(metrics, "train_loss")}
    losses |= {f"{label} loss": points(rows, "loss") for label, rows in evaluated.items()}
    rates = {
        _METRICS[name][0] + (f" ({label})" if len(evaluated) > 1 else ""): points(rows, name)
        for label, rows in evaluated.items()
        for name in _PLOTTED_RATES
    }
    values = [value for points in losses.values() for _, value in points]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    loss_note = "Nats per token; lower is better." + (" The scale is logarithmic." if log else "")
    if limit is not None:
        loss_note += f" Bigram entropy, {limit:.3f}: a table of token pairs can do no better on the training text."
    asked = f"{' and '.join(evaluated).capitalize()}: at most {recipe.eval_samples} questions at each evaluation."
    plots = [
        plot("Loss", loss_note, losses, number, log=log, limit=limit),
        plot("Answers", asked, rates, percent, percent=True),
        plot("Learning rate", "Size of the steps.", {"learning rate": points(metrics, "learning_rate")}, number),
    ]
    return [{**plot, "kept": info.get("best_step")} for plot in plots if plot["series"]]
