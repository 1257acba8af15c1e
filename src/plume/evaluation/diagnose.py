"""D6: what a run directory shows of its result, read from its files alone."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plume.runs import Run
from plume.types import Finding, Severity, Source

_RISE = 0.1  # of the lowest evaluation loss, and at least so many nats
_FEW = 5  # answers that say nothing about a habit
_SAME = 0.9
_QUESTIONS = 0.3
_CIRCLES = 0.1
_LOW_LOSS = 0.7
_FORGOT = 1.2

# The same stretch four times in a row at the end of an answer, a cut repetition after it allowed.
_CIRCLE = re.compile(r"(\S(?:.{0,60}?\S)?\s*)\1{3,}.{0,60}$", re.DOTALL)
_TAIL = 400
_CIRCLE_LENGTH = 20


@dataclass(frozen=True)
class Shown:
    """The files of a run. `scores` and `baseline` are those of `kind`, held-out rows where there are any."""

    source: Source
    info: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    results: Mapping[str, Mapping[str, Any]]
    model: Path

    @property
    def result(self) -> Mapping[str, Any]:
        return self.results.get("held_out") or self.results.get("recall") or {}

    @property
    def scores(self) -> Mapping[str, Any]:
        return dict(self.result.get("scores") or {})

    @property
    def answered(self) -> list[Mapping[str, Any]]:
        """Rows that were asked; plain text is not."""
        return [row for row in self.result.get("rows", ()) if row.get("exact_match") is not None]


def diagnose(run: Run) -> Iterator[Finding]:
    """Everything there is to say about a run, finished or not. Raises UserError when the directory is none."""
    run = Run.open(run.path)
    shown = _read(run)
    for look in RULES:
        yield from look(shown)


def not_finite(shown: Shown) -> Iterator[Finding]:
    """D601: a loss or a weight that is no number, or training that changed nothing."""
    failure = str(shown.info.get("failure") or "")
    if shown.info.get("status") == "failed" and failure and not _differs(failure):
        yield _finding("D601", "error", shown, failure, "lower the learning rate; when nothing changed, raise it")
        return
    lost = [row["step"] for row in shown.steps if not _finite(row.get("train_loss"))]
    if lost:
        yield _finding("D601", "error", shown, f"the loss of step {lost[0]} is no number", "lower the learning rate")
    name = _broken_weight(shown.model / "model.safetensors")
    if name:
        yield _finding("D601", "error", shown, f"the weights of {name} are not finite", "lower the learning rate")


def rising(shown: Shown) -> Iterator[Finding]:
    """D602: the loss of held-out rows is past its lowest, while that of training rows still falls, and no more
    answers are right for it (a surer model may be right more often at a higher loss)."""
    rows = [row for row in shown.evaluations if row.get("kind") == "held_out" and _finite(row.get("loss"))]
    if len(rows) < 3:
        return
    lowest, last = min(rows, key=lambda row: float(row["loss"])), rows[-1]
    risen = last["loss"] - lowest["loss"]
    better = (last.get("exact_match") or 0.0) > (lowest.get("exact_match") or 0.0)
    if risen > max(_RISE, _RISE * lowest["loss"]) and not better and _fell(shown.steps, lowest["step"]):
        message = (
            f"the loss of held-out rows was lowest at step {lowest['step']} ({lowest['loss']:.3f}) and ends at "
            f"{last['loss']:.3f}, while that of training rows fell: what followed was learnt by heart"
        )
        hint = f"set max_steps near {lowest['step']}, or write more rows; the best checkpoint is the one kept"
        yield _finding("D602", "warning", shown, message, hint)


def endless(shown: Shown) -> Iterator[Finding]:
    """D603: answers that only the token limit ends."""
    rate = shown.scores.get("stop_rate")
    if rate is not None and rate < 1:
        message = f"{1 - rate:.0%} of the answers do not stop by themselves"
        hint = "train longer (max_steps), or use a model that can remember where it is (gpt)"
        yield _finding("D603", "error", shown, message, hint)


def monotonous(shown: Shown) -> Iterator[Finding]:
    """D604: one answer whatever is asked, where several were expected."""
    rows = shown.answered
    if len(rows) < _FEW:
        return
    answer, count = Counter(str(row["answer"]).strip() for row in rows).most_common(1)[0]
    _, expected = Counter(str(row["reference"]).strip() for row in rows).most_common(1)[0]
    if count / len(rows) >= _SAME and expected / len(rows) < _SAME / 2:
        message = f"{count} of {len(rows)} answers are the same: {_short(answer)}"
        hint = "the question has no effect: check that it is part of each row, then train longer, or with gpt"
        yield _finding("D604", "error", shown, message, hint, quote=answer)


def asking_back(shown: Shown) -> Iterator[Finding]:
    """D605: questions where answers were expected."""
    rows = shown.answered
    asks = [row for row in rows if _is_question(row["answer"]) and not _is_question(row["reference"])]
    if len(asks) >= 2 and len(rows) >= _FEW and len(asks) / len(rows) >= _QUESTIONS:
        answer = str(asks[0]["answer"])
        message = f"{len(asks)} of {len(rows)} answers are questions, such as {_short(answer)}"
        hint = "check that completions are answers, and that the prompt is not in the loss"
        yield _finding("D605", "warning", shown, message, hint, quote=answer)


def circling(shown: Shown) -> Iterator[Finding]:
    """D606: answers that say one thing over and over, where the reference does not."""
    rows = shown.answered
    circles = [row for row in rows if _circle(row["answer"]) and not _circle(row["reference"])]
    if len(circles) >= 2 and len(circles) / len(rows) >= _CIRCLES:
        stretch = _circle(circles[0]["answer"])
        message = f"{len(circles)} of {len(rows)} answers repeat themselves, such as {_short(stretch)} over and over"
        yield _finding("D606", "warning", shown, message, "train longer, on rows that end", quote=stretch)


def changed(shown: Shown) -> Iterator[Finding]:
    """D607: the run's own proof failed: what was saved is not what was measured."""
    failure = str(shown.info.get("failure") or "")
    if shown.info.get("status") == "failed" and _differs(failure):
        hint = "do not use it; train again, and report it with the run's recipe.yaml if it recurs"
        yield _finding("D607", "error", shown, failure, hint)


