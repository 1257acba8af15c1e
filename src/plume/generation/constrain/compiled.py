"""A grammar for one vocabulary, and where one answer stands in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from llguidance import LLMatcher
from numpy.typing import NDArray
from torch import Tensor

from plume.errors import PlumeError
from plume.generation.constrain.ending import Walk, complete, repair, shared, shorten, tersest, written
from plume.generation.constrain.strict import Place, alike, walk, watched
from plume.generation.constrain.vocabulary import Vocabulary

_LONG = 20_000  # bytes of an ending
_STEPS = 600  # of a search for a shorter ending


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
    a text of JSON begins, None for other texts; `first` is the shortest answer known;
    `notes` say what of a schema is left to chance, because it means nothing."""

    vocabulary: Vocabulary
    matcher: LLMatcher
    bytewise: LLMatcher
    place: Place | None
    first: bytes
    judge: Callable[[str], bool]
    guesses: tuple[bytes, ...] = ()
    notes: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)

    @property
    def shortest(self) -> int:
        return len(self.ids(self.first, not self.vocabulary.drops_space))

    def start(self) -> Stand:
        here = Walk(self.bytewise.deep_copy(), self.place, self.guesses)
        return Stand(self, self.matcher.deep_copy(), here, self.first, shortened=True)

    def valid(self, text: str) -> bool:
        return self.judge(text)

    def ids(self, text: bytes, begun: bool = True) -> tuple[int, ...]:
        """The ids that write a text; only asked of one that was found writable."""
        found = self.vocabulary.segment(text, begun=begun)
        if found is None:
            raise PlumeError(f"the tokenizer cannot write {text!r}")
        return found


class Stand:
    """Implements `plume.types.Constraint`: one answer so far."""

    def __init__(
        self,
        grammar: Compiled,
        matcher: LLMatcher,
        here: Walk,
        ending: bytes | None,
        begun: bool = False,
        *,
        shortened: bool = False,
    ) -> None:
        self._grammar = grammar
        self._vocabulary = grammar.vocabulary
        self._matcher = matcher
        self._here = here
        self._ending = ending
        self._begun = begun or not grammar.vocabulary.drops_space
        self._shortened = shortened
        self._settled = len(ending) if shortened and ending else 0  # bytes at its end that were searched already
        self._blind = False  # a matcher came to its limits: all that is left is the ending known before
        self._behind: dict[int, bytes | None] = {}
        self._searched: int | None = None  # behind one id a place is searched; behind a second nothing more was found

    # --- what may follow ---

    @property
    def accepting(self) -> bool:
        return not self._ending if self._blind else self._here.accepting

    @property
    def done(self) -> bool:
        return self.accepting and (self._blind or self._here.stopped)

    def allowed_V(self) -> Tensor:
        mask_V = None if self._blind else self._vocabulary.mask_V(self._matcher)
        if mask_V is None:
            self._blind = not self.accepting or self._blind
            mask_V = torch.zeros(self._vocabulary.size, dtype=torch.bool)
            mask_V[list(self.shortest_end()[:1])] = True
        elif not self._begun:
            first_V = self._vocabulary.first_V
            padded = torch.cat([mask_V[: len(first_V)], torch.zeros(1, dtype=torch.bool)])
            mask_V[: len(first_V)] = padded[first_V]
        if not self._blind:
            self._strike(mask_V.numpy())
        if self.accepting:
            mask_V[self._vocabulary.stops] = True
        return mask_V

    def _strike(self, allowed_V: NDArray[np.bool_]) -> None:
        """Take out what the grammar allows and `strict` does not."""
        place, words = self._here.place, self._vocabulary
        if place is None or not watched(place):
            return
        if place.mode == "n":
            allowed_V[words.unreadable(alike(place.text), place.digits)] = False
        suspects = words.quoted[allowed_V[words.quoted]]
        allowed_V[[id for id in suspects.tolist() if walk(place, words.table[id]) is None]] = False

    # --- going on ---

    def advance(self, id: int) -> None:
        """Raises ValueError for an id that is not allowed here."""
        piece = self._piece(id)
        ending = self._look(id)
        self._settled = len(ending) if id == self._searched and ending else self._untouched(ending)
        self._shortened &= self._follows(piece)
        if not self._blind:
            self._blind = not piece or not self._here.push(piece) or not self._matcher.consume_token(self._read(id))
        if self._blind and ending is None:
            raise ValueError(f"token {id} is not allowed here")
        self._ending, self._begun = ending, True
        self._behind, self._searched = {}, None

    def fork(self) -> Stand:
        fork = Stand(self._grammar, self._matcher.deep_copy(), self._here.fork(), self._ending, self._begun)
        fork._blind, fork._settled = self._blind, self._settled
        return fork

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
        if not self._shortened and not self._blind:
            self._shortened = True
            self._ending = self._better(self._here.fork(), self._ending)
            self._settled = len(self._ending or b"")
        if self._ending is None:
            raise PlumeError("no ending of this answer was found", "simplify the schema")
        return self._ids(self._ending)

    def fits(self, id: int, room: int) -> bool:
        if id in self._vocabulary.stop_ids:
            return self.accepting
        ending = self._look(id)
        if ending is not None and self._within(ending, room):
            return True
        counts = self._grammar.counts
        behind = None if self._blind or room < 0 or self._searched is not None else self._behind_of(id)
        if behind is not None:
            self._searched = id
            ending = self._behind[id] = self._better(behind, ending)
            counts.gave_up += ending is None
        if ending is not None and self._within(ending, room):
            return True
        counts.refused += 1
        return False

    def _within(self, ending: bytes, room: int) -> bool:
        return (self._vocabulary.complete and len(ending) <= room) or len(self._grammar.ids(ending)) <= room

    def _behind_of(self, id: int) -> Walk | None:
        """The place behind an id, a copy: a search that runs into the matcher's limits leaves it useless."""
        piece = self._piece(id)
        here = self._here.fork()
        return here if piece and here.push(piece) else None

    def _look(self, id: int) -> bytes | None:
        """An ending behind an id: what a search found, else the first that is found. What follows the known ending
        needs no matcher."""
        if id == self._searched:
            return self._behind[id]
        piece = self._piece(id)
        if self._ending is not None and self._follows(piece):
            return self._ending[len(piece) :]
        if id not in self._behind:
            self._grammar.counts.looked += 1
            here = None if self._blind else self._behind_of(id)
            self._behind[id] = None if here is None else self._rest(here)
        return self._behind[id]

    def _follows(self, piece: bytes) -> bool:
        return bool(piece) and self._ending is not None and self._ending.startswith(piece)

    def _rest(self, here: Walk) -> bytes | None:
        ending = None if self._ending is None else written(here, repair(here, self._ending), self._vocabulary)
        return written(here, complete(here, _LONG), self._vocabulary) if ending is None else ending

    def _better(self, here: Walk, ending: bytes | None) -> bytes | None:
        """The ending with the fewest tokens of this one and what a longer search finds."""
        found = [ending] if ending is not None else []
        quick = complete(here, _LONG)
        if quick is not None:
            found += [quick, shorten(here, quick, _STEPS, self._untouched(quick))]
        return tersest(here, found, self._vocabulary)

    def _untouched(self, ending: bytes | None) -> int:
        """How many bytes at the end of an ending are those of the known one, where that was searched already."""
        return min(self._settled, shared(ending, self._ending)) if ending and self._ending else 0

    def _ids(self, text: bytes) -> tuple[int, ...]:
        return self._grammar.ids(text, self._begun)
