"""The shortest texts that complete an answer, looked for byte by byte in a second matcher.

Nothing here is trusted: an ending counts only because the matcher took every byte of it and then accepted. That it is
the shortest is not proven; searches are bounded by a number of steps, never by time.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from llguidance import LLMatcher

from plume.generation.constrain.strict import Place, step, walk
from plume.generation.constrain.vocabulary import END_OF_BYTES, Vocabulary

# Closing comes first, then what makes short values.
_ORDER = bytes(dict.fromkeys(b'}],:0123456789"ntf[{-' + bytes(range(256))))
_RANK = {byte: rank for rank, byte in enumerate(_ORDER)}
_CLASSES = [frozenset(range(*bounds)) for bounds in ((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B), (0x80, 0xC0))]
_BYTES = (1 << 256) - 1
_REPAIRED = 64  # ends of a known ending, the shortest
_STRINGS = ("s", "k")
_LEXEMES = ("s", "k", "n")
_DEEPER = 50  # levels that an ending may open
_PAIRED = 20  # guesses that are also tried behind one another
_ENOUGH = 200_000  # steps
_NEAREST = 3_000  # steps
_SHORT, _RUN = 16, 8192  # letters of a string that has a least length
_FREE = 90  # this many possible bytes are free text: none is better than another


class Walk:
    """A place in a text, by its bytes; `place` is None where the text is not JSON. `guesses` are what strings of it
    may hold. Steps are counted in `steps`."""

    def __init__(self, matcher: LLMatcher, place: Place | None, guesses: Sequence[bytes] = ()) -> None:
        self._matcher = matcher
        self._places = [place]
        self.guesses = guesses
        self.steps = 0

    def fork(self) -> Walk:
        return Walk(self._matcher.deep_copy(), self._places[-1], self.guesses)

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
        self.steps += 1 + len(piece) // 8
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

    @property
    def error(self) -> str:
        """Why the matcher takes no more: it came to one of its limits. Nothing when it did not."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else ""

    def forced(self) -> bytes:
        return bytes(self._matcher.compute_ff_bytes())


def repair(here: Walk, ending: bytes) -> bytes | None:
    """What is left of an ending known before the last bytes: the shortest end of it that completes the answer now."""
    if here.accepting:
        return b""
    mask = here.allowed()
    plain = b"\\" in ending
    starts = (*range(len(ending) - 1, max(0, len(ending) - _REPAIRED), -1), 0)
    for start in starts if plain or not here.place else _closing(here.place, ending):
        if ending and mask >> ending[start] & 1 and here.ends(ending[start:]):
            return ending[start:]
    return None


def _closing(place: Place, ending: bytes) -> Iterator[int]:
    """Where those ends of an ending begin that close as much as is open here, the shortest first; the ending holds no
    escaped quotation mark."""
    opened, inside = place.frame.depth + 1 if place.frame else 0, place.mode in _STRINGS
    closed, quoted = 0, False
    for start in range(len(ending) - 1, -1, -1):
        byte = ending[start]
        if byte == 0x22:
            quoted = not quoted
        elif not quoted:
            closed += (byte in b"]}") - (byte in b"[{")
        if closed == opened and quoted == inside:
            yield start


def written(here: Walk, text: bytes | None, vocabulary: Vocabulary) -> bytes | None:
    """An ending as the vocabulary can write it, None when it cannot: where single bytes are missing, it may be that
    ` true` is a token and `true` is none."""
    if text is None or vocabulary.complete or vocabulary.segment(text) is not None:
        return text
    return tersest(here, [text], vocabulary)


def tersest(here: Walk, texts: Sequence[bytes], vocabulary: Vocabulary) -> bytes | None:
    """The ending with the fewest tokens of these and of the same with a space behind commas, colons or both."""
    found: list[tuple[int, int, bytes]] = []
    for text in dict.fromkeys(texts):
        forms = _spaced(here.place, text) if here.place is not None else [text]
        for form in dict.fromkeys(forms):
            ids = vocabulary.segment(form)
            if ids is not None and (form == text or here.ends(form)):
                found.append((len(ids), len(form), form))
    return min(found)[2] if found else None


