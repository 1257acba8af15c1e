"""What a run is about to cost, in words."""

from __future__ import annotations

from plume.events import Preflight


def lines(found: Preflight) -> list[str]:
    """What a person wants to know before waiting, one thing a line."""
    said = [
        f"{found.steps:,} steps, {found.epochs:g} epochs of {found.trained_tokens:,} trained tokens",
        f"{found.padding:.0%} padding, {found.cut_rows} rows cut",
    ]
    held = f" of {found.available / 2**30:.1f} GiB available" if found.available is not None else ""
    said.append(f"memory about {found.peak / 2**30:.1f} GiB{held}")
    if found.seconds is not None:
        parts = found.seconds
        said.append(
            f"time about {_duration(parts.total)} (steps {_duration(parts.steps)}, evaluations "
            f"{_duration(parts.evaluations)}, proof and scores {_duration(parts.finish)})"
        )
    return said


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
