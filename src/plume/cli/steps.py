"""How `plume generate --explain` looks: for each token the candidates, what every setting did, and why this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plume.cli.mask import visible
from plume.generation.explain import Candidate, Effect, Explanation
from plume.types import Sampling, Tokenizer


class Reader:
    """Shows tokens of one tokenizer as a person can read them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._names: Mapping[int, str] = {id: text for text, id in tokenizer.special_tokens.items()}

    def __call__(self, id: int) -> str:
        text = visible(id, dict(self._names), self._tokenizer)
        return text if id in self._names else f"‘{text}’"


def show_step(number: int, step: Explanation, sampling: Sampling, read: Reader, console: Console) -> None:
    """One token: a headline, a table of candidates, a line for each setting."""
    console.print(Text(f"{number}. {read(step.chunk.ids[-1])}  {why(step, sampling, read)}", style="bold"))
    table = Table(box=None, padding=(0, 2), show_edge=False)
    for heading, side in (("token", "left"), ("id", "right"), ("model", "right"), ("choice", "right"), ("", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for candidate in step.candidates:
        taken = candidate.id == step.chunk.ids[-1]
        fate = "taken" if taken else f"removed by {candidate.removed_by}" if candidate.removed_by else ""
        after = "–" if candidate.removed_by else _percent(candidate.after)
        cells = (read(candidate.id), str(candidate.id), _percent(candidate.before), after, fate)
        table.add_row(*map(Text, cells), style="green" if taken else "dim" if candidate.removed_by else "")
    console.print(table)
    for effect in step.effects:
        console.print(Text(f"   {_said(effect, sampling, read)}"))
    console.print()


def why(step: Explanation, sampling: Sampling, read: Reader) -> str:
    """Why this token and no other, in one sentence."""
    taken = next(one for one in step.candidates if one.id == step.chunk.ids[-1])
    first = max(step.candidates, key=lambda one: one.before)
    of = f"{step.left} token{'s' * (step.left != 1)} left"
    if step.left == 1:
        reason = "the only token left"
    elif sampling.temperature > 0:
        reason = f"drawn at {_percent(taken.after)} from {of}"
    else:
        reason = f"the likeliest of {of}"
    return reason + _instead(first, taken, sampling, read)


def as_json(step: Explanation, sampling: Sampling, read: Reader) -> dict[str, Any]:
    """The same as a value."""
    return {
        "id": step.chunk.ids[-1],
        "token": read(step.chunk.ids[-1]),
        "why": why(step, sampling, read),
        "left": step.left,
        "candidates": [
            {
                "id": one.id,
                "token": read(one.id),
                "model": one.before,
                "choice": one.after,
                "removed_by": one.removed_by,
            }
            for one in step.candidates
        ],
        "settings": [
            {
                "setting": effect.setting,
                "value": getattr(sampling, effect.setting, None),
                "removed": effect.removed,
                "left": effect.left,
                "likeliest_removed": [{"id": id, "token": read(id), "before": before} for id, before in effect.gone],
                "most_changed": [
                    {"id": id, "token": read(id), "before": before, "after": after}
                    for id, before, after in effect.moved
                ],
            }
            for effect in step.effects
        ],
    }


def _instead(first: Candidate, taken: Candidate, sampling: Sampling, read: Reader) -> str:
    """What became of the model's own first choice, where something else was taken."""
    if first.id == taken.id:
        return ", the model's first choice"
    name = f"; the model's first choice, {read(first.id)} with {_percent(first.before)},"
    if first.removed_by:
        return f"{name} was removed by {first.removed_by}"
    if sampling.temperature > 0:
        return f"{name} was not drawn"
    return f"{name} was made less likely"


def _said(effect: Effect, sampling: Sampling, read: Reader) -> str:
    head = effect.setting
    if effect.setting == "logit_bias":
        head += f" of {', '.join(map(read, sampling.logit_bias))}"
    elif hasattr(sampling, effect.setting):
        head += f"={getattr(sampling, effect.setting):g}"
    said = []
    if effect.removed:
        names = ", ".join(f"{read(id)} {_percent(before)}" for id, before in effect.gone)
        more = ", …" if effect.removed > len(effect.gone) else ""
        said.append(f"removed {effect.removed}, left {effect.left}: {names}{more}")
    elif effect.moved:
        said.append(
            ", ".join(f"{read(id)} {_percent(before)} → {_percent(after)}" for id, before, after in effect.moved)
        )
    return f"{head}: {'; '.join(said) or 'changed nothing here'}"


def _percent(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.001 else "<0.1%"
