"""Which columns hold the question and the answer: recognised by the names in use, over the whole file.

A form is decided by counting every row's names before any row is understood, so that an odd first row changes
nothing. Names are compared without case and accents.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PROMPTS = ("prompt", "question", "query", "instruction", "input", "demande", "consigne")
COMPLETIONS = ("completion", "answer", "response", "output", "reponse", "reply", "target")
CONVERSATIONS = ("messages", "conversations", "conversation")
TOOLS, PARALLEL = "tools", "parallel_tool_calls"  # beside a conversation, as OpenAI has them
_MOST_SHAPES = 1000  # sets of names that are told apart


@dataclass(frozen=True, slots=True)
class Form:
    """How a row is read: the columns of a pair, of a conversation, or of plain text."""

    prompt: str = ""
    completion: str = ""
    context: str = ""  # a second column of the prompt: Alpaca's `input`
    messages: str = ""
    text: str = ""
    named: bool = False  # by the person, so that other columns are not looked at

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        tools = TOOLS if self.messages else ""
        names = (self.prompt, self.context, self.completion, self.messages, self.text, tools)
        return tuple(name for name in names if name)

    @property
    def simple(self) -> bool:
        """Is a row its prompt and its completion and nothing else?"""
        return bool(self.prompt and self.completion and not self.context)

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name in (self.prompt, self.completion, self.messages, self.text) if name)

    def __str__(self) -> str:
        return " and ".join(f'"{name}"' for name in self.required)


PAIR = Form(prompt="prompt", completion="completion")
MESSAGES = Form(messages="messages")


@dataclass
class Census:
    """How many rows bear which names."""

    shapes: dict[tuple[str, ...], int] = field(default_factory=dict)

    def see(self, value: Any) -> None:
        if isinstance(value, dict):
            self._count(tuple(value), 1)

    def merge(self, later: Census) -> None:
        for names, count in later.shapes.items():
            self._count(names, count)

    def _count(self, names: tuple[str, ...], count: int) -> None:
        if names in self.shapes or len(self.shapes) < _MOST_SHAPES:
            self.shapes[names] = self.shapes.get(names, 0) + count

    def forms(self) -> tuple[Form, ...]:
        """The forms in use, the most frequent first; prompt/completion when no row has any."""
        counts: dict[Form, int] = {}
        for names, count in self.shapes.items():
            form = recognise(names)
            if form:
                counts[form] = counts.get(form, 0) + count
        ranked = sorted(counts, key=lambda form: (-counts[form], _rank(form)))
        if not ranked:
            return (PAIR,)
        asked = [form for form in ranked if not form.text]
        return tuple(asked or ranked)  # a text column beside questions and answers is something else

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for shape in self.shapes for name in shape))


def recognise(names: Iterable[str]) -> Form | None:
    """The form of a row with these columns, if they make one."""
    folded = {_fold(name): name for name in reversed(tuple(names))}
    for known in CONVERSATIONS:
        if known in folded:
            return Form(messages=folded[known])
    prompt = next((name for name in PROMPTS if name in folded), None)
    completion = next((name for name in COMPLETIONS if name in folded), None)
    if prompt and completion:
        context = folded.get("input", "") if prompt == "instruction" else ""
        return Form(prompt=folded[prompt], completion=folded[completion], context=context)
    if not prompt and not completion and "text" in folded:
        return Form(text=folded["text"])
    return None


def form_of(row: Mapping[str, Any], forms: tuple[Form, ...]) -> Form:
    """The form among a file's that a row is in; the first when it fits none."""
    for form in forms:
        if all(name in row for name in form.required):
            return form
    return forms[0]


def _rank(form: Form) -> tuple[int, int]:
    prompt, completion = _fold(form.prompt), _fold(form.completion)
    if prompt in PROMPTS and completion in COMPLETIONS:
        return PROMPTS.index(prompt), COMPLETIONS.index(completion)
    return (len(PROMPTS), 0)


def _fold(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.strip().casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
