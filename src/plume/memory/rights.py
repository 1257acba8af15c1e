"""The rights of a person: to have everything that is kept about them, and to have it erased."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

from plume.errors import NotFound, PlumeError, UserError, shown
from plume.memory import audit
from plume.memory.keys import erase_keys, list_keys
from plume.memory.records import json_bytes, message_bytes, messages_of
from plume.memory.store import Conversation, Counts, Document, Store, Tenant, unreserved

FORM = 1  # of an export
_PAGE = 500
_AGAIN = "erase what has been restored, and restore the whole export"
_COUNTED = ("conversation", "message", "document", "key", "audit")

Record = dict[str, Any]
T = TypeVar("T", Conversation, Document)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Of an erasure. `sealed`: a data key was destroyed; `scrubbed`: the database has overwritten what it could of the
    rows; `left` is to be done by who runs it."""

    at: float
    removed: Counts
    keys: int
    sealed: bool
    scrubbed: bool
    left: tuple[str, ...]


def erase(store: Store, tenant: str, user: str | None = None, *, who: str = audit.PROGRAM) -> Receipt:
    """Everything about a person, or everything of the tenant: rows, indexes, API keys, data keys, free pages. May be
    repeated: then there is nothing to remove. The trail tells of it before the free pages are overwritten, for another
    program may hold that up; then the receipt says so. See docs/stores.md for what the logs of a database keep."""
    mine = store.tenant(unreserved(tenant))
    removed = mine.erase(user)
    sealed = store.destroy_keys(tenant, user)
    removed += mine.erase(user)  # what was written meanwhile
    keys = erase_keys(store, tenant) if user is None else 0
    line = audit.record(store, "erase", who=who, tenant=tenant, user=user, keys=keys, **asdict(removed))
    return Receipt(line.at, removed, keys, sealed, *scrub(store))


def scrub(store: Store) -> tuple[bool, tuple[str, ...]]:
    """Has the database overwritten what it could of deleted rows? And what is left to do, so that it does."""
    try:
        return True, store.scrub()
    except PlumeError as error:
        return False, (f"{error.message}; {error.hint}" if error.hint else error.message,)


def export(store: Store, tenant: str, user: str | None = None, *, who: str = audit.PROGRAM) -> Iterator[str]:
    """Everything about a person, or everything of the tenant, as lines of JSON; the last one says how many there are,
    and the hash of their content. What goes on meanwhile is there as it is when its turn comes."""
    mine = store.tenant(unreserved(tenant))
    counts, content = dict.fromkeys(_COUNTED, 0), _Content()
    yield _line({"record": "export", "form": FORM, "tenant": tenant, "user": user, "lifetime": mine.lifetime()})
    try:
        for record in _records(store, mine, user):
            counts[record["record"]] += 1
            content.add(record)
            yield _line(record)
        yield _line({"record": "end", **counts, "content": content.hash()})
    finally:  # whoever stops reading has what was there before
        audit.record(store, "export", who=who, tenant=tenant, user=user, **counts)


def restore(store: Store, lines: Iterable[str], *, who: str = audit.PROGRAM) -> Counts:
    """Write an export into a store that has none of it: the same content, with positions and times of its own. API keys
    and the audit trail stay out, and so does what has expired.

    Raises AlreadyExists for a conversation that is there, UserError for lines that are no export or not all of it, and
    for those of a tenant of Plume's own: whoever wrote them could have made themselves an API key.
    """
    records = map(_parsed, lines)
    head = next(records, {})
    if head.get("record") != "export" or head.get("form") != FORM:
        raise UserError(f"these lines are no export of form {FORM}", "give what `export` gave, from its first line on")
    try:
        mine, user = store.tenant(unreserved(head["tenant"])), head["user"]
        now = audit.record(store, "restore", who=who, tenant=mine.name, user=user).at
        written = _restored(mine, records, now)
        if user is None:
            mine.set_lifetime(head["lifetime"])
        return written
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UserError("the export is not complete, or was changed", _AGAIN) from None


# --- writing it down --------------------------------------------------------------------------------


