"""Encoded rows in any number, held in bounded memory: their tokens lie in a file, their lengths in arrays.

A token is kept as one number, twice its id and one more when the loss counts it: two bytes for a vocabulary of up to
32,768, else four.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from plume.files import PrivateFile
from plume.text.template import encode_example
from plume.types import Encoded, Example, Template, Tokenizer

Numbers = npt.NDArray[np.int64]
_NARROW = 2**15  # ids in two bytes with their mark
_READ = 2**20  # tokens


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some consecutive rows laid end to end; row `first + n` begins at `starts[n]`."""

    first: int
    ids: Numbers
    trained: npt.NDArray[np.bool_]
    starts: Numbers

    def rows(self, positions: Numbers) -> Numbers:
        """The rows in which tokens stand."""
        return self.first + np.searchsorted(self.starts, positions, side="right") - 1


class EncodedRows(Sequence[Encoded]):
    """Rows of tokens. `lengths` counts a row's tokens, `taught` those in the loss: the first of a row never is."""

    def __init__(self, file: PrivateFile, width: int, starts: Numbers, lengths: Numbers, taught: Numbers) -> None:
        self._file, self._width, self._starts = file, width, starts
        self.lengths, self.taught = lengths, taught

    @classmethod
    def of(
        cls, rows: Iterable[Encoded], *, vocab_size: int = 2**31, into: Callable[[bytes], Any] | None = None
    ) -> EncodedRows:
        """Rows as they come, kept; `into` is given the bytes of all tokens too."""
        width = 2 if vocab_size <= _NARROW else 4
        file, lengths, taught = PrivateFile(), array("q"), array("q")
        for row in rows:
            marks = np.array(row.trained, dtype=np.bool_)
            raw = (np.array(row.ids, dtype=f"u{width}") * 2 + marks).astype(f"<u{width}").tobytes()
            file.append(raw)
            if into is not None:
                into(raw)
            lengths.append(len(row.ids))
            taught.append(int(marks[1:].sum()))
        return cls.over(file, width, np.array(lengths), np.array(taught))

    @classmethod
    def over(cls, file: PrivateFile, width: int, lengths: Numbers, taught: Numbers) -> EncodedRows:
        """Rows that lie one after another from the start of a file."""
        starts = np.zeros(len(lengths), dtype=np.int64)
        np.cumsum(lengths[:-1], out=starts[1:])
        return cls(file, width, starts, lengths, taught)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> EncodedRows: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            columns = (self._starts[place], self.lengths[place], self.taught[place])
            return EncodedRows(self._file, self._width, *columns)
        return self.stretch(range(len(self))[place])

    def stretch(self, row: int, start: int = 0, end: int | None = None) -> Encoded:
        """Some consecutive tokens of a row."""
        begin = int(self._starts[row])
        length = int(self.lengths[row])
        tokens = self._tokens(begin + start, begin + (length if end is None else min(end, length)))
        return Encoded(tuple((tokens >> 1).tolist()), tuple((tokens & 1).astype(np.bool_).tolist()))

    def _tokens(self, start: int, end: int) -> npt.NDArray[Any]:
        raw = self._file.read(start * self._width, end * self._width)
        return np.frombuffer(raw, dtype=f"<u{self._width}")

    def pieces(self) -> Iterator[bytes]:
        """All that `load_rows` needs, of rows that lie one after another: tokens, then lengths, then a few numbers."""
        size = int(self.lengths.sum()) * self._width
        for start in range(0, size, _READ):
            yield self._file.read(start, min(size, start + _READ))
        yield self.lengths.astype("<i8").tobytes() + self.taught.astype("<i8").tobytes()
        yield np.array([len(self), self._width], dtype="<i8").tobytes()

    def stretches(self) -> Iterator[Stretch]:
        """All rows in order, some at a time; they must lie one after another."""
        ends = self._starts + self.lengths
        first = 0
        while first < len(self):
            last = max(first + 1, int(np.searchsorted(ends, self._starts[first] + _READ, side="right")))
            tokens = self._tokens(int(self._starts[first]), int(ends[last - 1]))
            starts = self._starts[first:last] - self._starts[first]
            yield Stretch(first, (tokens >> 1).astype(np.int64), (tokens & 1).astype(np.bool_), starts)
            first = last


def encode_rows(examples: Iterable[Example], template: Template, tokenizer: Tokenizer) -> EncodedRows:
    """All examples, encoded."""
    rows = (encode_example(example, template, tokenizer) for example in examples)
    return EncodedRows.of(rows, vocab_size=tokenizer.vocab_size)


def load_rows(path: Path, trailer: int = 32) -> EncodedRows | None:
    """Rows of a file that holds their `pieces` and `trailer` more bytes; None when it does not."""
    end = path.stat().st_size - trailer
    file = PrivateFile(path)
    if end < 16:
        return None
    count, width = np.frombuffer(file.read(end - 16, end), dtype="<i8").tolist()
    columns = end - 16 - 16 * count
    if columns < 0 or width not in (2, 4):
        return None
    lengths, taught = np.frombuffer(file.read(columns, end - 16), dtype="<i8").astype(np.int64).reshape(2, count)
    return EncodedRows.over(file, width, lengths, taught) if int(lengths.sum()) * width == columns else None


def longest_reply(rows: EncodedRows) -> int:
    """The most tokens in the loss that stand together: the longest answer, its end token included."""
    longest = 0
    for part in rows.stretches():
        edges = part.trained.astype(np.int8)
        borders = np.append(part.starts, len(part.ids))
        begins = np.flatnonzero(np.diff(edges, prepend=0) > 0)
        ends = np.flatnonzero(np.diff(edges, append=0) < 0) + 1
        marks = np.union1d(begins, np.union1d(ends, borders))  # a run that reaches over a border is two
        inside = part.trained[marks[:-1]]
        longest = max(longest, int(np.diff(marks)[inside].max(initial=0)))
    return longest
