"""The mark of a sealed store: which master keys open it, and which of them seals. Each key's proof says the same.

The proof is an HMAC, so a wrong key is told before anything is read or written, and nobody without a key can turn a
sealed store into one that takes plain bodies.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from plume.errors import DocumentChanged, NotFound, UserError
from plume.memory.records import json_bytes
from plume.memory.sealing.master import MasterKey
from plume.memory.sealing.seal import KEPT, MARK, Damaged
from plume.memory.store import Store

State = Literal["sealed", "sealing", "rotating"]
SEAL = "plume conversations rotate-key --seal"


class NotSealed(UserError):
    """A key was given for a store that holds plain bodies."""


@dataclass(frozen=True, slots=True)
class Mark:
    """`proofs` by the ids of the keys that are in use. `sealing`: some bodies are plain yet; `rotating`: some are
    sealed with keys of the rotation before."""

    state: State
    rotation: int
    current: str
    proofs: Mapping[str, str]
    retired: tuple[str, ...] = ()

    def prove(self, masters: Iterable[MasterKey]) -> None:
        """Raises Damaged when a key that the mark names did not write it."""
        for key in masters:
            if key.id in self.proofs and not hmac.compare_digest(self.proofs[key.id], self._proof(key)):
                raise Damaged("the mark of this sealed store was changed", "restore the store from a backup")

    def body(self) -> dict[str, Any]:
        return {**self._said(), "proofs": dict(self.proofs)}

    def _said(self) -> dict[str, Any]:
        retired = list(self.retired)
        return {"form": 1, "state": self.state, "rotation": self.rotation, "current": self.current, "retired": retired}

    def _proof(self, key: MasterKey) -> str:
        said = json_bytes({**self._said(), "keys": sorted(self.proofs)}, "mark")
        return hmac.digest(key.check, said, hashlib.sha256).hex()


def proven(mark: Mark, masters: Sequence[MasterKey]) -> Mark:
    """The mark with a proof by each of these keys, which become the ones in use."""
    named = replace(mark, proofs={key.id: "" for key in masters})
    return replace(named, proofs={key.id: named._proof(key) for key in masters})


def parse_mark(body: Any) -> Mark:
    """Raises UserError for the mark of a newer Plume."""
    try:
        if body["form"] != 1 or body["state"] not in get_args(State) or body["current"] not in body["proofs"]:
            raise ValueError
        retired = tuple(map(str, body["retired"]))
        return Mark(body["state"], int(body["rotation"]), body["current"], dict(body["proofs"]), retired)
    except (LookupError, TypeError, ValueError):
        hint = "open it with the newer Plume: pip install --upgrade plume-lm"
        raise UserError("the store is sealed in a way that this Plume does not know", hint) from None


def state(store: Store) -> State | None:
    """Of a sealed store at this moment; None for one that is not sealed."""
    try:
        return parse_mark(store.tenant(KEPT).get(*MARK).body).state
    except NotFound:
        return None


def new_mark(store: Store, name: str, masters: Sequence[MasterKey]) -> Mark:
    """Marks an empty store as sealed. Raises NotSealed for one that holds plain bodies."""
    if store.tenants(limit=1):
        hint = f"seal what it holds: {SEAL}; or open it without a key"
        raise NotSealed(f"{name}: a key was given, and the store is not sealed", hint)
    mark = proven(Mark("sealed", 1, masters[0].id, {}), masters[:1])
    try:
        store.tenant(KEPT).put(*MARK, mark.body(), at=0)
    except DocumentChanged:  # somebody else was faster
        return parse_mark(store.tenant(KEPT).get(*MARK).body)
    return mark


def check(mark: Mark, name: str, masters: Sequence[MasterKey]) -> None:
    """Raises UserError when these keys do not open the store, or not all of it."""
    given = {key.id for key in masters}
    missing = [id for id in mark.proofs if id not in given]
    if missing == list(mark.proofs):
        retired = sorted(given & set(mark.retired))
        wrong = f"key {retired[0]} was retired" if retired else f"{_keys(sorted(given))} does not open this store"
        raise UserError(f"{name}: {wrong}", f"it is sealed with {_keys(list(mark.proofs))}; nothing was touched")
    if missing:
        hint = "give both, the new one first, until plume conversations rotate-key has come to its end"
        raise UserError(f"{name}: the key is being replaced, and {_keys(missing)} was not given", hint)
    mark.prove(masters)


def _keys(ids: Sequence[str]) -> str:
    return f"key {' and key '.join(ids)}"
