"""Has training diverged? Decided from losses alone, so that every repeat decides alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean

_WINDOW = 16  # steps over which losses are averaged
_MARGIN = 1.0  # nats a token above the lowest average, at least


@dataclass(frozen=True, slots=True)
class Watch:
    """The latest losses of a run, their first average and the lowest one."""

    losses: tuple[float, ...] = ()
    first: float | None = None
    lowest: float | None = None

    def seen(self, loss: float) -> Watch:
        """With one more step."""
        losses = (*self.losses, loss)[-_WINDOW:]
        if len(losses) < _WINDOW:
            return replace(self, losses=losses)
        mean = fmean(losses)
        if self.first is None or self.lowest is None:
            return Watch(losses, mean, mean)
        return Watch(losses, self.first, min(self.lowest, mean))

    def trouble(self, loss: float, grad_norm: float) -> str | None:
        """Why a step's loss means that training has diverged, if it does.

        A number that is none does; so does an average over the window that has climbed back half of the way down
        from the first one, and by a nat a token at least.
        """
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            return f"the loss is {loss:.4g} and the norm of its gradient {grad_norm:.4g}"
        after = self.seen(loss)
        if after.first is None or after.lowest is None:
            return None
        mean = fmean(after.losses)
        if mean <= after.lowest + max(_MARGIN, (after.first - after.lowest) / 2):
            return None
        return f"the loss has risen from {after.lowest:.3f} to {mean:.3f} nats a token (averages of {_WINDOW} steps)"


def settled(step: int) -> int:
    """The newest step whose weights a divergence noticed at `step` has not touched."""
    return step - _WINDOW
