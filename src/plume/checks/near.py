"""Rows that say the same but for case, spacing, punctuation, accents or a slip of the pen: what D202 and D402 find.

Of each row are kept three digests and its folded prompt, compressed (about 55 bytes for 120 letters). Candidates are
exact, not sampled: rows whose prompts agree in all words but one, or all but two, meet under a hash of the other
words, and `similar.alike` decides. A million rows cost some seconds however they are distributed, because a place
that many different words fill is a slot of a template, where a difference is what the row is about.
"""

from __future__ import annotations

import unicodedata
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from plume import similar
from plume.checks.rules import Batch
from plume.types import Example

Digests = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_WORDS = 32  # longer prompts are compared by their letters only
_WORDS_FOR_TWO = 16  # longer prompts may differ in one word only
_SLOT_WORDS = 4  # so many words, each far from the others, make their place a slot
_BUCKET = 64  # more than so many different words do so in any case
_PART = 1 << 21  # hashes sorted at a time
_ROWS = 1 << 15  # rows whose hashes are made at a time

_random = np.random.default_rng(202)
_BYTE, _PLACE, _HOLE = (_random.integers(1 << 63, size=n, dtype=np.uint64) * 2 + 1 for n in (256, _WORDS, _WORDS))
_BYTE[[0, 1, 2, 32]] = 0  # marks and gaps
_POWERS = np.cumprod(np.full(1 << 12, 0x9E3779B97F4A7C15, dtype=np.uint64))


class Wordings:
    """The rows of one or more files, in order, so that those with alike prompts and equal answers can be found."""

    def __init__(self) -> None:
        self.lines = array("q")
        self._rows = bytearray()
        self._answers = bytearray()
        self._letters = bytearray()
        self._prompts: list[bytes] = []

    def add(self, batch: Batch) -> None:
        """Take note of every row that is not plain text."""
        rows = [
            (example, digest, place)
            for example, digest in zip(batch.examples, batch.digests, strict=True)
            if (place := asked_at(example)) is not None
        ]
        folded = similar.fold_all([example.messages[place].content for example, _, place in rows])
        letters = similar.letters_all(folded)
        for (example, digest, place), left in zip(rows, letters, strict=True):
            self.lines.append(example.source.line or 0)
            self._rows += digest
            self._answers += similar.digest(_around(example, place))
            self._letters += similar.digest(left or f"\3{example.messages[place].content}")
        kept = [
            prompt if len(left) >= similar.SHORTEST and prompt.count(" ") < _WORDS else ""
            for prompt, left in zip(folded, letters, strict=True)
        ]
        self._prompts.append(zlib.compress("\0".join(kept).encode("utf-8", "replace"), 1))

    def merge(self, later: Self) -> None:
        """Take over the rows of what follows."""
        self.lines += later.lines
        self._rows += later._rows
        self._answers += later._answers
        self._letters += later._letters
        self._prompts += later._prompts

    def repeats(self) -> Iterator[tuple[int, int]]:
        """(row, earlier row) for each row that is alike an earlier one, unless it repeats one word for word."""
        first, earlier = self._compared(len(self.lines))
        again = first_equal(columns(self._rows))
        for row in np.flatnonzero(first != np.arange(len(first))).tolist():
            earlier[row] = min(int(first[row]), earlier.get(row, row))
        yield from ((row, other) for row, other in sorted(earlier.items()) if again[row] == row)

    def shared(self, asked: Self) -> Iterator[tuple[int, int]]:
        """(row of the other, first row here that is alike) for each row of the other that is alike one here."""
        chosen = np.flatnonzero(np.isin(columns(self._answers)[:, 0], columns(asked._answers)[:, 0]))
        both = self._only(chosen)
        both.merge(asked)
        first, earlier = both._compared(len(chosen))
        for row, known in enumerate(first[len(chosen) :].tolist()):
            other = known if known < len(chosen) else earlier.get(known, known)
            if other < len(chosen):
                yield row, int(chosen[other])

    def _only(self, chosen: Indices) -> Self:
        """Some of the rows."""
        some = type(self)()
        some.lines.extend([self.lines[row] for row in chosen.tolist()])
        some._rows += columns(self._rows)[chosen].tobytes()
        some._answers += columns(self._answers)[chosen].tobytes()
        some._letters += columns(self._letters)[chosen].tobytes()
        some._prompts += [zlib.compress(text[:-1], 1) for _, text in self._parts(chosen)]
        return some

    def _compared(self, kept: int) -> tuple[Indices, dict[int, int]]:
        """For each row the first with the same letters and answer; for some of these the first they slip from.

        A row that slips in one word from one of the first `kept` rows is not compared for slips in two.
        """
        answers = columns(self._answers)
        first, answer = first_equal(answers, columns(self._letters)), first_equal(answers)
        different = np.flatnonzero(first == np.arange(len(first)))
        wordings = np.bincount(answer[different], minlength=len(first))
        chosen = different[wordings[answer[different]] > 1]
        earlier: dict[int, int] = {}
        if len(chosen):
            words = _Words((_kept(*part) for part in self._parts(chosen)), answer)
            for row, other in words.slips(kept):
                earlier[row] = min(other, earlier.get(row, row))
        return first, earlier

    def _parts(self, chosen: Indices) -> Iterator[tuple[Indices, bytes]]:
        """Rows of the chosen ones and their folded prompts, empty or each ended by a zero."""
        start = 0
        for packed in self._prompts:
            prompts = zlib.decompress(packed).split(b"\0")
            rows = chosen[slice(*np.searchsorted(chosen, (start, start + len(prompts))))]
            if len(rows):
                yield rows, b"".join([prompts[row - start] + b"\0" for row in rows.tolist()])
            start += len(prompts)