def _records(store: Store, mine: Tenant, user: str | None) -> Iterator[Record]:
    for one in reversed(list(_all(partial(mine.conversations, user=user)))):  # oldest first, to be made in this order
        yield from _conversation(mine, one)
    for kind in mine.kinds():
        for document in _all(partial(mine.documents, kind, user=user)):
            yield {"record": "document", **asdict(document)}
    for key in list_keys(store, mine.name) if user is None else ():
        yield {"record": "key", **asdict(key)}
    for line in audit.trail(store, mine.name, user):
        yield {"record": "audit", **line._asdict()}


def _all(page: Callable[..., tuple[T, ...]]) -> Iterator[T]:
    """Each once; from the beginning when that is gone behind which the next page would begin."""
    seen: set[str] = set()
    after = None
    while True:
        try:
            found = page(after=after, limit=_PAGE)
        except NotFound:
            after = None
            continue
        if not found:
            return
        yield from (one for one in found if one.id not in seen)
        seen.update(one.id for one in found)
        after = found[-1].id


def _conversation(mine: Tenant, listed: Conversation) -> Iterator[Record]:
    """As much of it as is there when it is read."""
    fields = {name: value for name, value in asdict(listed).items() if name != "items"}
    yield {"record": "conversation", **fields}
    after = -1
    while True:
        try:
            items = mine.read(listed.id, after=after, first=_PAGE).items
        except NotFound:
            return
        for item in items:
            said = json.loads(message_bytes(item.message))
            yield {"record": "message", "conversation": listed.id, **item._asdict(), "message": said}
        if not items:
            return
        after = items[-1].position


def _line(record: Record) -> str:
    return json_bytes(record, "export").decode("utf-8")


# --- reading it back --------------------------------------------------------------------------------


def _parsed(line: str) -> Record:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and "record" in record:
            return record
    except ValueError:
        pass
    raise UserError(f"this line is not of an export: {shown(line)}", "give what `export` gave, from its first line on")


def _restored(mine: Tenant, records: Iterator[Record], now: float) -> Counts:
    content, written, last, made = _Content(), Counts(), {"record": ""}, Counts()
    for kind, group in groupby(map(content.add, records), key=lambda record: record["record"]):
        if kind == "message":
            written += _say(mine, last["id"], group, made)
        else:
            for last in group:
                made = _make(mine, last, now)
                written += made
    if last["record"] != "end" or last["content"] != content.hash():
        raise UserError("the export is not complete, or was changed", _AGAIN)
    return written


def _make(mine: Tenant, record: Record, now: float) -> Counts:
    ends = record.get("expires_at")
    ttl = None if ends is None else ends - now
    if ttl is not None and ttl <= 0:
        return Counts()
    if record["record"] == "conversation":
        mine.create(record["id"], metadata=record["metadata"], ttl=ttl, user=record["user"])
        return Counts(conversations=1)
    if record["record"] == "document":
        mine.put(record["kind"], record["id"], record["body"], at=0, ttl=ttl, user=record["user"])
        return Counts(documents=1)
    return Counts()


def _say(mine: Tenant, conversation: str, records: Iterator[Record], made: Counts) -> Counts:
    """Those of one conversation, a page at a time, if it was made."""
    count = 0
    while page := list(islice(records, _PAGE)):
        messages = messages_of([json_bytes(record["message"], "message") for record in page])
        if made:
            count += len(mine.append(conversation, messages, ids=[record["id"] for record in page]))
    return Counts(messages=count)


class _Content:
    """What does not change when it is written into another store, whatever the order of the conversations there."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def add(self, record: Record) -> Record:
        if record["record"] == "message":
            before = self._digests.pop()  # of the conversation so far
            self._digests.append(_digest(before.hex(), record["id"], record["message"]))
        elif record["record"] == "conversation":
            self._digests.append(_digest(record["id"], record["user"], record["metadata"]))
        elif record["record"] == "document":
            self._digests.append(_digest(record["kind"], record["id"], record["user"], record["body"]))
        return record

    def hash(self) -> str:
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()


def _digest(*values: Any) -> bytes:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()
