"""The report of a search: one HTML page that needs no network, with every trial on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plume.evaluation.charts import Points, Row, number, percent, plot, template, vendored
from plume.files import write_atomic
from plume.recipe import Recipe

_WIDTH, _HEIGHT, _MARGIN = 900, 260, 60  # of the drawing of all trials, in its own units


def write_search_report(
    path: Path,
    recipe: Recipe,
    trials: Sequence[Row],
    importances: Mapping[str, float],
    shares: Mapping[str, Sequence[tuple[int, float]]],
    note: str,
) -> Path:
    """Write report.html into the directory of a search and return its path.

    `trials` are as `plume tune --json` prints them; `shares` say for each key and trial how far its value lies
    between the lowest (0) and the highest (1).
    """
    best = next(trial for trial in trials if trial["best"])
    metric = "exact_match" if best["scores"].get("exact_match") is not None else "bits_per_byte"
    page = template("search.html.jinja", score=_score).render(
        name=path.resolve().name,
        recipe=recipe,
        trials=sorted(trials, key=lambda trial: (trial["value"] is None, -(trial["value"] or 0.0), trial["trial"])),
        best=best,
        metric=metric,
        title="Exact match" if metric == "exact_match" else "Bits per byte",
        keys=list(shares),
        importances=importances,
        lines=_lines(trials, shares),
        axes=[{"x": _x(index, len(shares)), "key": key} for index, key in enumerate(shares)],
        width=_WIDTH,
        height=_HEIGHT,
        margin=_MARGIN,
        note=note,
        plots=[_history(trials, _telling(trials, metric), best["trial"])],
        script=vendored("uPlot.iife.min.js"),
        style=vendored("uPlot.min.css"),
    )
    write_atomic(path / "report.html", page)
    return path / "report.html"


def _telling(trials: Sequence[Row], metric: str) -> str:
    """The metric that finished trials differ by: as many exact answers everywhere leave the bits per byte."""
    differ = {row["scores"][metric] for row in trials if row["state"] == "finished"}
    return metric if len(differ) > 1 else "bits_per_byte"


def _history(trials: Sequence[Row], metric: str, best: int) -> dict[str, Any]:
    """The score of each trial, and the best one until then."""
    points = [(row["trial"], row["scores"][metric]) for row in trials if row["scores"].get(metric) is not None]
    early = {row["trial"] for row in trials if row["state"] != "finished"}
    finished = [point for point in points if point[0] not in early]
    better = max if metric == "exact_match" else min
    so_far: Points = [
        (trial, better(value for _, value in finished[: index + 1])) for index, (trial, _) in enumerate(finished)
    ]
    curves = {
        "best so far": so_far,
        "trial": finished,
        "stopped early": [point for point in points if point[0] in early],
    }
    rate = metric == "exact_match"
    words = "Exact match" if rate else "Bits per byte; lower is better."
    marks = [{"at": best, "label": "best"}]
    return plot("History", words, curves, percent if rate else number, x="trial", percent=rate, marks=marks)


def _x(index: int, count: int) -> float:
    return _MARGIN + index * (_WIDTH - 2 * _MARGIN) / max(1, count - 1)


def _lines(trials: Sequence[Row], shares: Mapping[str, Sequence[tuple[int, float]]]) -> list[dict[str, Any]]:
    """One line a trial through its values, the better the stronger, the best last and so on top."""
    ranked = sorted((row for row in trials if row["value"] is not None), key=lambda row: row["value"])
    strength = {row["trial"]: (place + 1) / len(ranked) for place, row in enumerate(ranked)}
    inner = _HEIGHT - 2 * _MARGIN
    found = []
    for row in [*(row for row in trials if row["value"] is None), *ranked]:
        points = [
            (_x(index, len(shares)), _HEIGHT - _MARGIN - inner * dict(values)[row["trial"]])
            for index, values in enumerate(shares.values())
        ]
        found.append(
            {
                "trial": row,
                "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
                "opacity": f"{0.15 + 0.6 * strength.get(row['trial'], 0.0):.2f}",
            }
        )
    return found


def _score(value: Any, key: str = "") -> str:
    if value is None:
        return "–"
    if key in ("exact_match", "token_f1", "stop_rate", "importance"):
        return percent(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
