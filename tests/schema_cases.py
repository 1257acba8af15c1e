"""Schemas with instances that must pass or fail, a judge of answers, and an untrained speaker held by a constraint.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jsonschema_rs
import torch
from torch import Tensor

from plume.types import Constraint, Grammar

CORPUS = Path(__file__).parent / "schemas"
_TRIES = 8


@dataclass(frozen=True)
class Case:
    """A schema and what must be said about some instances. `refused` is the JSON pointer of the keyword for which it
    has to be refused, None for one that should be taken."""

    name: str
    family: str
    schema: Any
    valid: tuple[Any, ...]
    invalid: tuple[Any, ...]
    refused: str | None = None


class Vocabulary(Protocol):
    """As much of a tokenizer as cutting bytes into tokens needs."""

    @property
    def vocab_size(self) -> int: ...
    def token_bytes(self, id: int) -> bytes: ...


def read_cases(directory: Path) -> list[Case]:
    """The schemas under a directory: our own `.jsonl` corpus; `.json` files, each a schema with tests
    (`{"schema": …, "tests": [{"data": …, "valid": …}]}`) or a schema alone. A family is what a name begins with."""
    cases = []
    for file in sorted(directory.rglob("*.jsonl")):
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            valid, invalid = tuple(row.pop("valid")), tuple(row.pop("invalid"))
            cases.append(Case(**row, valid=valid, invalid=invalid))
    for file in sorted(directory.rglob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        tested = found if isinstance(found, dict) and {"schema", "tests"} <= found.keys() else {}
        instances = {
            wanted: tuple(test["data"] for test in tested.get("tests", ()) if test["valid"] is wanted)
            for wanted in (True, False)
        }
        family = re.split(r"---|_\d+$", file.stem)[0]
        cases.append(Case(file.stem, family, tested.get("schema", found), instances[True], instances[False]))
    return cases


def shuffled(cases: Sequence[Case]) -> list[Case]:
    """The same in an order that has nothing to do with their names, so that the first ones stand for all."""
    return sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())


# --- the judge -------------------------------------------------------------------------------------


def judge(schema: Any) -> Callable[[str], bool]:
    """Is a text JSON, no name twice in an object, that validates, formats included? Raises ValueError where the
    schema is none."""
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)

    def says(text: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(text, parse_constant=_no_json, object_pairs_hook=_no_twins)))
        except ValueError:
            return False

    return says


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def spellings(instance: Any) -> tuple[bytes, ...]:
    """The ways in which a model may write a value: compact, and with a space behind commas and colons."""
    texts = (json.dumps(instance, ensure_ascii=False, separators=pair) for pair in ((",", ":"), (", ", ": ")))
    return tuple(dict.fromkeys(text.encode() for text in texts))


# --- tokens ----------------------------------------------------------------------------------------


class Cutter:
    """Cuts bytes into the longest tokens there are, from the left: an encoding that every tokenizer knows to read,
    without the space that some put before a text."""

    def __init__(self, tokenizer: Vocabulary) -> None:
        self._id: Mapping[bytes, int] = {
            tokenizer.token_bytes(id): id for id in reversed(range(tokenizer.vocab_size)) if tokenizer.token_bytes(id)
        }
        self._longest = max(map(len, self._id))

    def __call__(self, data: bytes) -> list[int]:
        ids, start = [], 0
        while start < len(data):
            piece = next(
                data[start : start + size]
                for size in range(self._longest, 0, -1)
                if data[start : start + size] in self._id
            )
            ids.append(self._id[piece])
            start += len(piece)
        return ids


def accepts(grammar: Grammar, ids: Sequence[int]) -> bool:
    """May an answer be exactly these tokens?"""
    constraint = grammar.start()
    for id in ids:
        if constraint.done or not constraint.allowed_V()[id]:
            return False
        constraint.advance(id)
    return constraint.accepting


# --- a speaker -------------------------------------------------------------------------------------


class Speaker:
    """An untrained model in a nutshell: random scores of the next token that hang on the last one, as a bigram's do.
    At temperature 0 it runs in circles, as untrained models do."""

    def __init__(self, vocab_size: int, stop_ids: frozenset[int], seed: int = 0) -> None:
        chance = torch.Generator().manual_seed(seed)
        self._embedding = torch.randn(vocab_size + 1, 8, generator=chance)
        self._head = torch.randn(vocab_size, 8, generator=chance)
        self._stop_ids = stop_ids

    def answer(self, grammar: Grammar, room: int, temperature: float, seed: int) -> list[int]:
        """The tokens of an answer of at most `room` tokens, the token that ends it left out. Chooses as the engine
        does: what would leave no room for an ending is chosen again, and at last the shortest ending is taken."""
        chance = torch.Generator().manual_seed(seed)
        constraint, ids = grammar.start(), list[int]()
        while room > 0 and not constraint.done:
            id = self._choose(constraint, self._scores(ids), room, temperature, chance)
            if id is None:
                break
            constraint.advance(id)
            ids.append(id)
            room -= 1
        return ids

    def _scores(self, ids: Sequence[int]) -> Tensor:
        return self._head @ self._embedding[ids[-1] if ids else -1] / 2

    def _choose(
        self, constraint: Constraint, scores_V: Tensor, room: int, temperature: float, chance: torch.Generator
    ) -> int | None:
        """The next id, None for the end."""
        scores_V = scores_V.masked_fill(~constraint.allowed_V(), -torch.inf)
        for _ in range(_TRIES):
            if scores_V.max() == -torch.inf:
                break
            id = pick(scores_V, temperature, chance)
            if id in self._stop_ids:
                return None
            if constraint.fits(id, room - 1):
                return id
            scores_V[id] = -torch.inf
        ending = constraint.shortest_end()
        return int(ending[0]) if ending else None


def pick(scores_V: Tensor, temperature: float, chance: torch.Generator) -> int:
    if temperature == 0:
        return int(scores_V.argmax())
    return int(torch.multinomial((scores_V / temperature).softmax(-1), 1, generator=chance))


def text_of(tokenizer: Vocabulary, ids: Sequence[int]) -> str:
    """What tokens say. Raises UnicodeDecodeError, a ValueError, where that is not UTF-8."""
    return b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8")


@functools.cache
def corpus() -> tuple[Case, ...]:
    return tuple(read_cases(CORPUS))
