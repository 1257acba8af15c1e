"""Keys of persons on Redis, where a writer seals before it knows what there will be when it writes.

So it says what it took the keys and the place for; the script refuses when they are not so any more, and it tries
again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from plume.errors import PlumeError
from plume.memory.bodies import Bodies
from plume.memory.sealing.seal import KEPT, MARK

_SECONDS = 30
_REMEMBERED = 10_000  # persons whose keys, as they lie there, are not asked for again
_BODY = 4  # its place among the fields of a document
_AHEAD, _NBYTES = 32, 2**17  # heads that an append is sealed for at once, and bytes of that


Told: TypeAlias = "str | int | Sequence[str] | Sequence[int]"


class Runs(Protocol):
    """The store, as its tenants need it. `keys` are those of persons that this process knows, by their names."""

    @property
    def keys(self) -> dict[str, bytes]: ...
    def run(self, tenant: str, operation: str, *bodies: bytes, held: Held | None = None, **told: Told) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Held:
    """What who seals takes a document with keys for: nothing is written when it is not so any more."""

    kind: str
    id: str
    body: bytes
    user: str = ""


class Keys:
    """Those of one tenant."""

    def __init__(self, store: Runs, bodies: Bodies) -> None:
        self._store, self._sealing, self._tenant = store, bodies.sealing, bodies.tenant

    def held(self, user: str | None, *, anew: bool = False) -> Held | None:
        """This person's, as far as this process knows; None where nothing is sealed."""
        if not self._sealing.active:
            return None
        name = self._sealing.person(self._tenant, user)
        known = None if anew else self._store.keys.get(name)
        if known is None:
            known = self._stored(name, user)
            if len(self._store.keys) >= _REMEMBERED:
                self._store.keys.clear()
            self._store.keys[name] = known
        return Held(self._tenant, name, known, user or "")

    def _stored(self, name: str, user: str | None) -> bytes:
        """The first keys of a person are made here, under the mark as it is at that moment."""
        for _ in patience():
            word, *rest = self._store.run(KEPT, "get", kind=self._tenant, id=name)
            if word == "ok":
                return bytes(rest[0][_BODY])
            _, *rest = self._store.run(KEPT, "get", kind=MARK[0], id=MARK[1])
            mark = bytes(rest[0][_BODY]) if rest else None
            body = self._sealing.first_keys(self._tenant, user, mark)
            marked, new = Held(*MARK, mark or b""), {"kind": self._tenant, "id": name, "lifetime": "", "user": ""}
            self._store.run(KEPT, "put", body, at=0, **new, held=marked)
        raise AssertionError


def keys_of(held: Held | None) -> bytes:
    return b"" if held is None else held.body


def user_of(held: Held | None) -> str | None:
    return None if held is None else held.user or None


def patience() -> Iterator[None]:
    """Attempts for as long as anybody would wait. Raises PlumeError after that."""
    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        yield
    raise PlumeError(f"other writers were faster for {_SECONDS} s", "nothing was written; try again")


def ahead(width: int, nbytes: int) -> int:
    """For how many heads to seal after losing a race for one of `width`: so nobody loses many."""
    return max(1, min(8 * width, _AHEAD, _NBYTES // max(1, nbytes)))
