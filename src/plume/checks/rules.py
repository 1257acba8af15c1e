"""The form of a check: a function of a few rows, or a survey of all of them.

Files are read in batches, and large ones by several processes, so a rule never holds a file. A row rule looks at
each row by itself. A survey remembers a little of every row (a digest, a count; never text), is merged with the
surveys of later parts of the file, and speaks at the end. Both are registered under their code:

    @rule("D109")
    def placeholders(batch: Batch) -> Iterator[Finding]: ...

    @survey("D201")
    class Repeats:  # implements Survey
        ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, TypeVar

from plume.similar import digest
from plume.types import Example, Finding


class Asked(NamedTuple):
    """One reply, the user's words just before it (empty when there are none), and the row it stands in."""

    example: Example
    prompt: str
    completion: str


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of one file, in file order."""

    file: str
    examples: Sequence[Example]

    @functools.cached_property
    def text(self) -> str:
        """Everything the rows say, a line break between messages: one search of it tells most rules to rest."""
        return "\n".join([message.said for example in self.examples for message in example.messages])

    @functools.cached_property
    def digests(self) -> list[bytes]:
        """For each row a digest of all that it says, to the letter."""
        return [
            digest("\0".join([f"{message.role}\0{message.said}" for message in example.messages]))
            for example in self.examples
        ]

    @functools.cached_property
    def asked(self) -> list[Asked]:
        """Every reply of every row that is not plain text."""
        found = []
        for example in self.examples:
            messages = example.messages
            if len(messages) == 2:
                found.append(Asked(example, messages[0].content, messages[1].content))
            elif len(messages) > 2:
                found += [
                    Asked(example, turn.history[-1].content if turn.history else "", turn.reply.said)
                    for turn in example.turns()
                ]
        return found


class Survey(Protocol):
    """What one rule remembers of a file. Made without arguments, picklable, small: bytes a row, never text."""

    def see(self, batch: Batch) -> None:
        """Take note of some rows; batches come in file order."""

    def merge(self, later: Self) -> None:
        """Take over what was noted of the part of the file that follows this one's."""

    def findings(self) -> Iterator[Finding]:
        """What there is to say once all rows have been seen."""


RowRule = Callable[[Batch], Iterator[Finding]]
_Row = TypeVar("_Row", bound=RowRule)
_Survey = TypeVar("_Survey", bound=type[Survey])

ROW_RULES: dict[str, list[RowRule]] = {}
SURVEYS: dict[str, list[type[Survey]]] = {}


def rule(*codes: str) -> Callable[[_Row], _Row]:
    """Register a row rule under the codes that it may give."""

    def register(function: _Row) -> _Row:
        for code in codes:
            ROW_RULES.setdefault(code, []).append(function)
        return function

    return register


def survey(*codes: str) -> Callable[[_Survey], _Survey]:
    """Register a survey under the codes that it may give."""

    def register(made: _Survey) -> _Survey:
        for code in codes:
            SURVEYS.setdefault(code, []).append(made)
        return made

    return register
