"""The shortest texts that complete an answer, looked for byte by byte in a second matcher.

Nothing here is trusted: an ending counts only because the matcher took every byte of it and then accepted. That it is
the shortest is not proven; searches are bounded by a number of steps, never by time.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator

from llguidance import LLMatcher

from plume.generation.constrain.strict import Place, walk
from plume.generation.constrain.vocabulary import END_OF_BYTES

# Closing comes first, then what makes short values.
_ORDER = bytes(dict.fromkeys(b'}],:0123456789"[{ntf-' + bytes(range(256))))
_RANK = {byte: rank for rank, byte in enumerate(_ORDER)}
_CLASSES = [frozenset(range(*bounds)) for bounds in ((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B), (0x80, 0xC0))]
_BYTES = (1 << 256) - 1
_RUN = 4096  # letters of a string that has a least length
_TEXT = 90  # this many possible bytes are free text: none is better than another


class Walk:
    """A place in a text, by its bytes; `place` is None where the text is not JSON. Steps are counted in `steps`."""

    def __init__(self, matcher: LLMatcher, place: Place | None) -> None:
        self._matcher = matcher
        self._places = [place]
        self.steps = 0

    def fork(self) -> Walk:
        return Walk(self._matcher.deep_copy(), self._places[-1])

    @property
    def place(self) -> Place | None:
        return self._places[-1]

    @property
    def accepting(self) -> bool:
        return bool(self._matcher.is_accepting())

    @property
    def stopped(self) -> bool:
        return bool(self._matcher.is_stopped())

    def push(self, piece: bytes) -> bool:
        """Go on by these bytes, or stay and say that it cannot be."""
        self.steps += 1
        place = self._places[-1]
        if place is not None:
            place = walk(place, piece)
            if place is None:
                return False
        ids = list(piece)
        if self._matcher.validate_tokens(ids) != len(ids) or not self._matcher.consume_tokens(ids):
            return False
        self._places += [self._places[-1]] * (len(ids) - 1) + [place]
        return True

    def pop(self, count: int) -> None:
        """Go back by so many bytes, to where a `push` ended."""
        if count:
            self._matcher.rollback(count)
            del self._places[-count:]

    def ends(self, text: bytes) -> bool:
        """Do these bytes complete the answer?"""
        self.steps += 1
        ids = [*text, END_OF_BYTES]
        if self._matcher.validate_tokens(ids) != len(ids):
            return False
        return self.place is None or walk(self.place, text) is not None

    def longest(self, text: bytes) -> int:
        """How many of these bytes may come next."""
        self.steps += 1
        return int(self._matcher.validate_tokens(list(text)))

    def takes(self, text: bytes) -> bool:
        return self.longest(text) == len(text)

    def allowed(self) -> int:
        """The bytes that may come next, a bit for each."""
        self.steps += 1
        return int.from_bytes(self._matcher.compute_bitmask(), "little") & _BYTES

    def forced(self) -> bytes:
        return bytes(self._matcher.compute_ff_bytes())


def repair(here: Walk, ending: bytes) -> bytes | None:
    """What is left of an ending known before the last bytes: the shortest end of it that completes the answer now."""
    for start in range(len(ending), max(-1, len(ending) - _REPAIRED), -1):
        if here.ends(ending[start:]):
            return ending[start:]
    return ending if here.ends(ending) else None


_REPAIRED = 64


def greedy(here: Walk, most: int) -> bytes | None:
    """An ending of at most so many bytes that closes what is open as soon as that is allowed; `here` stays."""
    text = b""
    while not here.accepting:
        piece = here.forced()
        if not piece or not here.push(piece):
            piece = _next(here)
        text += piece
        if not piece or len(text) > most:
            here.pop(len(text))
            return None
    here.pop(len(text))
    return text


def _next(here: Walk) -> bytes:
    """Take the piece that seems to end soonest; nothing when there is none."""
    place = here.place
    if place is None or place.mode == "n" or place.mode in "sk":
        return _lexeme(here)
    for byte in ranked(here.allowed()):
        if here.push(bytes([byte])):
            return bytes([byte])
    return b""


def ranked(mask: int, *, whole: bool = False) -> list[int]:
    """The bytes of a mask in the order in which they are tried; of letters or digits that may all stand there two
    represent the rest, unless the `whole` is asked for."""
    found = {byte for byte in range(256) if mask >> byte & 1}
    if not whole:
        for members in _CLASSES:
            if members <= found:
                found -= set(sorted(members)[2:])
    return sorted(found, key=_RANK.__getitem__)


def _lexeme(here: Walk) -> bytes:
    """Take the shortest piece after which the string, the number or the whole answer may end."""
    return _run(here) or _search(here, 400, whole=False) or _search(here, 4000, whole=True) or b""


def _run(here: Walk) -> bytes:
    """Take as many letters as make a string long enough to end, where any text may stand in it."""
    mask = here.allowed()
    if here.place is None or here.place.mode not in "sk" or mask.bit_count() < _TEXT or mask >> 0x22 & 1:
        return b""
    most = here.longest(b"a" * _RUN)
    fewest = bisect.bisect_left(range(1, most + 1), True, key=lambda count: here.takes(b"a" * count + b'"')) + 1
    return b"a" * fewest if fewest <= most and here.push(b"a" * fewest) else b""


def _search(here: Walk, most: int, *, whole: bool) -> bytes | None:
    """Breadth first over bytes. Places that are equally far and from which the same bytes may follow count as one."""
    seen = set()
    waiting: deque[bytes] = deque([b""])
    start = here.steps
    while waiting and here.steps - start < most:
        text = waiting.popleft()
        if text and not here.push(text):
            continue
        forced = here.forced() if text else b""
        if forced and here.push(forced):
            text += forced
        mask = here.allowed()
        if text and _over(here, mask):
            return text
        if (mask, len(text)) not in seen:
            seen.add((mask, len(text)))
            next = ranked(mask, whole=whole)
            if mask.bit_count() >= _TEXT and not whole:
                next = [byte for byte in next if byte in b'"0a']
            waiting.extend(text + bytes([byte]) for byte in next)
        here.pop(len(text))
    return None


def _over(here: Walk, mask: int) -> bool:
    """Has what began before the search come to its end?"""
    if here.accepting:
        return True
    place = here.place
    if place is None:
        return False
    if place.mode == "n":
        return bool(mask & _AFTER_NUMBER)
    return place.mode not in "sk"


_AFTER_NUMBER = sum(1 << byte for byte in b",]}")


def shorten(here: Walk, ending: bytes, most: int) -> bytes:
    """A shorter ending, if one is found within so many steps: at each byte where others could stand, the greedy
    ending behind every one of them is tried (Bertsekas et al. 1997, rollout)."""
    begin = here.steps
    at = 0
    while at < len(ending) and here.steps - begin < most:
        for byte in _others(here, ending[at]):
            if not here.push(bytes([byte])):
                continue
            tail = greedy(here, len(ending) - at - 2)
            here.pop(1)
            if tail is not None:
                ending = ending[:at] + bytes([byte]) + tail
        if not here.push(ending[at : at + 1]):
            break
        at += 1
    here.pop(at)
    return ending


def _others(here: Walk, taken: int) -> Iterator[int]:
    if taken in b"]}" or (here.place is not None and here.place.mode in "sk" and taken == 0x22):
        return
    mask = here.allowed()
    if mask.bit_count() < _TEXT:
        yield from (byte for byte in ranked(mask) if byte != taken)
