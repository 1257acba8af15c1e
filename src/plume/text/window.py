"""What of a history fits a model's context: the persona, the newest turns whole, and, if wanted, recalled ones.

A turn begins with a user's message and goes to the next; a call of a tool is never parted from its results. What fits
is judged by the rendering itself: the lengths of single messages only say where to look first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from plume.errors import ContextExceeded
from plume.types import Message, Template, Tokenizer

_RECALLED = 4  # recalled turns get at most one part in so many of the room beside persona and newest turn
_GUESSES = 4  # by proportion; after them the search halves what is left


@dataclass(frozen=True, slots=True)
class Window:
    """`messages` are what is said to the model, and `ids` their rendering, which asks for a reply.

    `kept` and `left_out` are positions in the history, and `recalled` those of `kept` that are there because they were
    recalled. `summarised` says whether the summary stands for what was left out.
    """

    messages: tuple[Message, ...]
    ids: tuple[int, ...] = field(repr=False)
    kept: tuple[int, ...]
    left_out: tuple[int, ...]
    recalled: tuple[int, ...] = ()
    summarised: bool = False


class _Turn(NamedTuple):
    start: int
    end: int


class _Found(NamedTuple):
    """So many newest turns fit, rendered as these ids."""

    newest: int
    ids: tuple[int, ...]


def fit_window(
    messages: Sequence[Message],
    template: Template,
    tokenizer: Tokenizer,
    budget: int,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    recalled: Sequence[int] = (),
    summary: str | None = None,
) -> Window:
    """The most of a history whose rendering has at most `budget` tokens: the system messages that it begins with, then
    as many of the newest turns as fit.

    `recalled` are positions of older messages, the most relevant first: their turns are put in their old places as long
    as they take a quarter of the room, before the newest turns fill what is left. `summary` is told at the end of the
    persona when something is left out, unless there is no room for it. Raises ContextExceeded when persona and newest
    turn do not fit, and UserError when the template refuses the messages.
    """
    fitting = _Fitting(messages, template, tokenizer, budget, tools)
    found, chosen, summarised = fitting.most(), frozenset[int](), False
    if summary and found.newest < len(fitting.turns):
        with suppress(ContextExceeded):
            told = fitting.told(summary)
            found, fitting, summarised = told.most(), told, True
    if recalled and found.newest < len(fitting.turns):
        chosen = fitting.recall(recalled)
        found = fitting.most(chosen)
    return fitting.window(found, chosen, summarised=summarised)


def count_tokens(messages: Sequence[Message], tokenizer: Tokenizer) -> int:
    """The tokens of what the messages say, without the template's marks."""
    return sum(len(tokenizer.encode(text)) for message in messages for text in _texts(message) if text)


