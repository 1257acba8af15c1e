"""A grammar for one vocabulary, and where one answer stands in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from llguidance import LLMatcher
from torch import Tensor

from plume.errors import PlumeError
from plume.generation.constrain.ending import Walk, greedy, repair, shorten
from plume.generation.constrain.strict import Place, walk, watched
from plume.generation.constrain.vocabulary import Vocabulary

_LONG = 100_000  # bytes of an ending
_STEPS = 2_000  # of a search for a shorter ending


@dataclass
class Counts:
    """What became of endings: how many tokens were looked behind, for how many all searching came to nothing or to
    more tokens than there was room for, and how often the matcher itself gave up."""

    looked: int = 0
    refused: int = 0
    gave_up: int = 0


@dataclass(frozen=True)
class Compiled:
    """Implements `plume.types.Grammar`. `matcher` reads tokens, `bytewise` the same text by bytes; `place` is where
    a text of JSON begins, None for other texts; `first` is the shortest answer known."""

    vocabulary: Vocabulary
    matcher: LLMatcher
    bytewise: LLMatcher
    place: Place | None
    first: bytes
    judge: Callable[[str], bool]
    counts: Counts = field(default_factory=Counts)

    @property
    def shortest(self) -> int:
        return len(self.ids(self.first))

    def start(self) -> Stand:
        return Stand(self, self.matcher.deep_copy(), Walk(self.bytewise.deep_copy(), self.place), self.first)

    def valid(self, text: str) -> bool:
        return self.judge(text)

    def ids(self, text: bytes) -> tuple[int, ...]:
        """The ids that write a text; only asked of one that was found writable."""
        found = self.vocabulary.segment(text)
        if found is None:
            raise PlumeError(f"the tokenizer cannot write {text!r}")
        return found


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="plume-constraint")


class Stand:
    """Implements `plume.types.Constraint`: one answer so far."""

    def __init__(
        self, grammar: Compiled, matcher: LLMatcher, here: Walk, ending: bytes | None, begun: bool = False
    ) -> None:
        self._grammar = grammar
        self._vocabulary = grammar.vocabulary
        self._matcher = matcher
        self._here = here
        self._ending = ending
        self._begun = begun or not grammar.vocabulary.drops_space
        self._shortened = False
        self._behind: dict[int, bytes | None] = {}
        self._mask = self._computed()

    # --- what may follow ---

    @property
    def accepting(self) -> bool:
        return self._here.accepting

    @property
    def done(self) -> bool:
        return self._here.accepting and self._here.stopped

    def allowed_V(self) -> Tensor:
        bitmask = self._mask.result()
        if bitmask is None:  # the matcher came to its limits: what is known to complete the answer is all that is left
            mask_V = torch.zeros(self._vocabulary.size, dtype=torch.bool)
            mask_V[list(self.shortest_end()[:1])] = True
        else:
            mask_V = self._vocabulary.tensor(bitmask)
            if not self._begun:
                first_V = self._vocabulary.first_V
                padded = torch.cat([mask_V[: len(first_V)], torch.zeros(1, dtype=torch.bool)])
                mask_V[: len(first_V)] = padded[first_V]
            self._strike(mask_V)
        return mask_V | self._vocabulary.stop_V if self.accepting else mask_V

    def _computed(self) -> Future[bytes | None]:
        return _threads().submit(_bitmask, self._matcher)

    def _strike(self, mask_V: Tensor) -> None:
        """Take out what the grammar allows and `strict` does not."""
        place = self._here.place
        if place is not None and watched(place):
            suspects = self._vocabulary.numeric if place.mode == "n" else self._vocabulary.quoted
            allowed = mask_V.numpy()
            struck = [id for id, piece in suspects if allowed[id] and walk(place, piece) is None]
            if struck:
                mask_V[struck] = False

    # --- going on ---

    def advance(self, id: int) -> None:
        """Raises ValueError for an id that is not allowed here."""
        piece = self._piece(id)
        self._mask.result()
        ending = self._look(id)
        if not piece or not self._here.push(piece):
            raise ValueError(f"token {id} is not allowed here")
        self._matcher.consume_token(self._read(id))
        self._ending, self._begun, self._shortened = ending, True, False
        self._behind = {}
        self._mask = self._computed()

    def fork(self) -> Stand:
        self._mask.result()
        return Stand(self._grammar, self._matcher.deep_copy(), self._here.fork(), self._ending, self._begun)

    def _piece(self, id: int) -> bytes:
        piece = self._vocabulary.table[id] if 0 <= id < len(self._vocabulary.table) else b""
        return piece if self._begun else piece.removeprefix(b" ")

    def _read(self, id: int) -> int:
        """The id that the matcher reads for this one: where a reply begins its first space is dropped."""
        return id if self._begun else self._vocabulary.ids[self._piece(id)]

    # --- endings ---

    def shortest_end(self) -> Sequence[int]:
        if self.accepting:
            return ()
        if not self._shortened:
            self._shortened = True
            self._ending = self._better(self._here, self._ending)
        if self._ending is None:
            raise PlumeError("no ending of this answer was found", "simplify the schema")
        return self._ids(self._ending)

    def fits(self, id: int, room: int) -> bool:
        if id in self._vocabulary.stop_ids:
            return self.accepting
        ending = self._look(id)
        if ending is not None and self._within(ending, room):
            return True
        piece = self._piece(id)
        counts = self._grammar.counts
        if room >= 0 and piece and self._here.push(piece):
            ending = self._better(self._here, ending)
            self._here.pop(len(piece))
            self._behind[id] = ending
            counts.gave_up += ending is None
        if ending is not None and self._within(ending, room):
            return True
        counts.refused += 1
        return False

    def _within(self, ending: bytes, room: int) -> bool:
        vocabulary = self._vocabulary
        return (vocabulary.complete and len(ending) <= room) or len(self._grammar.ids(ending)) <= room

    def _look(self, id: int) -> bytes | None:
        """An ending behind an id, the first that is found."""
        if id not in self._behind:
            piece = self._piece(id)
            self._grammar.counts.looked += 1
            ending = None
            if piece and self._here.push(piece):
                ending = self._rest(piece)
                self._here.pop(len(piece))
            self._behind[id] = ending
        return self._behind[id]

    def _rest(self, piece: bytes) -> bytes | None:
        if self._here.accepting:
            return b""
        if self._ending is not None:
            if self._ending.startswith(piece):
                return self._ending[len(piece) :]
            ending = repair(self._here, self._ending)
            if ending is not None and self._writable(ending):
                return ending
        return self._written(greedy(self._here, _LONG))

    def _better(self, here: Walk, ending: bytes | None) -> bytes | None:
        """The ending with the fewest tokens of this one and what a longer search finds."""
        found = [ending] if ending is not None else []
        quick = greedy(here, _LONG)
        if quick is not None:
            found += [quick, shorten(here, quick, _STEPS)]
        return min(
            (text for text in found if self._writable(text)), key=lambda text: len(self._ids(text)), default=None
        )

    def _writable(self, text: bytes) -> bool:
        return self._vocabulary.complete or self._vocabulary.segment(text) is not None

    def _written(self, text: bytes | None) -> bytes | None:
        return text if text is not None and self._writable(text) else None

    def _ids(self, text: bytes) -> tuple[int, ...]:
        return self._grammar.ids(text)


def _bitmask(matcher: LLMatcher) -> bytes | None:
    bitmask = bytes(matcher.compute_bitmask())
    return None if matcher.is_error() else bitmask
