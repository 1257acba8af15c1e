"""Nothing is lost, doubled, torn or put in another order, whoever writes at the same time and is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable

import pytest

from plume.errors import ConversationChanged, DocumentChanged, NotFound, UserError
from plume.memory import storm
from plume.memory.conformance.examples import refusal, said
from plume.memory.sealing.master import MasterKey
from plume.memory.store import Clock, Store, Tenant, new_id
from plume.types import Message


def test_a_stale_append_writes_nothing_and_says_where_the_conversation_is(tenant: Tenant) -> None:
    id = tenant.create().id
    first = tenant.append(id, said("a", "b"), at=0)
    for stale in (0, 1, 3, 10**30):
        with pytest.raises(ConversationChanged) as error:
            tenant.append(id, said("c"), at=stale)
        assert error.value.head == 2
    assert tenant.read(id).items == first
    assert tenant.append(id, [], at=7) == ()
    assert refusal(lambda: tenant.append(id, [*said("c"), Message("user", "\ud800")], at=2))[0] is UserError
    assert tenant.read(id).items == first


def test_a_repeated_append_is_the_same_message(tenant: Tenant) -> None:
    id = tenant.create().id
    first = tenant.append(id, said("a", "b"), at=0, ids=["1", "2"])
    tenant.append(id, said("c"))
    assert tenant.append(id, said("a", "b"), at=0, ids=["1", "2"]) == first
    assert tenant.append(id, said("a", "b"), ids=["1", "2"]) == first
    assert refusal(lambda: tenant.append(id, said("a", "other"), ids=["1", "2"]))[0] is UserError
    assert refusal(lambda: tenant.append(id, said("b", "d"), at=0, ids=["9", "3"]))[0] is ConversationChanged
    partly = tenant.append(id, said("a", "d"), at=3, ids=["1", "4"])
    assert partly[0] == first[0]
    assert partly[1].position == 3
    assert refusal(lambda: tenant.append(id, said("a", "b"), ids=["7", "7"]))[0] is UserError
    assert refusal(lambda: tenant.append(id, said("a", "b"), ids=["7"]))[0] is UserError
    assert [message.content for message in tenant.read(id).messages] == ["a", "b", "c", "d"]
    other = tenant.create().id
    assert tenant.append(other, said("x"), ids=["1"])[0].position == 0


def test_an_append_writes_down_no_more_than_is_new(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store = timed(lambda: now)
    tenant = store.tenant(new_id("tenant"))
    id = tenant.create(user="zoé").id
    first = tenant.append(id, said("a", "b"), ids=["1", "2"])
    before = tenant.read(id)
    now += 1
    assert tenant.append(id, [item.message for item in first[::-1]], ids=["2", "1"]) == first[::-1]
    assert tenant.append(id, []) == tenant.append(id, [], ids=[]) == ()
    assert refusal(lambda: tenant.append(id, said("c", "other"), ids=["3", "2"]))[0] is UserError
    assert refusal(lambda: tenant.append(id, said("c"), at=1))[0] is ConversationChanged
    assert tenant.read(id) == before
    partly = tenant.append(id, said("c", "b", "d"), at=2, ids=["3", "2", "4"])
    assert [(item.position, item.created_at) for item in partly] == [(2, now), (1, now - 1), (3, now)]
    after = tenant.read(id)
    assert (after.head, after.updated_at, after.items) == (4, now, (*first, partly[0], partly[2]))


def test_nothing_is_appended_to_a_conversation_that_has_ended(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store = timed(lambda: now)
    tenant = store.tenant(new_id("tenant"))
    id = tenant.create(ttl=60).id
    tenant.append(id, said("a"), ids=["1"])
    before = tenant.read(id)
    now += 60
    appends: list[Callable[[], object]] = [
        lambda: tenant.append(id, said("b")),
        lambda: tenant.append(id, said("a"), ids=["1"]),
        lambda: tenant.append(id, said("other"), ids=["1"]),
        lambda: tenant.append(id, said("b"), at=7),
        lambda: tenant.append(id, []),
    ]
    assert all(refusal(append)[0] is NotFound for append in appends)
    now -= 60  # a clock that was set back
    assert tenant.read(id) == before


def test_a_document_is_replaced_only_by_who_knows_it(tenant: Tenant) -> None:
    assert refusal(lambda: tenant.put("job", "1", {}, at=1))[0] is DocumentChanged
    first = tenant.put("job", "1", {"state": "new"}, at=0)
    with pytest.raises(DocumentChanged) as error:
        tenant.put("job", "1", {}, at=0)
    assert error.value.revision == first.revision == 1
    second = tenant.put("job", "1", {"state": "done"}, at=1)
    assert (second.revision, second.created_at) == (2, first.created_at)
    assert tenant.put("job", "1", 3).revision == 3
    tenant.discard("job", "1")
    assert refusal(lambda: tenant.get("job", "1"))[0] is NotFound
    assert refusal(lambda: tenant.discard("job", "1"))[0] is NotFound
    assert tenant.put("job", "1", 4, at=0).revision == 1


def test_threads_lose_and_double_nothing(tenant: Tenant) -> None:
    ids = [tenant.create().id for _ in range(2)]
    tenant.put("count", "1", 0)
    acknowledged: list[storm.Turn] = []

    def work(number: int) -> None:
        for turn in range(8):
            id = ids[(number + turn) % 2]
            storm.append_turn(tenant, id, number, turn, insists=turn % 2 == 0)
            acknowledged.append((id, number, turn))
            while True:
                old = tenant.get("count", "1")
                try:
                    tenant.put("count", "1", old.body + 1, at=old.revision)
                    break
                except DocumentChanged:
                    continue

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acknowledged) == 64
    assert storm.faults(tenant, ids, acknowledged, complete=True) == []
    assert (tenant.get("count", "1").body, tenant.get("count", "1").revision) == (64, 65)


def test_processes_lose_and_double_nothing(persistent: str, tenant: Tenant, keys: tuple[MasterKey, ...]) -> None:
    ids = [tenant.create().id for _ in range(3)]
    with contextlib.ExitStack() as stack:
        writers = [storm.writer(persistent, tenant.name, ids, number, 12, keys) for number in range(4)]
        pipes = [stack.enter_context(writer)[1] for writer in writers]
        acknowledged = [turn for pipe in pipes for turn in storm.received(pipe)]
    assert len(acknowledged) == 48
    assert storm.faults(tenant, ids, acknowledged, complete=True) == []


def test_a_killed_writer_leaves_whole_turns_and_all_that_was_acknowledged(
    persistent: str, tenant: Tenant, keys: tuple[MasterKey, ...]
) -> None:
    ids, chance, acknowledged = [tenant.create().id for _ in range(2)], random.Random(0), []
    for number in range(3):
        with storm.writer(persistent, tenant.name, ids, number, 10_000, keys) as (process, pipe):
            acknowledged += [pipe.recv() for _ in range(chance.randrange(1, 9))]
            pipe.poll(chance.uniform(0, 0.02))
            process.kill()
            acknowledged += storm.received(pipe)
    assert storm.faults(tenant, ids, acknowledged, complete=False) == []
    storm.append_turn(tenant, ids[0], 99, 0, insists=True)
    assert tenant.read(ids[0], last=1).items[0].id == "a-99-0"


def test_a_writer_that_was_stopped_meanwhile_is_told(
    persistent: str, tenant: Tenant, keys: tuple[MasterKey, ...]
) -> None:
    id = tenant.create().id
    here, there = storm.context().Pipe()
    process = storm.context().Process(target=storm.slow_writer, args=(persistent, tenant.name, id, there, keys))
    process.start()
    there.close()
    try:
        assert here.recv() == 0
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        tenant.append(id, said("plus vite"), at=0)
        os.kill(process.pid, signal.SIGCONT)
        here.send("go on")
        assert here.recv() == 1
    finally:
        process.kill()
        process.join()
        here.close()
    assert [message.content for message in tenant.read(id).messages] == ["plus vite"]


def test_a_killed_erasure_leaves_whole_conversations_and_is_repeated(
    persistent: str, tenant: Tenant, keys: tuple[MasterKey, ...]
) -> None:
    chance = random.Random(1)
    mine = [tenant.create(user="bob").id for _ in range(3)]
    kept = [tenant.append(id, said("a", "b")) for id in mine]
    for place in range(110):  # more than one transaction
        tenant.append(tenant.create(user="zoé").id, said(*map(str, range(5))))
        if place % 3 == 0:
            tenant.put("note", str(place), place, user="zoé")
    for _ in range(3):
        here, there = storm.context().Pipe(duplex=False)
        process = storm.context().Process(target=storm.eraser, args=(persistent, tenant.name, "zoé", there, keys))
        process.start()
        there.close()
        here.recv()
        here.poll(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        here.close()
        for one in tenant.conversations(user="zoé", limit=500):
            with contextlib.suppress(NotFound):  # a server may still be ending what the killed program had begun
                assert (one.head, len(tenant.read(one.id).items)) == (5, 5)
    tenant.erase("zoé")
    assert not tenant.erase("zoé")
    assert {one.id for one in tenant.conversations()} == set(mine)
    assert [tenant.read(id).items for id in mine] == kept
    assert not tenant.documents("note")
