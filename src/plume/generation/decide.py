"""Which of several answers a model would give, and how sure it may be of it: probabilities from log-likelihoods.

A label's probability is that of the model answering exactly that and nothing more, made to sum to 1 over the labels.
One temperature for all of a model's decisions, learnt on answers it was not trained on, makes them as sure as they are
right (Guo et al., "On Calibration of Modern Neural Networks", 2017). It lies in `decisions.json` beside the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plume.errors import UserError
from plume.files import write_atomic
from plume.generation.scoring import score
from plume.models.bundle import Bundle
from plume.types import Encoded, Example, Message

FILE = "decisions.json"
MOST_LABELS = 255
_COLDEST, _HOTTEST = 0.05, 20.0
_ROUNDS = 60  # of the search, each of which keeps 0.618 of what is left


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was learnt on `examples` answers of the file `data`. Losses are nats an answer, over the `labels`."""

    temperature: float
    examples: int
    labels: tuple[str, ...]
    data: str
    log_loss_before: float
    log_loss_after: float


def encode_labels(bundle: Bundle, messages: Sequence[Message], labels: Sequence[str]) -> list[Encoded]:
    """The conversation with each label as its next reply, of which the label and its end are to be scored. Raises
    UserError where one is longer than the model's context."""
    prompt = len(bundle.template.encode(messages, bundle.tokenizer, reply=True).ids)
    context = bundle.model.context_length
    found = []
    for label in labels:
        whole = bundle.template.encode([*messages, Message("assistant", label)], bundle.tokenizer)
        if len(whole.ids) > context:
            message = f"with the label {label!r} there are {len(whole.ids)} tokens; the model's context is {context}"
            raise UserError(message, "shorten the input")
        trained = tuple(learnt and place >= prompt for place, learnt in enumerate(whole.trained))
        found.append(Encoded(whole.ids, trained))
    return found


def score_answers(
    bundle: Bundle, examples: Sequence[Example], labels: Sequence[str]
) -> Iterator[tuple[list[float], int]]:
    """For each answer of a file, the log-likelihoods of all labels there and the number of the right one."""
    for example in examples:
        for turn in example.turns():
            if turn.history:
                scores = score(bundle, encode_labels(bundle, turn.history, labels))
                yield [-one.loss for one in scores], labels.index(turn.reply.content)


def probabilities(logprobs: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Of labels with these log-likelihoods."""
    highest = max(logprobs)
    weights = [math.exp((one - highest) / temperature) for one in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]


def log_loss(rows: Sequence[tuple[Sequence[float], int]], temperature: float = 1.0) -> float:
    """The mean of minus the log-probability of the right label, whose number stands beside the log-likelihoods."""
    total = 0.0
    for logprobs, right in rows:
        highest = max(logprobs)
        summed = math.log(sum(math.exp((one - highest) / temperature) for one in logprobs))
        total += summed - (logprobs[right] - highest) / temperature
    return total / len(rows)


def fit_temperature(rows: Sequence[tuple[Sequence[float], int]]) -> float:
    """The temperature with the lowest log loss, between 0.05 and 20. The loss is convex in its inverse, so a golden
    section finds the one minimum."""
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    for _ in range(_ROUNDS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if log_loss(rows, math.exp(left)) < log_loss(rows, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def labels_of(examples: Sequence[Example], data: str) -> tuple[str, ...]:
    """Every answer of a validation file once. Raises UserError where they are no choice between labels."""
    labels = tuple(sorted({turn.reply.content for example in examples for turn in example.turns() if turn.history}))
    if not 2 <= len(labels) <= MOST_LABELS:
        raise UserError(
            f"{data} has {len(labels)} different answers: decisions are between 2 to {MOST_LABELS} labels",
            "give questions whose answers are the labels that the model chooses from",
        )
    return labels


def calibration(rows: Sequence[tuple[Sequence[float], int]], labels: Sequence[str], data: str) -> Calibration:
    """The temperature for scored answers of a file, and what it changes."""
    temperature = fit_temperature(rows)
    return Calibration(temperature, len(rows), tuple(labels), data, log_loss(rows), log_loss(rows, temperature))


def write_calibration(directory: Path, found: Calibration) -> Path:
    write_atomic(directory / FILE, json.dumps(asdict(found), ensure_ascii=False, indent=2) + "\n")
    return directory / FILE


def read_temperature(directory: Path) -> float:
    """That of the model in a directory, 1 where none was learnt. Raises UserError for a file that is none."""
    file = directory / FILE
    try:
        temperature = float(json.loads(file.read_text(encoding="utf-8"))["temperature"])
    except FileNotFoundError:
        return 1.0
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is no calibration: {error!r}", "write it again: plume calibrate MODEL DATA") from None
    if not 0 < temperature < math.inf:
        raise UserError(f"{file}: a temperature of {temperature}", "write it again: plume calibrate MODEL DATA")
    return temperature
