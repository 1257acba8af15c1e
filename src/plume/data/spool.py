"""Examples in any number, held in bounded memory: a list while they are few, else a private file.

What is kept of each row in memory is where it lies in the file: eight bytes.
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from plume.files import PrivateFile
from plume.types import Example, Message, Source, ToolCall

HELD = 64 * 2**20  # characters held in memory, the cost of the objects around them included
_OBJECTS = 400  # bytes that an example takes beside its text
_READ = 2**20

Places = npt.NDArray[np.int64]


class Examples(Sequence[Example]):
    """A growing sequence of examples. The file behind it has no name, and is gone when this is."""

    def __init__(self, examples: Iterable[Example] = (), *, held: int = HELD) -> None:
        self._list: list[Example] = []
        self._left = held
        self._file: PrivateFile | None = None
        self._ends = array("q", [0])
        self._names: list[str] = []
        self.extend(examples)

    def extend(self, examples: Iterable[Example]) -> None:
        """Take in more examples."""
        for example in examples:
            if self._file is None and self._left <= 0:
                self._spill()
            if self._file is None:
                self._list.append(example)
                self._left -= _OBJECTS + len(example.tools) + sum(len(message.said) for message in example.messages)
            else:
                self._write(self._file, example)

    def _spill(self) -> None:
        self._file = PrivateFile()
        for example in self._list:
            self._write(self._file, example)
        self._list = []

    def _write(self, file: PrivateFile, example: Example) -> None:
        source = example.source
        if source.file not in self._names[-1:]:
            self._names.append(source.file)
        said = [text for message in example.messages for text in (message.role, message.content)]
        raw = marshal.dumps((len(self._names) - 1, source.line, source.column, example.cut, _calls(example), *said))
        file.append(raw)
        self._ends.append(self._ends[-1] + len(raw))

    def _read(self, raw: bytes) -> Example:
        name, line, column, cut, calls, *said = marshal.loads(raw)  # our own file, which nobody else can open
        source, pairs = Source(self._names[name], line, column), zip(said[::2], said[1::2], strict=True)
        if calls is None:
            return Example(tuple(Message(role, content) for role, content in pairs), source, cut)
        tools, rest = calls
        messages = tuple(
            Message(role, content, tuple(ToolCall(*call) for call in made), of, weight)
            for (role, content), (made, of, weight) in zip(pairs, rest, strict=True)
        )
        return Example(messages, source, cut, tools)

    def __len__(self) -> int:
        return len(self._list) if self._file is None else len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Chosen(self, np.arange(len(self))[place])
        if self._file is None:
            return self._list[place]
        place = range(len(self))[place]
        return self._read(self._file.read(self._ends[place], self._ends[place + 1]))

    def __iter__(self) -> Iterator[Example]:
        if self._file is None:
            yield from self._list
            return
        first = 0
        while first < len(self):
            last = first + 1
            while last < len(self) and self._ends[last + 1] - self._ends[first] <= _READ:
                last += 1
            start, raw = self._ends[first], self._file.read(self._ends[first], self._ends[last])
            for place in range(first, last):
                yield self._read(raw[self._ends[place] - start : self._ends[place + 1] - start])
            first = last


def _calls(example: Example) -> tuple[Any, ...] | None:
    """What few examples have: tools, calls, their results, replies that are not learnt."""
    if not example.tools and not any(message.tool_calls or not message.weight for message in example.messages):
        return None
    return example.tools, tuple(
        (
            tuple((call.name, call.arguments, call.id) for call in message.tool_calls),
            message.tool_call_id,
            message.weight,
        )
        for message in example.messages
    )


class Chosen(Sequence[Example]):
    """Some of a sequence's examples, by their places; nothing is copied."""

    def __init__(self, base: Sequence[Example], places: Places | Sequence[int]) -> None:
        self._base = base
        self._places = np.asarray(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Chosen(self._base, self._places[place])
        return self._base[int(self._places[place])]

    def __iter__(self) -> Iterator[Example]:
        """In one go over the base where most of it is chosen in order, which reads a file once."""
        if 2 * len(self) < len(self._base) or (np.diff(self._places) <= 0).any():
            yield from (self._base[place] for place in self._places.tolist())
            return
        wanted = np.zeros(len(self._base), dtype=np.bool_)
        wanted[self._places] = True
        yield from (example for example, chosen in zip(self._base, wanted, strict=True) if chosen)


class Joined(Sequence[Example]):
    """Two sequences one after the other."""

    def __init__(self, first: Sequence[Example], second: Sequence[Example]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Chosen(self, np.arange(len(self))[place])
        place = range(len(self))[place]
        return self._first[place] if place < len(self._first) else self._second[place - len(self._first)]

    def __iter__(self) -> Iterator[Example]:
        yield from self._first
        yield from self._second
