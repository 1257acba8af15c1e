"""How good the result is: what it is asked, what it is compared with, and what is wrong with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from plume.evaluation.metrics import summarise
from plume.evaluation.run import evaluate
from plume.events import Forgetting
from plume.generation.engine import Engine
from plume.models.bundle import Bundle
from plume.training.devices import move
from plume.training.making import baseline
from plume.training.prepare import Prepared
from plume.types import Encoded, EvaluationKind, Example, Sampling, Scored

BASELINE_ROWS = 128
_LARGEST_LOSS = 700.0  # nats; the exponential of more is no number

Scores = Mapping[EvaluationKind, Mapping[str, float | None]]


@dataclass(frozen=True)
class Measured:
    """Rows of the result and of its baseline, by kind of question."""

    rows: Mapping[EvaluationKind, Sequence[Scored]]
    baseline_rows: Mapping[EvaluationKind, Sequence[Scored]]
    baseline_name: str

    @property
    def scores(self) -> Scores:
        return {kind: summarise(rows) for kind, rows in self.rows.items()}

    @property
    def baseline(self) -> Scores:
        return {kind: summarise(rows) for kind, rows in self.baseline_rows.items()}


def measure(prepared: Prepared, result: Bundle, device: torch.device) -> Measured:
    """Ask the result everything, and its baseline as many questions as it needs, evenly over each kind."""
    compared, name = baseline(prepared.recipe, prepared.bundle)
    for bundle in (result, compared):
        move(bundle.model, device)
    asked = asked_at_the_end(prepared)
    return Measured(
        {kind: _ask(prepared, result, kind, rows) for kind, rows in asked.items()},
        {kind: _ask(prepared, compared, kind, spread(rows, BASELINE_ROWS)) for kind, rows in asked.items()},
        name,
    )


def _ask(prepared: Prepared, bundle: Bundle, kind: EvaluationKind, rows: Sequence[Example]) -> list[Scored]:
    limit = prepared.bundle.max_new_tokens
    return list(evaluate(Engine(bundle), rows, max_new_tokens=limit, taught=taught(prepared, kind)))


def forgetting(prepared: Prepared, result: Bundle) -> Forgetting | None:
    """How well general text is still predicted: the base before fine-tuning and the result, on the same tokens."""
    replay = prepared.replay
    if replay is None:
        return None
    base = replace(prepared.bundle, model=prepared.initial_model())
    return Forgetting(replay.file, _perplexity(base, replay.held), _perplexity(result, replay.held))


def _perplexity(bundle: Bundle, rows: Sequence[Encoded]) -> float:
    scores = Engine(bundle).score(rows)
    loss = sum(score.loss for score in scores) / sum(score.tokens for score in scores)
    return round(math.exp(min(loss, _LARGEST_LOSS)), 4)


def spread(examples: Sequence[Example], limit: int) -> Sequence[Example]:
    """At most `limit` examples, evenly over the file."""
    if len(examples) <= limit:
        return examples
    return [examples[index * len(examples) // limit] for index in range(limit)]


def taught(prepared: Prepared, kind: EvaluationKind) -> Container[str]:
    """Questions to leave out of an evaluation because training answers them."""
    return prepared.taught if kind == "held_out" else ()


def asked_at_the_end(prepared: Prepared) -> dict[EvaluationKind, Sequence[Example]]:
    """Held-out rows where there are any, and always training rows: recall."""
    asked: dict[EvaluationKind, Sequence[Example]] = {}
    if prepared.split.held_out:
        asked["held_out"] = prepared.split.held_out
    asked["recall"] = prepared.recall
    return asked


def bigram_entropy(prepared: Prepared) -> float:
    """Nats per token that the best bigram table leaves on the training text: the limit of a bigram model."""
    width = prepared.bundle.tokenizer.vocab_size
    pairs: Counter[int] = Counter()
    for part in prepared.rows.stretches():
        codes = part.ids[:-1] * width + part.ids[1:]
        found, counts = np.unique(np.delete(codes, part.starts[1:] - 1), return_counts=True)
        pairs.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    singles: Counter[int] = Counter()
    for pair, count in pairs.items():
        singles[pair // width] += count
    total = sum(pairs.values())
    return -sum(count * math.log(count / singles[pair // width]) for pair, count in pairs.items()) / max(1, total)


def sample_text(engine: Engine, prepared: Prepared) -> str:
    """A continuation of the first words of the training text, at a temperature that shows what was learnt."""
    first = prepared.split.train[0].messages[0].content.strip()[:16]
    ids = prepared.bundle.tokenizer.encode(first) or [prepared.bundle.tokenizer.eos_id]
    sampling = Sampling(max_new_tokens=prepared.bundle.max_new_tokens, temperature=0.8, seed=prepared.recipe.seed)
    return first + "".join(chunk.text for chunk in engine.stream(ids, sampling, reply=False))
