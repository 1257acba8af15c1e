"""Opens every body of a store and says which do not open, by their places and without their contents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from plume.errors import PlumeError
from plume.memory.bodies import document_section, messages_section, metadata_section, vectors_section
from plume.memory.records import messages_of
from plume.memory.rows import RawDocument, RawMessage, Rows
from plume.memory.sealing.seal import FORM, KEPT, KeyGone, Section
from plume.memory.store import Store


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk has come: conversations and documents `done` of about `total`, bodies `sealed` by this step of a
    rotation, or found `plain` in a store that is still being sealed."""

    tenant: str
    done: int
    total: int
    sealed: int = 0
    plain: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A body that does not open: where, and why."""

    section: Section
    number: int
    message: str


@dataclass(frozen=True, slots=True)
class _Body:
    """A body as it was read, and a second look at it, None when it is gone."""

    section: Section
    number: int
    name: str
    raw: bytes
    again: Callable[[], bytes | None]


def verify(store: Store) -> Iterator[Walked | Fault]:
    """A fault for each body that is damaged, lies elsewhere than it was sealed for, or whose key is gone."""
    tenants = list(all_tenants(store))
    done, total = 0, sum(store.rows(tenant).size() for tenant in tenants)
    for tenant in tenants:
        for bodies in _entries(store.rows(tenant), tenant):
            plain = 0
            for body in bodies:
                fault = _fault(store, body)
                if fault:
                    yield fault
                elif store.sealing.active and body.raw[:1] != FORM:
                    plain += 1
            done += 1
            yield Walked(tenant, done, max(done, total), plain=plain)


def all_tenants(store: Store) -> Iterator[str]:
    last = None
    while page := store.tenants(after=last):
        last = page[-1]
        yield from (name for name in page if name != KEPT)


def all_messages(rows: Rows, id: str) -> Iterator[RawMessage]:
    last = -1
    while page := rows.messages(id, last):
        last = page[-1].position
        yield from page


def _fault(store: Store, body: _Body) -> Fault | None:
    raw: bytes | None = body.raw
    for look in range(2):
        try:
            if raw is not None:
                _parsed(body.section, store.sealing.open(body.section, [(body.number, body.name, raw)])[0])
            return None
        except KeyGone as error:
            if look:
                return Fault(body.section, body.number, error.message)
            raw = body.again()  # a rotation may have sealed it anew since it was read
        except PlumeError as error:
            return Fault(body.section, body.number, error.message)
    raise AssertionError


def _parsed(section: Section, body: bytes) -> None:
    """Raises PlumeError for what Plume did not write."""
    if section.what == "conversation":
        messages_of([body])
    elif not section.what.startswith("the vectors"):
        try:
            json.loads(body)
        except ValueError:
            raise PlumeError(f"{section}: this is no JSON") from None


def _entries(rows: Rows, tenant: str) -> Iterator[Iterator[_Body]]:
    """The bodies of each conversation and of each document."""
    last: str | None = None
    while page := rows.conversations(last):
        for one in page:
            yield _conversation(rows, tenant, last, one.id, one.user, one.body)
            last = one.id
    behind: tuple[str, str] | None = None
    while documents := rows.documents(behind):
        for document in documents:
            yield iter([_document(rows, tenant, behind, document)])
            behind = document.kind, document.id


def _document(rows: Rows, tenant: str, behind: tuple[str, str] | None, one: RawDocument) -> _Body:
    def again() -> bytes | None:
        found = rows.documents(behind)[:1]
        return found[0].body if found and found[0]._replace(body=one.body) == one else None

    section = document_section(tenant, one.kind, one.id)
    return _Body(section, one.revision, one.user or "", one.body, again)


def _conversation(
    rows: Rows, tenant: str, before: str | None, id: str, user: str | None, body: bytes
) -> Iterator[_Body]:
    def again() -> bytes | None:
        found = rows.conversations(before)[:1]
        return found[0].body if found and found[0].id == id else None

    yield _Body(metadata_section(tenant, id), 0, user or "", body, again)
    for message in all_messages(rows, id):
        yield from _message(rows, tenant, id, message)


def _message(rows: Rows, tenant: str, id: str, message: RawMessage) -> Iterator[_Body]:
    def look() -> RawMessage | None:
        found = rows.messages(id, message.position - 1)
        return found[0] if found and found[0].position == message.position else None

    def body() -> bytes | None:
        found = look()
        return found and found.body

    def vector() -> bytes | None:
        found = look()
        return found and found.vector

    position, name = message.position, message.id
    yield _Body(messages_section(tenant, id), position, name, message.body, body)
    if message.vector is not None:
        yield _Body(vectors_section(tenant, id), position, "", message.vector, vector)
