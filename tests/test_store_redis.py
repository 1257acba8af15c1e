"""The store on Redis where it is unlike the others: older forms, access lists, lists with holes, full memory."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import servers
from plume.errors import PlumeError, UserError
from plume.memory import open_store
from plume.memory.conformance.examples import refusal, said
from plume.memory.redis.store import RedisStore
from plume.memory.sealing.master import master_key
from plume.memory.sealing.rotation import rotate
from plume.memory.sealing.verify import Fault, verify
from plume.memory.store import Counts, Store
from stores import SERVERS, check_first_form

KEY, OTHER = (master_key(secrets.token_bytes(32)) for _ in range(2))


@pytest.fixture
def url() -> Iterator[str]:
    """A server of its own, with nothing on it."""
    with servers.redis() as port:
        yield SERVERS["redis"][1].format(port)


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url) as client:
        yield client


def test_keys_of_the_first_form_are_brought_up_to_date_without_loss() -> None:
    body = '{"v":1,"role":"user","content":"Où ?"}'
    with servers.redis() as port:
        url = SERVERS["redis"][1].format(port)
        times = {"created_at": 5000000, "updated_at": 6000000}
        with redis.Redis.from_url(url) as client:
            client.set("plume:form", 1)
            for id, ends in (("b", ""), ("c", 7000000)):
                head = {"head": int(id == "b"), **times, "expires_at": ends, "body": "{}"}
                client.hset(f"plume:{{a}}:conversation:{id}", mapping=head)
                client.zadd("plume:{a}:conversations", {id: 5000000})
            client.xadd("plume:{a}:messages:b", {"id": "m", "at": 6000000, "body": body}, id="0-1")
            client.hset("plume:{a}:positions:b", "m", "0")
            note = {"revision": 3, **times, "expires_at": "", "body": "[1]"}
            client.hset("plume:{d}:document:note:n", mapping=note)
            client.zadd("plume:{d}:documents:note", {"n": 5000000})
        for _ in range(2):
            with open_store(url) as store:
                check_first_form(store)
        with redis.Redis.from_url(url) as client:
            assert client.get("plume:form") == b"3"
            assert client.zrange("plume:{a}:ends", 0, -1, withscores=True) == [(b"cc", 7000000.0)]


def test_messages_of_the_second_form_keep_positions_and_gaps() -> None:
    times = {"created_at": 5000000, "updated_at": 6000000}
    with servers.redis() as port:
        url = SERVERS["redis"][1].format(port)
        with open_store(url) as store:  # makes the lists of tenants and conversations
            tenant = store.tenant("é:{}%")
            for id in ("gaps", "bare", "ended"):
                tenant.create(id)
        root = "plume:{%C3%A9%3A%7B%7D%25}"
        with redis.Redis.from_url(url) as client:
            for id, head in (("gaps", 5), ("bare", 2), ("ended", 1)):
                client.hset(f"{root}:conversation:{id}", mapping={"head": head, **times})
            for place in (1, 3):
                body = json.dumps({"v": 1, "role": "user", "content": f"n° {place}\x00"})
                client.xadd(f"{root}:messages:gaps", {"id": f"m {place}", "at": 6000000, "body": body}, id=f"{place}-1")
                client.hset(f"{root}:positions:gaps", f"m {place}", place)
            client.hset(f"{root}:conversation:ended", "expires_at", 7000000)
            client.zadd(f"{root}:ends", {"cended": 7000000})
            client.set("plume:form", 2)
        with open_store(url) as store:
            tenant = store.tenant("é:{}%")
            read = tenant.read("gaps")
            found = [(item.id, item.position, item.message.content) for item in read.items]
            assert (found, read.head) == ([("m 1", 1, "n° 1\x00"), ("m 3", 3, "n° 3\x00")], 5)
            assert [item.position for item in tenant.read("gaps", last=1).items] == [3]
            assert [item.position for item in tenant.append("gaps", said("a"))] == [5]
            assert tenant.item("gaps", "m 3").position == 3
            assert [item.position for item in tenant.append("bare", said("b"), at=2)] == [2]
            assert store.sweep() == Counts(conversations=1)


def test_an_entry_of_the_first_form_without_its_conversation_stops_nobody(url: str, client: Any) -> None:
    client.set("plume:form", 1)
    client.zadd("plume:{a}:conversations", {"gone": 5000000})
    client.zadd("plume:{a}:documents:note", {"gone": 5000000})
    with open_store(url) as store:
        assert store.tenant("a").conversations() == ()
        assert store.tenant("a").documents("note") == ()


def test_a_long_stream_becomes_a_list_in_steps_that_a_kill_may_interrupt(url: str, client: Any) -> None:
    with open_store(url) as store:
        store.tenant("a").create("long")
    for place in range(2500):
        if place != 1700:
            body = json.dumps({"v": 1, "role": "user", "content": str(place)})
            client.xadd("plume:{a}:messages:long", {"id": f"m{place}", "at": 6000000, "body": body}, id=f"{place}-1")
            client.hset("plume:{a}:positions:long", f"m{place}", place)
    client.hset("plume:{a}:conversation:long", "head", 2501)
    with RedisStore(url) as killed:  # in the middle of its work
        assert killed.run("a", "adopt_messages", id="long", limit=1000) == ["more"]
    client.set("plume:form", 2)
    with open_store(url) as store:
        read = store.tenant("a").read("long")
        places = [place for place in range(2500) if place != 1700]
        assert [(item.position, item.id) for item in read.items] == [(place, f"m{place}") for place in places]
        assert [item.position for item in store.tenant("a").append("long", said("a"), at=2501)] == [2501]
    assert client.exists("plume:{a}:messages:long:list") == 0


def test_an_access_list_for_one_tenant_is_enough(url: str, client: Any) -> None:
    with open_store(url) as store:
        store.tenant("other").create("x")
    patterns = ("~plume:{a}:*", "~plume:{plume%3Asealing}:*", "~plume:form", "~plume:tenants")
    client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "+@all", "-@dangerous", *patterns)
    limited = f"redis://limited:pw@{url.rpartition('@')[2]}"
    with open_store(limited) as store:
        mine = store.tenant("a")
        id = mine.create(user="zoé").id
        mine.append(id, said("a"))
        assert mine.read(id).messages == tuple(said("a"))
        assert mine.erase("zoé") == Counts(conversations=1, messages=1)
        for call in (lambda: store.tenant("other").read("x"), lambda: store.tenant("other").create("y")):
            assert refusal(call)[0] is PlumeError
    client.set("plume:form", 2)
    kind, message, hint = refusal(lambda: open_store(limited))
    assert (kind, "older form" in message, "all keys" in str(hint)) == (UserError, True, True)
    assert client.get("plume:form") == b"2"


@pytest.mark.parametrize(
    "options", [{"first": 1}, {"last": 1}, {"first": 3, "after": 4}, {"last": 2, "before": 19_000}]
)
def test_many_holes_cost_few_steps(url: str, client: Any, options: dict[str, int]) -> None:
    with open_store(url) as store:
        mine = store.tenant("a")
        id = mine.create().id
        items = mine.append(id, said(*map(str, range(20_000))))
        left = [0, 1, 9_000, 9_001, 19_500]
        mine.remove(id, [item.id for item in items if item.position not in left])
        client.config_resetstat()
        found = [item.position for item in mine.read(id, **options).items]
        assert client.info("commandstats")["cmdstat_lrange"]["calls"] < 25
    wanted = [place for place in left if options.get("after", -1) < place < options.get("before", 20_000)]
    count = options.get("first", -options.get("last", 0))
    assert found == (wanted[:count] if count > 0 else wanted[count:])


def test_what_somebody_else_did_to_a_list_is_told_and_not_built_upon(url: str, client: Any) -> None:
    with open_store(url, keys=[KEY]) as store:
        mine = store.tenant("a")
        items = mine.append(mine.create("b").id, said("a", "b", "c"))
        client.lpop("plume:{a}:messages:b")
        before = client.lrange("plume:{a}:messages:b", 0, -1)
        for call in (lambda: mine.append("b", said("d")), lambda: mine.remove("b", [items[1].id])):
            kind, message, hint = refusal(call)
            assert (kind, "not as many messages" in message, "backup" in str(hint)) == (PlumeError, True, True)
        assert client.lrange("plume:{a}:messages:b", 0, -1) == before
        assert [step.number for step in verify(store) if isinstance(step, Fault)] == [0, 1]
        mine.delete("b")


def test_an_entry_that_plume_has_not_written_is_named_without_a_traceback(url: str, client: Any) -> None:
    with open_store(url) as store:
        mine = store.tenant("a")
        mine.append(mine.create("b").id, said("a", "b"), ids=["1", "2"])
        client.lset("plume:{a}:messages:b", 1, "rubbish")
        calls = (lambda: mine.read("b"), lambda: mine.item("b", "2"), lambda: mine.append("b", said("b"), ids=["2"]))
        for call in calls:
            kind, message, hint = refusal(call)
            assert (kind, "damaged" in message, "backup" in str(hint)) == (PlumeError, True, True)
        assert mine.read("b", first=1).messages == tuple(said("a"))


@pytest.mark.parametrize("database", ["x", "0/1", "-1"])
def test_a_database_that_is_no_number_is_not_taken_for_the_first(url: str, client: Any, database: str) -> None:
    kind, message, hint = refusal(lambda: open_store(f"{url.removesuffix('/0')}/{database}"))
    assert (kind, "names no database" in message, "/0" in str(hint)) == (UserError, True, True)
    assert client.keys() == []


def test_messages_can_be_taken_out_when_memory_is_full(url: str, client: Any) -> None:
    with open_store(url) as store:
        mine = store.tenant("a")
        items = mine.append(mine.create("b").id, said("a", "b"))
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        assert refusal(lambda: mine.append("b", said("c")))[0] is PlumeError
        assert mine.remove("b", [items[0].id]).head == 3
        assert mine.read("b").items == items[1:]


def test_what_was_written_before_1970_is_sealed_anew_too(url: str) -> None:
    with open_store(url, keys=[KEY], clock=lambda: -5.0) as store:
        mine = store.tenant("a")
        mine.append(mine.create("b").id, said("a"))
    with open_store(url, keys=[OTHER, KEY]) as store:
        list(rotate(store, url, [OTHER, KEY]))
    with open_store(url, keys=[OTHER], clock=lambda: -5.0) as store:
        assert store.tenant("a").read("b").messages == tuple(said("a"))


def test_a_server_that_has_gone_is_told_whatever_is_asked() -> None:
    with contextlib.ExitStack() as stack:
        with servers.redis() as port:
            store: Store = stack.enter_context(open_store(SERVERS["redis"][1].format(port)))
        assert refusal(store.durability)[0] is PlumeError
        assert refusal(lambda: store.tenant("a").vectors("b"))[0] is PlumeError
