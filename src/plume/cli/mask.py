"""The mask view: one row as tokens, with what the loss counts set apart from what it does not."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from plume.text.template import encode_example
from plume.types import Example, Template, Tokenizer

_TRAINED, _GIVEN, _ID = "bold green", "dim", "cyan"
_BETWEEN = "·"
_MARKS = {"\n": "⏎\n", "\t": "⇥", "\r": "␍"}


def show_row(
    example: Example, tokenizer: Tokenizer, template: Template, console: Console, *, ids: bool = False
) -> None:
    """Print a row's tokens with dots between them, trained ones in ⟦ ⟧ and in colour where there is any.

    Special tokens stand as their text, bytes that are no character by themselves as \\xNN. A row's first token
    is never predicted, so it is not trained whatever the template marks.
    """
    row = encode_example(example, template, tokenizer)
    trained = (False, *row.trained[1:])
    names = {id: text for text, id in tokenizer.special_tokens.items()}
    shown = Text()
    for position, (id, learnt) in enumerate(zip(row.ids, trained, strict=True)):
        before, after = position and trained[position - 1], trained[position + 1 : position + 2] == (True,)
        if learnt and not before:
            shown.append("⟦", style=_TRAINED)
        elif position and not (before and not learnt):
            shown.append(_BETWEEN, style=_GIVEN)
        shown.append(visible(id, names, tokenizer), style=_TRAINED if learnt else _GIVEN)
        if ids:
            shown.append(f"({id})", style=_ID)
        if learnt and not after:
            shown.append("⟧", style=_TRAINED)
    console.print(f"{example.source}", style="bold", markup=False)
    console.print(shown, soft_wrap=True)
    console.print(_legend(len(row.ids), trained, names, row.ids), style=_GIVEN, markup=False)


def visible(id: int, names: Mapping[int, str], tokenizer: Tokenizer) -> str:
    """A token as a person can see it: marks for line ends and tabs, \\xNN for bytes that are no character."""
    if id in names:
        return names[id]
    text = tokenizer.token_bytes(id).decode("utf-8", errors="backslashreplace")
    return "".join(_MARKS.get(character, character) for character in text)


def _legend(count: int, trained: tuple[bool, ...], names: dict[int, str], ids: tuple[int, ...]) -> str:
    learnt = sum(trained)
    said = f"{count} tokens: {learnt} trained ⟦ ⟧, {count - learnt} read only"
    if not learnt:
        return f"{said}; nothing is learnt from this row"
    last = max(position for position, flag in enumerate(trained) if flag)
    end = names.get(ids[last])
    return f"{said}; the answer ends on {end}" if end else f"{said}; no end token is trained"