def _spaced(start: Place, text: bytes) -> list[bytes]:
    """A text and the same with a space behind commas and colons, colons, commas; what stands in strings stays."""
    pieces, place, since = list[bytes](), start, 0
    for at, byte in enumerate(text):
        if byte in b",:" and place.mode not in _STRINGS:
            pieces.append(text[since : at + 1])
            since = at + 1
        place = step(place, byte) or place
    last = text[since:]
    return [
        b"".join(piece + b" " * (piece[-1] in separators) for piece in pieces) + last
        for separators in (b"", b":,", b":", b",")
    ]


def complete(here: Walk, most: int) -> bytes | None:
    """An ending of at most so many bytes; `here` stays. None where the search gives up."""
    ending = greedy(here, most)
    return _nearest(here, most) if ending is None else ending


def greedy(here: Walk, most: int, known: bytes = b"") -> bytes | None:
    """An ending of at most so many bytes that closes what is open as soon as that is allowed; `here` stays. It goes
    over into the `known` ending of another place where that fits."""
    text = b""
    deepest = _depth(here) + _DEEPER
    begin = here.steps
    while not here.accepting:
        piece = here.forced()
        if not piece or not here.push(piece):
            piece = _next(here)
        text += piece
        if piece and known and (here.place is None or here.place.mode not in _LEXEMES):
            rest = repair(here, known)
            if rest is not None:
                here.pop(len(text))
                return text + rest if len(text) + len(rest) <= most else None
        if not piece or len(text) > most or _depth(here) > deepest or here.steps - begin > _ENOUGH:
            here.pop(len(text))
            return None
    here.pop(len(text))
    return text


def _depth(here: Walk) -> int:
    return here.place.frame.depth if here.place and here.place.frame else 0


def _next(here: Walk) -> bytes:
    """Take the piece that seems to end soonest; nothing when there is none."""
    place = here.place
    if place is None or place.mode in _LEXEMES:
        return _lexeme(here)
    for byte in ranked(here.allowed()):
        if here.push(bytes([byte])):
            return bytes([byte])
    return b""


@functools.lru_cache(maxsize=4096)
def ranked(mask: int, *, whole: bool = False) -> tuple[int, ...]:
    """The bytes of a mask in the order in which they are tried; of letters or digits that may all stand there two
    represent the rest, and of free text a few bytes, unless the `whole` is asked for."""
    found = {byte for byte in range(256) if mask >> byte & 1}
    if not whole:
        if mask.bit_count() >= _FREE:
            found &= set(b'"0a')
        for members in _CLASSES:
            if members <= found:
                found -= set(sorted(members)[2:])
    return tuple(sorted(found, key=_RANK.__getitem__))


def _lexeme(here: Walk) -> bytes:
    """Take the shortest piece after which the string, the number or the whole answer may end, or text is free."""
    if here.place is not None and here.place.mode in _STRINGS and here.push(b'"'):
        return b'"'
    return (
        _run(here, _SHORT)
        or _guess(here)
        or _run(here, _RUN)
        or _search(here, 400, whole=False)
        or _search(here, 4000, whole=True)
        or b""
    )


def _guess(here: Walk) -> bytes:
    """Take the rest of a guess, or of two, after which the string may end."""
    if here.place is None or here.place.mode not in _STRINGS:
        return b""
    guesses = here.guesses
    for guess in guesses:
        for start in range(len(guess)):
            text = guess[start:] + b'"'
            if here.takes(text) and here.push(text):
                return text
    for text in _pairs(here.place, guesses[:_PAIRED]):
        if here.takes(text) and here.push(text):
            return text
    return b""


def _pairs(place: Place, guesses: Sequence[bytes]) -> Iterator[bytes]:
    """Two guesses behind one another; for a key, numbers too, of which one more than there are keys must be new."""
    if place.mode == "k" and place.frame and place.frame.keys:
        for number in range(min(len(place.frame.keys), _RUN), -1, -1):
            yield from (guess + b'%d"' % number for guess in (b"", *guesses))
    for pair in itertools.permutations(guesses, 2):
        yield b"".join(pair) + b'"'


