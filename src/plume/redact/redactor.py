"""Redaction of a conversation: one mark for one value from its first message to its last, and the way back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plume.errors import UserError
from plume.redact import json_view
from plume.redact.marks import KINDS, MARK, WORDS, same, written
from plume.redact.match import Match
from plume.redact.names import Names, read_names
from plume.redact.search import recognise
from plume.redact.secrets import SECRETS
from plume.types import Message

GROUPS = (*(kind for kind in KINDS if kind not in SECRETS), "secret")
"""What a person may name: every kind of secret goes by one word."""
_KIND = {word: kind for kind, word in WORDS.items()}


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is taken out: these kinds, and of names those of the list."""

    kinds: frozenset[str] = frozenset(KINDS)
    names: Names = frozenset()


def redaction(kinds: Sequence[str], names: str | os.PathLike[str] | None = None) -> Redaction:
    """From what a person wrote: `all` or some of `GROUPS`, and the file with the names.

    Raises UserError for an unknown kind, and for names without a list of them.
    """
    wanted: set[str] = set()
    for kind in kinds:
        if kind not in (*GROUPS, "all"):
            raise UserError(f"there is no kind {kind!r} to redact", f"name some of: all, {', '.join(GROUPS)}")
        wanted |= {"all": set(KINDS), "secret": set(SECRETS)}.get(kind, {kind})
    if names is None and "name" in kinds:
        raise UserError("names are to be redacted, and there is no list of them", "name a file with one name a line")
    return Redaction(frozenset(wanted), frozenset() if names is None else read_names(names))


class Redactor:
    """Puts marks in the place of what is recognised, for one conversation.

    `values` holds the value of each mark as it was first written: what was removed, so keep it as safe as the data.
    Given those of an earlier Redactor, the marks go on where it stopped. A mark that a text itself holds stands for
    itself.
    """

    def __init__(self, redaction: Redaction, values: Mapping[str, str] | None = None) -> None:
        self.redaction = redaction
        self.values: dict[str, str] = dict(values or {})
        self._marks: dict[tuple[str, str], str] = {}
        self._given: dict[str, int] = {}  # up to which number marks are surely given, by word
        for mark, value in self.values.items():
            found = MARK.fullmatch(mark)
            if found and mark != value:
                self._marks[(found["word"], same(_KIND[found["word"]], value))] = mark

    def text(self, text: str) -> str:
        """A message's text. What is a JSON object or array as a whole stays one, with the same keys."""
        self._keep_marks_of(text)
        if json_view.is_json(text):
            return self._until_nothing_is_left(text, self._json)
        return self._until_nothing_is_left(text, self._plain)

    def message(self, message: Message) -> Message:
        """Its text and the arguments of its calls; names of tools and ids of calls stay."""
        calls = tuple(dataclasses.replace(call, arguments=self.text(call.arguments)) for call in message.tool_calls)
        return dataclasses.replace(message, content=self.text(message.content), tool_calls=calls)

    def value(self, value: Any, leave: Collection[str] = ()) -> Any:
        """A JSON value with marks in its strings, but for what stands under the keys to `leave`; under `metadata` the
        keys are a person's own, and nothing is left."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                key: one if key in leave else self.value(one, () if key == "metadata" else leave)
                for key, one in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(one, leave) for one in value]
        return value

    def _until_nothing_is_left(self, text: str, once: Callable[[str], str]) -> str:
        # Once a neighbour is gone, digits may stand alone that were part of a longer row of them: look again.
        while (after := once(text)) != text:
            text = after
        return text

    def _json(self, text: str) -> str:
        return json_view.replaced(text, self._found, self._mark)

    def _plain(self, text: str) -> str:
        parts, end = [], 0
        for match in self._found(text):
            parts += [text[end : match.start], self._mark(match)]
            end = match.end
        return "".join([*parts, text[end:]])

    def _found(self, text: str) -> Iterator[Match]:
        return recognise(text, self.redaction.kinds, self.redaction.names)

    def _mark(self, match: Match) -> str:
        word = WORDS[match.kind]
        key = (word, same(match.kind, match.text))
        if key not in self._marks:
            number = self._given.get(word, 0) + 1
            while (mark := written(word, number)) in self.values:
                number += 1
            self._given[word] = number
            self.values[mark] = match.text
            self._marks[key] = mark
        return self._marks[key]

    def _keep_marks_of(self, text: str) -> None:
        for mark in MARK.finditer(text):
            self.values.setdefault(mark[0], mark[0])


def restored(text: str, values: Mapping[str, str]) -> str:
    """The text with the value of each known mark in its place, as that value was first written."""
    if json_view.is_json(text):
        return MARK.sub(lambda mark: json.dumps(values.get(mark[0], mark[0]), ensure_ascii=False)[1:-1], text)
    return MARK.sub(lambda mark: values.get(mark[0], mark[0]), text)
