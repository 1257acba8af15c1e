"""The README.md of a trained model directory: what it is, what it learnt, how good it is, how to ask it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plume.models.adapter import Adapter
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
    adapter = prepared.bundle.adapter
    origin = "trained from scratch" if prepared.from_scratch else f"fine-tuned from `{recipe.model}`"
    library = "peft" if adapter else "plume" if recipe.model in _OURS else "transformers"
    lines = [
        "---",
        f"library_name: {library}",
        *([f"base_model: {adapter.base}"] if adapter else []),
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {recipe.model if prepared.from_scratch else 'Adapter' if adapter else 'Fine-tuned model'}",
        "",
        f"A small language model, {origin} by Plume on {len(prepared.split.train)} examples.",
        f"Split: {prepared.split.reason}.",
        "",
        *(_adapter(adapter) if adapter else []),
        *_tables(scores),
        *_asking(prepared.bundle.own_template),
        *([f"transformers opens it after `import plume.models.{recipe.model}`."] if recipe.model in _OURS else []),
        "",
    ]
    return "\n".join(lines)


def merged_card(directory: Path, adapter: Adapter) -> str:
    """The card of an adapter's directory, for the model that it was merged into."""
    file = directory / "README.md"
    known = file.read_text(encoding="utf-8") if file.is_file() else ""
    body = known.partition("\n---\n")[2] if known.startswith("---\n") else known
    body = body.replace("\n".join(_adapter(adapter)), "").strip()
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation", "---", "", "# Merged model", ""]
    origin = f"The adapter `{directory}` merged into its base `{adapter.base}`. The adapter's card said:"
    return "\n".join([*head, origin, "", *body.replace("\n# ", "\n## ").splitlines(), ""])


def _adapter(adapter: Adapter) -> list[str]:
    settings = adapter.settings
    kind = "DoRA" if settings.use_dora else "LoRA"
    return [
        f"This directory holds an adapter alone ({kind}, rank {settings.r}). Its base is `{adapter.base}`,",
        f"weights sha256 `{adapter.base_sha256}`; `plume merge` makes one model of the two.",
        "",
    ]


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