class _Words:
    """Folded prompts and, word by word, what stands for each in hashes and whether it must stay as it is."""

    def __init__(self, parts: Iterable[tuple[Indices, bytes]], answers: Indices) -> None:
        self.text = bytearray()
        terms, fixed = bytearray(), bytearray()
        rows, ends, words, named = [answers[:0]], [answers[:0]], [answers[:0]], [_COMMON]
        for chosen, text in parts:
            if text:
                part = _parse(text)
                rows.append(chosen)
                ends.append(np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 0) + len(self.text))
                words.append(part.words)
                named.append(part.names)
                self.text += text
                terms += part.hash.tobytes()
                fixed += part.fixed.tobytes()
        self.rows = np.concatenate(rows)
        self.answer = answers[self.rows]
        self.end = np.append(-1, np.concatenate(ends))
        self.first = np.append(0, np.concatenate(words).cumsum())
        self.term, self.fixed = np.frombuffer(terms, dtype=np.uint64), np.frombuffer(fixed, dtype=np.bool_)
        self.loose = np.diff(self.first) <= _WORDS_FOR_TWO
        names = np.setdiff1d(np.concatenate(named), _COMMON)
        self.total = np.empty(len(self.rows), dtype=np.uint64)
        names = np.setdiff1d(names, _COMMON)
        for low, high in self._stretches():
            span = slice(self.first[low], self.first[high])
            begins = self.first[low:high] - self.first[low]
            self.fixed[span] |= np.isin(self.term[span], names)
            place = self._places(low, high)
            term = _mix(self.term[span] + _PLACE[place])
            self.total[low:high] = np.add.reduceat(term, begins) + _mix(np.diff(self.first[low : high + 1]))
            self.term[span] = term - _HOLE[place]

    def slips(self, kept: int) -> Iterator[tuple[int, int]]:
        """(row, earlier row) where one may be the other mistyped."""
        found: list[int] = []
        for members in _meeting(self._one_apart, len(self.fixed) - int(self.fixed.sum())):
            rows = (np.searchsorted(self.first, members, side="right") - 1).tolist()
            place = members[0] - self.first[rows[0]]
            if _is_slot({similar.bare(self._prompt(row).split(" ")[place]) for row in rows}):
                self.fixed[members] = True
            else:
                for row, other in self._alike(rows):
                    yield int(self.rows[row]), int(self.rows[other])
                    if self.rows[other] < kept:
                        found.append(row)
        self.loose[found] = False
        count = self._loose_words()
        for members in _meeting(self._two_apart, int((count * (count - 1) // 2).sum())):
            for row, other in self._alike(sorted(set(members))):
                yield int(self.rows[row]), int(self.rows[other])

    def _one_apart(self) -> Iterator[tuple[Digests, Indices]]:
        """What stands for a prompt without one of its loose words, and that word."""
        for low, high in self._stretches():
            loose = self.first[low] + np.flatnonzero(~self.fixed[self.first[low] : self.first[high]])
            row = np.searchsorted(self.first, loose, side="right") - 1
            yield self.total[row] - self.term[loose], loose

    def _two_apart(self) -> Iterator[tuple[Digests, Indices]]:
        """What stands for an answer and a prompt without two of its loose words, and the row."""
        count = self._loose_words()
        for low, high in self._stretches():
            loose = self.first[low] + np.flatnonzero(~self.fixed[self.first[low] : self.first[high]])
            for words in np.unique(count[low:high]).tolist():
                rows = low + np.flatnonzero(count[low:high] == words)
                begin = np.searchsorted(loose, self.first[rows])
                terms = self.term[loose[begin + np.arange(words)[:, None]]] if words > 1 else ()
                whole = self.total[rows] + _mix(self.answer[rows])
                for one, other in combinations(terms, 2):
                    yield whole - one - other, rows

    def _loose_words(self) -> Indices:
        """How many words of each prompt may differ together with another."""
        count: Indices = np.add.reduceat(~self.fixed, self.first[:-1], dtype=np.int64)
        count[~self.loose] = 0
        return count

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """The rows, some at a time."""
        yield from pairwise([*range(0, len(self.rows), _ROWS), len(self.rows)])

    def _places(self, low: int, high: int) -> Indices:
        begins = self.first[low:high]
        words = np.diff(self.first[low : high + 1])
        places: Indices = np.arange(begins[0], self.first[high]) - np.repeat(begins, words)
        return places

    def _alike(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        by_answer: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            by_answer[int(self.answer[row])].append(row)
        for same in by_answer.values():
            if 1 < len(same) <= _BUCKET:
                prompts = [self._prompt(row) for row in same]
                for one, other in combinations(range(len(same)), 2):
                    if similar.alike(prompts[one], prompts[other]):
                        yield same[other], same[one]

    def _prompt(self, row: int) -> str:
        return self.text[self.end[row] + 1 : self.end[row + 1]].decode()


def _kept(rows: Indices, text: bytes) -> tuple[Indices, bytes]:
    """The rows whose prompts are not empty."""
    prompts = text.split(b"\0")[:-1]
    kept = [place for place, prompt in enumerate(prompts) if prompt]
    return rows[kept], b"".join([prompts[place] + b"\0" for place in kept])


class _Part(NamedTuple):
    words: Indices
    hash: Digests
    fixed: npt.NDArray[np.bool_]
    names: Digests


def _parse(text: bytes) -> _Part:
    """The words of some prompts: how many each has, their hashes (marks do not count), which have a capital or a
    digit, and the names: words with a capital in prompts that are not capitals for the most part."""
    letters = np.frombuffer(text, dtype=np.uint8)
    gap = (letters == 0) | (letters == 32)
    end = np.flatnonzero(gap)
    start = np.concatenate(([0], end[:-1] + 1))
    counted = (letters > 2) | gap
    rank = np.cumsum(counted)
    rank -= np.repeat(rank[start] - counted[start], end - start + 1)
    hashed = np.add.reduceat(_BYTE[letters] * _POWERS[rank % len(_POWERS)], start)
    named = np.add.reduceat(letters == 1, start, dtype=np.int64) > 0
    digit = np.add.reduceat((letters >= 48) & (letters <= 57), start, dtype=np.int64) > 0
    last = np.flatnonzero(letters[end] == 0)
    count = np.diff(last, prepend=-1)
    calm = np.add.reduceat(named, last - count + 1, dtype=np.int64) * 2 <= count
    return _Part(count, hashed, named | digit, np.unique(hashed[named & np.repeat(calm, count)]))


def _is_slot(words: Iterable[str]) -> bool:
    """Whether a place that these different words fill is one that a template leaves open."""
    far: list[str] = []
    known = sorted(words)
    for word in known if len(known) <= _BUCKET else ():
        if all(similar.edit_distance(word, other) > 2 for other in far):
            far.append(word)
        if len(far) == _SLOT_WORDS:
            return True
    return len(known) > _BUCKET


def _meeting(keys: Callable[[], Iterator[tuple[Digests, Indices]]], total: int) -> Iterator[list[int]]:
    """The owners of equal keys, key by key, from about `total` keys that are made anew for each part of them."""
    parts = 1 + total // _PART
    for part in range(parts):
        picked = []
        for key, owner in keys():
            mine = np.flatnonzero((key >> np.uint64(40)) * np.uint64(parts) >> np.uint64(24) == part)
            picked.append((key[mine], owner[mine]))
        if picked:
            key, owner = (np.concatenate(column) for column in zip(*picked, strict=True))
            order = np.argsort(key, kind="stable")
            key, owner = key[order], owner[order]
            same = key[1:] == key[:-1]
            met = np.flatnonzero(np.append(same, False) | np.append(False, same))
            begins = np.flatnonzero(np.diff(key[met], prepend=~key[met[:1]])).tolist()
            met = owner[met]
            del key, owner, order, same, picked
            yield from (met[low:high].tolist() for low, high in pairwise([*begins, len(met)]))


def _mix(value: npt.NDArray[Any]) -> Digests:
    """A 64-bit finaliser: every bit of the value changes half of the result's."""
    value = value.astype(np.uint64)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    mixed: Digests = value ^ (value >> np.uint64(32))
    return mixed


_COMMON = np.unique(_parse("".join([word + "\0" for word in similar.COMMON]).encode()).hash)


def columns(digests: bytes | bytearray) -> Digests:
    """Digests as a column of numbers."""
    return np.frombuffer(bytes(digests), dtype=np.uint64).reshape(-1, 1)


def first_equal(*digests: Digests) -> Indices:
    """For each row the first row that has the same digests."""
    keys = [column for part in digests for column in part.T]
    order = np.lexsort(keys)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.logical_or.reduce([key[order][1:] != key[order][:-1] for key in keys])
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first


def asked_at(example: Example) -> int | None:
    """Where the words stand that the last reply answers; None for plain text."""
    last = len(example.messages) - 1
    while last > 0 and example.messages[last].role != "assistant":
        last -= 1
    return last - 1 if last > 0 else None


def _around(example: Example, place: int) -> str:
    """All of a row but its last prompt: replies as they are (NFC), what else was said normalised."""
    if len(example.messages) == 2:
        return unicodedata.normalize("NFC", example.messages[1].said)
    parts = []
    for position, (role, content) in enumerate((message.role, message.said) for message in example.messages):
        fold = partial(unicodedata.normalize, "NFC") if role == "assistant" else similar.normalise
        parts.append(role if position == place else f"{role}\0{fold(content)}")
    return "\0".join(parts)
