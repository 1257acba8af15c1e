"""The README.md of a trained model directory: what it is, what it learnt, how good it is, how to ask it."""

from __future__ import annotations

from collections.abc import Mapping

from plume.training.prepare import Prepared
from plume.types import EvaluationKind

_OURS = ("bigram", "gru")
_WORDS = {
    "held_out": "questions phrased in ways that training never saw",
    "recall": "questions of the training data: memory, not understanding",
}


def model_card(prepared: Prepared, scores: Mapping[EvaluationKind, Mapping[str, float | None]]) -> str:
    """Markdown with a metadata head, as model hubs read it."""
    recipe = prepared.recipe
    origin = "trained from scratch" if prepared.from_scratch else f"fine-tuned from `{recipe.model}`"
    lines = [
        "---",
        "library_name: transformers" if recipe.model not in _OURS else "library_name: plume",
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {recipe.model if prepared.from_scratch else 'Fine-tuned model'}",
        "",
        f"A small language model, {origin} by Plume on {len(prepared.split.train)} examples.",
        f"Split: {prepared.split.reason}.",
        "",
        *_tables(scores),
        *_asking(prepared.bundle.own_template),
        *([f"transformers opens it after `import plume.models.{recipe.model}`."] if recipe.model in _OURS else []),
        "",
    ]
    return "\n".join(lines)


def _asking(own_template: bool) -> list[str]:
    if not own_template:
        return ["Let it go on with a text: `plume generate DIR --prompt TEXT`. It has learnt no questions and answers."]
    return [
        "Ask it with `plume ask DIR QUESTION`. The chat template in `chat_template.jinja` is part of the model:",
        "asked in any other form, it answers worse. It knows its training data and nothing else.",
    ]


def _tables(scores: Mapping[EvaluationKind, Mapping[str, float | None]]) -> list[str]:
    lines: list[str] = []
    for kind, values in scores.items():
        lines += [f"## Scores: {kind} ({_WORDS[kind]})", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in values.items() if value is not None]
        lines.append("")
    return lines
