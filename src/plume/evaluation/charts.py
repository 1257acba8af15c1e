"""Pages that need no network: curves as the script in charts.js draws them, and numbers in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

Row = Mapping[str, Any]
Points = list[tuple[float, float]]  # ascending

_POINTS = 1000  # most of a curve on the page


def template(name: str, **filters: Callable[..., str]) -> Template:
    """A page of this package; everything put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("plume.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def vendored(name: str) -> str:
    """The text of a file of the chart library."""
    return (files("plume.evaluation") / "vendor" / name).read_text(encoding="utf-8")


def percent(rate: float, digits: int = 1) -> str:
    """Never rounds up to all nor down to none."""
    smallest = 10.0**-digits
    shown = 100 * rate if rate in (0, 1) else min(max(100 * rate, smallest), 100 - smallest)
    text = f"{shown:.{digits}f}"
    return (text.removesuffix(".0") if digits else text) + "\N{NO-BREAK SPACE}%"


def number(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:#.{digits}g}"


def plot(
    title: str,
    note: str,
    curves: Mapping[str, Points],
    show: Callable[[float], str],
    *,
    x: str = "step",
    **options: Any,
) -> dict[str, Any]:
    """One chart. `options`: `log` or `percent` scale, `log_x`, a `limit` to draw across, a `colour` to begin with.

    `marks` are lines drawn upwards, each `at` a place of the x axis with a `label`.
    """
    drawn = {label: dict(points) for label, points in curves.items() if points}
    steps = sorted({step for points in drawn.values() for step in points})
    said = []
    for label, points in drawn.items():
        (first, start), (last, end) = min(points.items()), max(points.items())
        said.append(f"{label}: {show(start)} at {x} {first:g}, {show(end)} at {x} {last:g}")
    return {
        "title": title,
        "note": note,
        "description": f"{title} over {x}s. {'; '.join(said)}.",
        "x": x,
        "steps": steps,
        "series": [{"label": label, "values": [points.get(step) for step in steps]} for label, points in drawn.items()],
        **{"log": False, "log_x": False, "percent": False, "limit": None, "colour": 0, "marks": [], **options},
    }


def points(rows: Sequence[Row], key: str) -> Points:
    """Step and value of every row that has a finite one, thinned to what a screen can show."""
    found = {row["step"]: row[key] for row in rows if row.get(key) is not None and math.isfinite(row[key])}
    return [(step, float(f"{value:.6g}")) for step, value in _thinned(sorted(found.items()))]


def _thinned(points: Points) -> Points:
    """The lowest and the highest point of each of equal stretches, so that no spike is lost, and both ends."""
    if len(points) <= _POINTS:
        return points
    kept = {points[0], points[-1]}
    stretches = _POINTS // 2 - 1
    for index in range(stretches):
        part = points[index * len(points) // stretches : (index + 1) * len(points) // stretches]
        kept |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(kept)