class _Fitting:
    """A history cut into persona and turns, and how many tokens a choice of turns takes."""

    def __init__(
        self,
        messages: Sequence[Message],
        template: Template,
        tokenizer: Tokenizer,
        budget: int,
        tools: Sequence[Mapping[str, Any]],
    ) -> None:
        self._messages, self._template, self._tokenizer, self._tools = messages, template, tokenizer, tools
        self._budget = budget
        self._head = next((place for place, one in enumerate(messages) if one.role != "system"), len(messages))
        self._persona = tuple(messages[: self._head])
        self.turns = _turns(messages, self._head)
        self._weighed: dict[int, int] = {}

    def told(self, summary: str) -> _Fitting:
        """The same with a summary at the end of the persona."""
        told = copy(self)
        *first, last = self._persona or (Message("system", self._template.persona or ""),)
        told._persona = (*first, Message("system", f"{last.content}\n\n{summary}".strip()))
        return told

    def most(self, chosen: Collection[int] = ()) -> _Found:
        """The most newest turns that fit beside the `chosen` ones. Raises ContextExceeded when not even one does."""
        least = min(1, len(self.turns))
        weights = self._weights(chosen)
        low, high, best = least - 1, len(weights), tuple[int, ...]()
        guess = max(least, bisect_right(weights, self._budget) - 1)
        tried = 0
        while high - low > 1:
            ids = self._render(guess, chosen)
            if len(ids) <= self._budget:
                low, best = guess, ids
            elif guess == least:
                what = (
                    "the newest turn with the persona before it"
                    if self._persona or self._template.persona
                    else "the newest turn"
                )
                raise ContextExceeded(what, len(ids), self._budget)
            else:
                high = guess
            tried += 1
            likely = bisect_right(weights, weights[guess] * self._budget // max(1, len(ids))) - 1
            guess = min(max((low + high) // 2 if tried > _GUESSES else likely, low + 1), high - 1)
        return _Found(low, best)

    def recall(self, positions: Sequence[int]) -> frozenset[int]:
        """The turns in which these messages stand, the first ones first, as long as they leave enough room."""
        least = len(self._render(1, ()))
        limit = least + (self._budget - least) // _RECALLED
        starts = [turn.start for turn in self.turns]
        chosen = frozenset[int]()
        for position in positions:
            number = bisect_right(starts, position) - 1
            if number < 0 or number == len(starts) - 1 or self._weight(number) > limit - least:
                continue
            if len(self._render(1, chosen | {number})) <= limit:
                chosen |= {number}
        return chosen

    def window(self, found: _Found, chosen: Collection[int], *, summarised: bool) -> Window:
        numbers = self._numbers(found.newest, chosen)
        kept = [*range(self._head), *(place for number in numbers for place in range(*self.turns[number]))]
        newest = self.turns[-found.newest].start if found.newest else len(self._messages)
        there = set(kept)
        return Window(
            self._said(numbers),
            found.ids,
            tuple(kept),
            tuple(place for place in range(len(self._messages)) if place not in there),
            tuple(place for place in kept if self._head <= place < newest),
            summarised,
        )

    def _weights(self, chosen: Collection[int]) -> list[int]:
        """What the newest 0, 1, 2, … turns weigh beside the chosen ones, as far as it is worth a try."""
        weights = [sum(map(self._weight, chosen))]
        for number in range(len(self.turns) - 1, -1, -1):
            weight = weights[-1] + (0 if number in chosen else self._weight(number))
            if weight > 2 * self._budget and len(weights) > 1:
                break
            weights.append(weight)
        return weights

    def _weight(self, number: int) -> int:
        """Every message takes a token, if only for its mark."""
        if number not in self._weighed:
            turn = self._messages[slice(*self.turns[number])]
            self._weighed[number] = sum(max(1, count_tokens([one], self._tokenizer)) for one in turn)
        return self._weighed[number]

    def _numbers(self, newest: int, chosen: Collection[int]) -> list[int]:
        return sorted({*chosen, *range(len(self.turns) - newest, len(self.turns))})

    def _said(self, numbers: Sequence[int]) -> tuple[Message, ...]:
        return (*self._persona, *(one for number in numbers for one in self._messages[slice(*self.turns[number])]))

    def _render(self, newest: int, chosen: Collection[int]) -> tuple[int, ...]:
        said = self._said(self._numbers(newest, chosen))
        return self._template.encode(said, self._tokenizer, self._tools, reply=True).ids


def _turns(messages: Sequence[Message], head: int) -> list[_Turn]:
    """Where turns begin: at a user's message, or at the system messages right before it, but never between a call and
    its result."""
    callers = _callers(messages, head)
    starts: list[int] = []
    earliest = len(messages)  # the first message that something from here on belongs to
    for place in range(len(messages) - 1, head - 1, -1):
        earliest = min(earliest, callers.get(place, place))
        role = messages[place].role
        follows = role == "system" and bool(starts) and starts[-1] == place + 1
        if follows:
            starts.pop()
        if (role == "user" or follows) and earliest == place:
            starts.append(place)
    starts.reverse()
    if head < len(messages) and (not starts or starts[0] > head):
        starts.insert(0, head)
    return [_Turn(start, end) for start, end in zip(starts, [*starts[1:], len(messages)], strict=True)]


def _callers(messages: Sequence[Message], head: int) -> dict[int, int]:
    """For each result of a tool, the message that called it."""
    by_id: dict[str, int] = {}
    callers: dict[int, int] = {}
    latest: int | None = None
    for place in range(head, len(messages)):
        message = messages[place]
        if message.tool_calls:
            latest = place
            by_id |= {call.id: place for call in message.tool_calls if call.id}
        elif message.role == "tool" and latest is not None:
            callers[place] = by_id.get(message.tool_call_id or "", latest)
    return callers


def _texts(message: Message) -> Iterator[str]:
    yield message.content
    for call in message.tool_calls:
        yield call.name
        yield call.arguments