def _run(here: Walk, most: int) -> bytes:
    """Take as many letters, up to so many, as make a string long enough to end, where any text may stand in it."""
    mask = here.allowed()
    inside = here.place is not None and here.place.mode in _STRINGS
    if mask.bit_count() < _FREE or (here.place is not None and (not inside or mask >> 0x22 & 1)):
        return b""

    def enough(count: int) -> bool:
        return here.takes(b"a" * count + b'"') if inside else here.ends(b"a" * count)

    least, count = 0, 1
    while not enough(count):
        least, count = count, min(2 * count, here.longest(b"a" * 2 * count))
        if not least < count <= most:
            return b""
    below = range(least + 1, count + 1)
    fewest = below[bisect.bisect_left(below, True, key=enough)]
    return b"a" * fewest if here.push(b"a" * fewest) else b""


def _search(here: Walk, most: int, *, whole: bool) -> bytes | None:
    """Breadth first over bytes. Places that are equally far and from which the same bytes may follow count as one."""
    seen = set()
    waiting: deque[bytes] = deque([b""])
    begin = here.steps
    free = here.allowed().bit_count() >= _FREE
    while waiting and here.steps - begin < most:
        text = waiting.popleft()
        if text and not here.push(text):
            continue
        text += _forced(here) if text else b""
        mask = here.allowed()
        if text and _over(here, mask, free):
            return text
        if (mask, len(text)) not in seen:
            seen.add((mask, len(text)))
            waiting.extend(text + bytes([byte]) for byte in ranked(mask, whole=whole))
        here.pop(len(text))
    return None


def _forced(here: Walk) -> bytes:
    forced = here.forced()
    return forced if forced and here.push(forced) else b""


def _nearest(here: Walk, most: int) -> bytes | None:
    """The shortest ending over bytes (Dijkstra), of places that look alike only the first."""
    seen = set()
    waiting: list[tuple[int, bytes]] = [(0, b"")]
    begin = here.steps
    while waiting and here.steps - begin < _NEAREST:
        _, text = heapq.heappop(waiting)
        if text and not here.push(text):
            continue
        text += _forced(here)
        if here.accepting:
            here.pop(len(text))
            return text if len(text) <= most else None
        mask = here.allowed()
        place = here.place
        alike = (mask, (place.frame, place.mode, len(place.text)) if place else len(text))
        if alike not in seen:
            seen.add(alike)
            pieces = [bytes([byte]) for byte in ranked(mask)]
            if place and place.mode in _STRINGS:
                pieces += [guess + b'"' for guess in here.guesses if here.takes(guess + b'"')]
            for piece in pieces:
                heapq.heappush(waiting, (len(text + piece), text + piece))
        here.pop(len(text))
    return None


def _over(here: Walk, mask: int, free: bool) -> bool:
    """Has what began before the search come to its end, or to free text, if it was not there before?"""
    if here.accepting:
        return True
    place = here.place
    if place is None:
        return False
    if place.mode == "n":
        return bool(mask & _AFTER_NUMBER)
    return place.mode not in _STRINGS or (not free and mask.bit_count() >= _FREE)


_AFTER_NUMBER = sum(1 << byte for byte in b",]}")


def shorten(here: Walk, ending: bytes, most: int, settled: int = 0) -> bytes:
    """A shorter ending, if one is found within so many steps: at each byte where others could stand, the greedy
    ending behind every one of them is tried (Bertsekas et al. 1997, rollout), until no more is gained. The `settled`
    last bytes are left as they are, unless something before them changes."""
    begin = here.steps
    before = ending + b" "
    while len(ending) < len(before) and here.steps - begin < most:
        before = ending
        at = 0
        while at < len(ending) - settled and here.steps - begin < most:
            for byte in _others(here, ending[at]):
                if not here.push(bytes([byte])):
                    continue
                tail = greedy(here, len(ending) - at - 2, ending[at + 1 :])
                here.pop(1)
                if tail is not None:
                    ending = ending[:at] + bytes([byte]) + tail
            if not here.push(ending[at : at + 1]):
                break
            at += 1
        here.pop(at)
    return ending


def shared(one: bytes, other: bytes) -> int:
    """How many bytes at their ends two texts have in common."""
    most = min(len(one), len(other))
    return next((at for at in range(most) if one[-1 - at] != other[-1 - at]), most)


def _others(here: Walk, taken: int) -> Iterator[int]:
    if taken in b"]}" or (here.place is not None and here.place.mode in _STRINGS and taken == 0x22):
        return
    mask = here.allowed()
    if mask.bit_count() < _FREE:
        yield from (byte for byte in ranked(mask) if byte != taken)
