"""Writers that compete and are killed: what the conformance suite and the storm benchmark set on a store.

Each turn is two messages written by one append, named by its writer and number, so that what a store holds afterwards
tells exactly what was lost, doubled, torn apart or put in another order.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from plume.errors import ConversationChanged
from plume.memory import open_store
from plume.memory.sealing.master import MasterKey
from plume.memory.store import Tenant
from plume.types import Message

Turn = tuple[str, int, int]  # conversation, writer, number

_PRELOAD = [
    "plume.memory.storm",
    "plume.memory.sql.store",
    "plume.memory.redis.store",
    "plume.memory.sealing.keyring",
    "alembic.script",
    "psycopg",
    "pymysql",
]


def context() -> SpawnContext | ForkServerContext:
    """Processes that start quickly and share no connection with this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(_PRELOAD)
    return chosen


@contextmanager
def writer(
    url: str, tenant: str, ids: Sequence[str], number: int, count: int, keys: Sequence[MasterKey] = ()
) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that writes `count` turns and says each one, once the store has acknowledged it, on the connection.

    It is killed when it is left, if it still runs.
    """
    here, there = context().Pipe(duplex=False)
    process = context().Process(target=write, args=(url, tenant, list(ids), number, count, there, keys))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        here.close()


def write(
    url: str,
    tenant: str,
    ids: Sequence[str],
    number: int,
    count: int,
    acknowledged: Connection,
    keys: Sequence[MasterKey] = (),
) -> None:
    """Every second turn insists on the head that it has read, and reads again when somebody was faster."""
    chance = random.Random(number)
    with open_store(url, keys=keys) as store:
        mine = store.tenant(tenant)
        for turn in range(count):
            id = chance.choice(ids)
            append_turn(mine, id, number, turn, insists=turn % 2 == 0)
            acknowledged.send((id, number, turn))


def append_turn(tenant: Tenant, id: str, number: int, turn: int, *, insists: bool) -> None:
    messages = [Message("user", f"Où est le phare ? {number}/{turn}"), Message("assistant", f"Ici. {number}/{turn}")]
    names = [f"q-{number}-{turn}", f"a-{number}-{turn}"]
    head = tenant.read(id, last=0).head if insists else None
    while True:
        try:
            tenant.append(id, messages, at=head, ids=names)
            return
        except ConversationChanged as changed:
            head = changed.head


def received(acknowledged: Connection) -> list[Turn]:
    """Everything that was said before the writer ended."""
    turns = []
    try:
        while True:
            turns.append(acknowledged.recv())
    except EOFError:
        return turns


def slow_writer(url: str, tenant: str, id: str, pipe: Connection, keys: Sequence[MasterKey] = ()) -> None:
    """Reads, says so, and writes when it is told to what it would have written at once."""
    with open_store(url, keys=keys) as store:
        mine = store.tenant(tenant)
        head = mine.read(id).head
        pipe.send(head)
        pipe.recv()
        try:
            mine.append(id, [Message("user", "trop tard")], at=head)
            pipe.send("written")
        except ConversationChanged as changed:
            pipe.send(changed.head)


def eraser(url: str, tenant: str, user: str, begun: Connection, keys: Sequence[MasterKey] = ()) -> None:
    """Says when it begins, and erases all that is about a person."""
    with open_store(url, keys=keys) as store:
        begun.send(None)
        store.tenant(tenant).erase(user)


def faults(tenant: Tenant, ids: Sequence[str], acknowledged: Sequence[Turn], *, complete: bool) -> list[str]:
    """What is wrong with what the store holds. `complete`: there must be nothing that was not acknowledged."""
    wrong, found = [], []
    for id in ids:
        conversation = tenant.read(id)
        if [item.position for item in conversation.items] != list(range(conversation.head)):
            wrong.append(f"{id}: positions have gaps")
        names = [item.id for item in conversation.items]
        if [name.replace("q-", "a-") for name in names[::2]] != names[1::2]:
            wrong.append(f"{id}: a turn is torn apart")
        turns = [(id, int(name.split("-")[1]), int(name.split("-")[2])) for name in names[::2]]
        for one in {turn[1] for turn in turns}:
            order = [turn[2] for turn in turns if turn[1] == one]
            if order != sorted(order):
                wrong.append(f"{id}: turns of writer {one} changed places")
        found += turns
    lost = set(acknowledged) - set(found)
    extra = set(found) - set(acknowledged)
    if lost:
        wrong.append(f"lost: {sorted(lost)[:5]}")
    if len(set(found)) != len(found):
        wrong.append("a turn is there twice")
    if complete and extra:
        wrong.append(f"there though it was not acknowledged: {sorted(extra)[:5]}")
    return wrong