def no_better(shown: Shown) -> Iterator[Finding]:
    """D608: as many right answers as the untrained or base model, at no lower loss."""
    compared = shown.result.get("baseline") or {}
    theirs = compared.get("scores") or {}
    loss, base_loss = shown.scores.get("loss"), theirs.get("loss")
    no_more_exact = (shown.scores.get("exact_match") or 0.0) <= (theirs.get("exact_match") or 0.0)
    if no_more_exact and loss is not None and base_loss is not None and loss >= base_loss:
        message = f"the model is no better than its baseline (loss {loss:.3f} against {base_loss:.3f})"
        yield _finding("D608", "error", shown, message, "train longer, or raise the learning rate")


def wrongly_counted(shown: Shown) -> Iterator[Finding]:
    """D609: training reports a low loss, but its own questions' answers are all wrong and unlikely: the loss
    counted something else."""
    scores = (shown.results.get("recall") or {}).get("scores") or {}
    trained = next((row["train_loss"] for row in reversed(shown.steps) if _finite(row.get("train_loss"))), None)
    loss = scores.get("loss")
    if trained is None or loss is None or scores.get("exact_match") != 0:
        return
    if trained < _LOW_LOSS and loss > trained + max(_LOW_LOSS, 2 * trained):
        message = (
            f"the training loss is {trained:.2f}, yet no training question is answered and its answers have a loss "
            f"of {loss:.2f}: the completion is not what the loss counted"
        )
        hint = "look at a row's trained tokens: plume check FILE --model DIR --show LINE"
        yield _finding("D609", "error", shown, message, hint)


def forgot(shown: Shown) -> Iterator[Finding]:
    """D610: general text, which run.json holds under `forgetting`, is predicted much worse than by the base."""
    measured = shown.info.get("forgetting") or {}
    before, after = measured.get("perplexity_before"), measured.get("perplexity_after")
    if before and after and after > _FORGOT * before:
        message = f"the perplexity of {measured['file']} rose from {before:.1f} to {after:.1f}"
        hint = "mix more of it in (replay_ratio), or lower the learning rate or max_steps"
        yield _finding("D610", "warning", shown, message, hint)


RULES: tuple[Callable[[Shown], Iterator[Finding]], ...] = (
    not_finite,
    rising,
    endless,
    monotonous,
    asking_back,
    circling,
    changed,
    no_better,
    wrongly_counted,
    forgot,
)


def _read(run: Run) -> Shown:
    metrics = run.metrics()
    results = {}
    for kind in ("held_out", "recall"):
        file = run.path / "eval" / f"{kind}.json"
        if file.is_file():
            results[kind] = json.loads(file.read_text(encoding="utf-8"))
    return Shown(
        Source(str(run.path)),
        run.info(),
        [row for row in metrics if "train_loss" in row],
        [row for row in metrics if "kind" in row],
        results,
        run.model,
    )


def _finding(code: str, severity: Severity, shown: Shown, message: str, hint: str, *, quote: str = "") -> Finding:
    return Finding(code, severity, shown.source, message, hint, quote=quote)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _differs(failure: str) -> bool:
    return "reloaded" in failure


def _fell(steps: Sequence[Mapping[str, Any]], since: int) -> bool:
    """Is the training loss lower at the end than around a step? Means of a few logged steps, which are noisy."""
    before = [row["train_loss"] for row in steps if row["step"] <= since][-3:]
    after = [row["train_loss"] for row in steps if row["step"] > since][-3:]
    return bool(before and after) and sum(after) / len(after) < sum(before) / len(before)


def _broken_weight(file: Path) -> str | None:
    """The first tensor that holds NaN or infinity, read one by one; bfloat16, which numpy lacks, is left out."""
    if not file.is_file():
        return None
    import numpy as np
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            if (
                tensors.get_slice(name).get_dtype() in ("F64", "F32", "F16")
                and not np.isfinite(tensors.get_tensor(name)).all()
            ):
                return str(name)
    return None


def _is_question(text: Any) -> bool:
    return str(text).rstrip().endswith(("?", "？", "؟"))


def _circle(text: Any) -> str:
    """The stretch that a text ends by repeating, or nothing."""
    found = _CIRCLE.search(str(text)[-_TAIL:])
    return found.group(1).strip() if found and len(found.group()) >= _CIRCLE_LENGTH else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
