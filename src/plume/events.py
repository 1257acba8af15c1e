"""What long work tells while it goes on: small frozen values, yielded one after another.

The command line draws them, a server streams them, a test collects them; closing the generator cancels the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plume.types import EvaluationKind, Finding

if TYPE_CHECKING:
    from plume.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Read:
    """How far the reading of a file is: bytes of `total`, or lines when the total is not known."""

    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time goes."""

    steps: float
    evaluations: float
    finish: float

    @property
    def total(self) -> float:
        return self.steps + self.evaluations + self.finish


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a run is about to do. `padding` is the share of processed tokens that are padding; `peak` and
    `available` are bytes of memory, of the whole process and of what it may come to hold, None where the system
    does not say; `seconds` is None when the run does not fit, and so was not tried."""

    steps: int
    epochs: float
    trained_tokens: int
    cut_rows: int
    padding: float
    peak: int
    available: int | None
    seconds: Seconds | None
    findings: tuple[Finding, ...]

    @property
    def fits(self) -> bool:
        return self.available is None or self.peak <= self.available


@dataclass(frozen=True, slots=True)
class Choice:
    """What Plume set a recipe key to, and why, in a few words."""

    value: str | int | float
    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    """Data checked, choices made, nothing trained yet. `choices` are the recipe keys that the data decided;
    `preflight` says what the run will cost, if that was asked for."""

    recipe: Recipe
    path: Path
    findings: tuple[Finding, ...]
    choices: Mapping[str, Choice]
    split: str
    parameters: int
    trained_tokens: int
    resumed_from: int
    preflight: Preflight | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. `loss` is nats per trained token over the whole accumulated batch."""

    step: int
    max_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Scores during training; `kind` says what was asked: held-out rows or training rows (recall).

    `sample` is one answer of the model as it is now, or for plain text a continuation.
    """

    step: int
    kind: EvaluationKind
    scores: Mapping[str, float | None]
    sample: str
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A complete checkpoint lies at `path`."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Training goes on after `to_step`, because what came after it, up to `step`, is no good for the given reason."""

    step: int
    to_step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Training ends after `step`, before its last step, because evaluations got no better."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Perplexity of a part of the replay file that was never trained on, of the base and of the result."""

    file: str
    perplexity_before: float
    perplexity_after: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is done and its post-conditions held; `scores` by kind of question.

    For plain text, `sample` is a continuation and `bigram_entropy` what the best bigram table would leave, in
    nats a token; `limit` says what the architecture cannot do, whatever it is fed.
    """

    step: int
    best_step: int
    model: Path
    report: Path
    seconds: float
    scores: Mapping[EvaluationKind, Mapping[str, float | None]]
    baseline: Mapping[EvaluationKind, Mapping[str, float | None]]
    sample: str | None
    bigram_entropy: float | None
    limit: str | None
    findings: tuple[Finding, ...]
    forgetting: Forgetting | None = None


TrainEvent = Started | Step | Evaluated | Saved | RolledBack | Stopped | Finished
