"""How good the result is: what it is asked, what it is compared with, and what is wrong with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from plume.data.split import prompt_key
from plume.evaluation.metrics import summarise
from plume.evaluation.run import evaluate
from plume.generation.engine import Engine
from plume.models.bundle import Bundle
from plume.training.prepare import Prepared, baseline, initial_model
from plume.types import Encoded, EvaluationKind, Example, Forgetting, Message, Sampling, Scored

_RECALL_ROWS = 512
BASELINE_ROWS = 128
_LARGEST_LOSS = 700.0  # nats; the exponential of more is no number
_TEXT_STRETCHES, _STRETCH = 50, 2000  # of training text scored at the end, in characters

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


def measure(prepared: Prepared, result: Bundle) -> Measured:
    """Ask the result everything, and its baseline as many questions as it needs, evenly over each kind."""
    compared, name = baseline(prepared.recipe, prepared.bundle)
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
    base = replace(prepared.bundle, model=initial_model(prepared))
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


def taught(prepared: Prepared, kind: EvaluationKind) -> frozenset[str]:
    """Questions to leave out of an evaluation because training answers them."""
    return prepared.taught if kind == "held_out" else frozenset()


def asked_at_the_end(prepared: Prepared) -> dict[EvaluationKind, Sequence[Example]]:
    """Held-out rows where there are any, and always training rows: recall."""
    asked: dict[EvaluationKind, Sequence[Example]] = {}
    if prepared.split.held_out:
        asked["held_out"] = prepared.split.held_out
    asked["recall"] = recall_rows(prepared.split.train)
    return asked


def recall_rows(train: Sequence[Example]) -> Sequence[Example]:
    """Distinct training questions that have one answer; of plain text, stretches from all over it."""
    if any(example.is_text for example in train):
        return [stretch for example in train for stretch in _stretches(example, len(train))][:_RECALL_ROWS]
    answers: dict[str, set[tuple[str, ...]]] = {}
    for example in train:
        answers.setdefault(prompt_key(example), set()).add(tuple(turn.reply.content for turn in example.turns()))
    first = {prompt_key(example): example for example in reversed(train) if len(answers[prompt_key(example)]) == 1}
    rows = [example for example in train if first.get(prompt_key(example)) is example]
    return (rows or list(train))[:_RECALL_ROWS]


def _stretches(example: Example, documents: int) -> list[Example]:
    text = example.messages[0].content
    count = max(1, _TEXT_STRETCHES // documents)
    if len(text) <= count * _STRETCH:
        return [example]
    starts = [index * (len(text) - _STRETCH) // max(1, count - 1) for index in range(count)]
    return [replace(example, messages=(Message("assistant", text[at : at + _STRETCH]),), cut=True) for at in starts]


def bigram_entropy(prepared: Prepared) -> float:
    """Nats per token that the best bigram table leaves on the training text: the limit of a bigram model."""
    pairs: Counter[tuple[int, int]] = Counter()
    for row in prepared.rows:
        pairs.update(zip(row.ids, row.ids[1:], strict=False))
    singles: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        singles[first] += count
    total = sum(pairs.values())
    return -sum(count * math.log(count / singles[first]) for (first, _), count in pairs.items()) / max(1, total)


def sample_text(engine: Engine, prepared: Prepared) -> str:
    """A continuation of the first words of the training text, at a temperature that shows what was learnt."""
    first = prepared.split.train[0].messages[0].content.strip()[:16]
    ids = prepared.bundle.tokenizer.encode(first) or [prepared.bundle.tokenizer.eos_id]
    sampling = Sampling(max_new_tokens=prepared.bundle.max_new_tokens, temperature=0.8, seed=prepared.recipe.seed)
    return first + "".join(chunk.text for chunk in engine.stream(ids, sampling, reply=False))
