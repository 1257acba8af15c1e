"""What is kept comes back as it was, whatever it is and whatever its name."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from plume.errors import AlreadyExists, ConversationChanged, NotFound, UserError
from plume.memory.conformance.examples import HOSTILE, refusal, said
from plume.memory.store import Clock, Store, Tenant, new_id
from plume.types import Message


def test_messages_come_back_as_they_were_and_in_their_order(tenant: Tenant) -> None:
    contents = ["", "Où est le phare ?", "« Là-bas »\r\n\t", *HOSTILE, "long " * 200_000, "\0" * 1000, "🐦" * 250_000]
    messages = [Message("system", "Réponds."), *said(*contents)]
    id = tenant.create().id
    items = tenant.append(id, messages)
    read = tenant.read(id)
    assert read.messages == tuple(messages)
    assert read.items == items
    assert [item.position for item in items] == list(range(len(messages)))
    assert read.head == len(messages)
    assert len({item.id for item in items}) == len(items)
    assert all(tenant.item(id, item.id) == item for item in items[:3])


def test_parts_of_a_conversation_are_read_by_position(tenant: Tenant) -> None:
    id = tenant.create().id
    tenant.append(id, said(*map(str, range(10))))

    def read(**bounds: int) -> list[int]:
        return [item.position for item in tenant.read(id, **bounds).items]

    assert read() == list(range(10))
    assert read(last=3) == [7, 8, 9]
    assert read(first=3) == [0, 1, 2]
    assert read(after=6) == [7, 8, 9]
    assert read(before=2) == [0, 1]
    assert read(after=2, before=8, last=2) == [6, 7]
    assert read(after=2, before=8, first=2) == [3, 4]
    assert read(last=0) == read(first=0) == read(after=9) == read(before=0) == read(after=5, before=3) == []
    assert read(after=-7, before=10**30, last=10**30) == list(range(10))
    assert tenant.read(id, last=0).head == 10
    assert refusal(lambda: tenant.read(id, last=-1))[0] is UserError
    assert refusal(lambda: tenant.read(id, first=1, last=1))[0] is UserError


def test_a_removed_message_leaves_its_place_empty_and_moves_the_head(tenant: Tenant) -> None:
    id = tenant.create().id
    items = tenant.append(id, said("a", "b", "c"))
    assert tenant.remove(id, [items[1].id]).head == 4
    assert tenant.read(id).items == (items[0], items[2])
    assert refusal(lambda: tenant.item(id, items[1].id))[0] is NotFound
    assert refusal(lambda: tenant.remove(id, [items[0].id, items[1].id]))[0] is NotFound
    assert tenant.read(id).items == (items[0], items[2])
    assert refusal(lambda: tenant.append(id, said("d"), at=3))[0] is ConversationChanged
    assert [item.position for item in tenant.append(id, said("d"), at=4)] == [4]
    assert [item.position for item in tenant.read(id, last=2).items] == [2, 4]


def test_reading_passes_over_the_places_of_removed_messages(tenant: Tenant) -> None:
    id = tenant.create().id
    items = tenant.append(id, said(*map(str, range(40))))
    tenant.remove(id, [item.id for item in items if 3 <= item.position < 30])

    def read(**bounds: int) -> list[int]:
        return [item.position for item in tenant.read(id, **bounds).items]

    left = [0, 1, 2, *range(30, 40)]
    assert read() == left
    for count in (0, 1, 2, 5, 12, 40):
        assert read(first=count) == left[:count]
        assert read(last=count) == left[len(left) - min(count, len(left)) :]
        assert read(first=count, after=1) == left[2:][:count]
        assert read(last=count, before=32) == left[:5][max(0, 5 - count) :]
        assert read(last=count, after=2, before=30) == read(first=count, after=40) == []
    assert [item.position for item in tenant.append(id, said("a"))] == [41]
    assert read(last=2) == [39, 41]


def test_metadata_and_bodies_are_json_values(tenant: Tenant) -> None:
    values = {"ville": "Brest", "n": 1, "x": 1.5, "none": None, "list": [1, {"été": "🐦\0"}], "'; --": "$.a", "": True}
    made = tenant.create(metadata=values)
    assert made.metadata == tenant.read(made.id).metadata == values
    assert tenant.update(made.id, {"b": 2}).metadata == tenant.read(made.id).metadata == {"b": 2}
    document = tenant.put("note", "n", [values, "long " * 200_000])
    assert tenant.get("note", "n") == document
    assert document.body[0] == values
    for wrong in (float("nan"), {1, 2}, "\ud800"):
        assert refusal(partial(tenant.put, "note", "n", wrong))[0] is UserError
        assert refusal(partial(tenant.create, metadata={"a": wrong}))[0] is UserError
    assert tenant.get("note", "n") == document


def test_what_is_no_message_is_refused_before_it_can_spoil_a_conversation(tenant: Tenant) -> None:
    id = tenant.create().id
    for wrong in (Message("pirate", "a"), Message("user", None), Message("user", b"a")):  # type: ignore[arg-type]
        assert refusal(partial(tenant.append, id, [*said("a"), wrong]))[0] is UserError
    assert tenant.read(id).head == 0


def test_names_are_kept_apart_whatever_is_in_them(store: Store) -> None:
    names = [name for name in HOSTILE if len(name.encode()) <= 200]
    one, prefix = store.tenant(new_id("tenant")), new_id("t")
    for name in names:
        one.put("kind", name, {name: name}, user=name)
        one.put(name, "id", name)
        one.create(name, user=name, metadata={name: name})
        one.append(name, said(name), ids=[name])
        store.tenant(prefix + name).put("kind", "id", name)
    for name in names:
        assert (one.get("kind", name).body, one.get(name, "id").body) == ({name: name}, name)
        assert one.read(name).metadata == {name: name}
        assert [found.id for found in one.conversations(user=name)] == [name]
        assert [found.id for found in one.documents("kind", user=name)] == [name]
        assert [found.id for found in one.documents(name)] == ["id"]
        assert one.read(name).messages == tuple(said(name))
        assert one.item(name, name).position == 0
        assert store.tenant(prefix + name).get("kind", "id").body == name
    assert {found.id for found in one.conversations()} == {found.id for found in one.documents("kind")} == set(names)
    for name in names:
        one.delete(name)
        one.discard("kind", name)
    assert not one.conversations()
    assert not one.documents("kind")


@pytest.mark.parametrize("name", ["", "a" * 256, "é" * 128, "x" * 2_000_000, "\ud800"])
def test_a_name_that_cannot_be_kept_is_refused_and_never_found(store: Store, tenant: Tenant, name: str) -> None:
    id = tenant.create().id
    refused: list[Callable[[], object]] = [
        lambda: store.tenant(name),
        lambda: tenant.create(name),
        lambda: tenant.append(id, said("a"), ids=[name]),
        lambda: tenant.put("kind", name, 1),
        lambda: tenant.put(name, "id", 1),
    ]
    for call in refused:
        kind, message, _ = refusal(call)
        assert kind is UserError
        assert len(message) < 300
    missing: list[Callable[[], object]] = [
        lambda: tenant.read(name),
        lambda: tenant.item(name, "a"),
        lambda: tenant.item(id, name),
        lambda: tenant.append(name, said("a")),
        lambda: tenant.remove(id, [name]),
        lambda: tenant.update(name, {}),
        lambda: tenant.delete(name),
        lambda: tenant.conversations(after=name),
        lambda: tenant.get("kind", name),
        lambda: tenant.get(name, "id"),
        lambda: tenant.documents("kind", after=name),
        lambda: tenant.discard("kind", name),
    ]
    for call in missing:
        kind, message, _ = refusal(call)
        assert kind is NotFound
        assert len(message) < 300
    assert tenant.documents(name) == ()
    assert tenant.read(id).head == 0


def test_conversations_are_listed_newest_first_in_pages(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    tenant = timed(lambda: now).tenant(new_id("tenant"))
    made = []
    for step in (1, 1, 0, 0, -5, 3):  # equal times are told apart by the id
        now += step
        made.append(tenant.create())
    order = [one.id for one in sorted(made, key=lambda one: (one.created_at, one.id), reverse=True)]
    assert [one.id for one in tenant.conversations()] == order
    pages, after = [], None
    while page := tenant.conversations(after=after, limit=2):
        assert len(page) <= 2
        pages += [one.id for one in page]
        after = pages[-1]
    assert pages == order
    assert tenant.conversations(limit=0) == ()
    assert refusal(lambda: tenant.conversations(limit=-1))[0] is UserError
    for place, one in enumerate(made):
        now += place % 2
        tenant.put("note", one.id, place)
    listed = [one.body for one in tenant.documents("note")]
    assert sorted(listed) == list(range(len(made)))
    assert [one.body for one in tenant.documents("note", after=made[listed[2]].id, limit=2)] == listed[3:5]


def test_what_is_about_a_person_is_found_by_the_person(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    tenant = timed(lambda: now).tenant(new_id("tenant"))
    people = [None, "zoé", "zoe", "*"]
    for turn in range(3):
        for user in people:
            now += turn  # those of the first turn are of one moment
            id = f"{turn}{user}"
            made = tenant.create(id, user=user)
            tenant.append(id, said("a"))
            assert made.user == tenant.read(id).user == tenant.update(id, {}).user == user
            assert tenant.put("note", id, turn, user=user) == tenant.get("note", id)
    everybody = tenant.conversations()
    assert [one.id for one in everybody] == [one.id for one in tenant.documents("note")]
    for user in people[1:]:
        own = [one.id for one in everybody if one.user == user]
        assert len(own) == 3
        assert [one.id for one in tenant.conversations(user=user)] == own
        assert [one.id for one in tenant.documents("note", user=user)] == own
        for place, one in enumerate(everybody):  # a page may begin behind what is about somebody else
            rest = [other.id for other in everybody[place + 1 :] if other.user == user][:2]
            assert [found.id for found in tenant.conversations(user=user, after=one.id, limit=2)] == rest
            assert [found.id for found in tenant.documents("note", user=user, after=one.id, limit=2)] == rest
    assert tenant.put("note", "0zoé", 1).user is None
    tenant.delete("1zoé")
    assert {one.id for one in tenant.conversations(user="zoé")} == {"0zoé", "2zoé"}
    assert {one.id for one in tenant.documents("note", user="zoé")} == {"1zoé", "2zoé"}
    for wrong in ("", "x" * 256, "\ud800"):
        assert refusal(partial(tenant.create, user=wrong))[0] is UserError
        assert refusal(partial(tenant.put, "note", "n", 1, user=wrong))[0] is UserError
        assert not [*tenant.conversations(user=wrong), *tenant.documents("note", user=wrong)]


def test_tenants_and_kinds_are_listed_as_long_as_they_have_anything(store: Store) -> None:
    prefix = new_id("t")
    names = sorted((prefix + name for name in HOSTILE[::2] if len(name.encode()) < 150), key=str.encode)
    for place, name in enumerate(names):
        one = store.tenant(name)
        if place % 2:
            one.create("a")
        else:
            one.put("note", "a", 1)
    store.tenant(new_id("nobody")).conversations()
    found: list[str] = []
    while page := store.tenants(after=found[-1] if found else prefix, limit=7):
        assert len(page) <= 7
        found += page
        if not page[-1].startswith(prefix):
            break
    assert [name for name in found if name.startswith(prefix)] == names
    for place, name in enumerate(names):
        if place % 2:
            store.tenant(name).delete("a")
        else:
            store.tenant(name).discard("note", "a")
    assert not [name for name in store.tenants(after=prefix, limit=50) if name.startswith(prefix)]
    assert store.tenants(limit=0) == ()
    for wrong in ({"limit": -1}, {"after": ""}, {"after": "\ud800"}):
        assert refusal(partial(store.tenants, **wrong))[0] is UserError
    one = store.tenant(new_id("tenant"))
    kinds = sorted((name for name in HOSTILE[1::2] if len(name.encode()) < 150), key=str.encode)
    for kind in kinds:
        one.put(kind, "a", 1)
        one.put(kind, "b", 1)
    assert one.kinds() == tuple(kinds)
    one.discard(kinds[0], "a")
    assert one.kinds() == tuple(kinds)
    one.discard(kinds[0], "b")
    assert one.kinds() == tuple(kinds[1:])


def test_a_deleted_conversation_is_gone_and_its_name_free(tenant: Tenant) -> None:
    tenant.create("lundi", metadata={"a": 1})
    tenant.append("lundi", said("a", "b"), ids=["1", "2"])
    assert refusal(lambda: tenant.create("lundi"))[0] is AlreadyExists
    tenant.delete("lundi")
    assert refusal(lambda: tenant.delete("lundi"))[0] is NotFound
    made = tenant.create("lundi")
    assert (made.head, made.metadata, tenant.read("lundi").items) == (0, {}, ())
    assert tenant.append("lundi", said("c"), at=0, ids=["1"])[0].message.content == "c"


def test_a_hundred_thousand_messages_are_no_slower_to_go_on_with(tenant: Tenant) -> None:
    new, old = tenant.create().id, tenant.create().id
    for place in range(0, 100_000, 5_000):
        tenant.append(old, said(*map(str, range(place, place + 5_000))), at=place)

    def seconds(id: str) -> float:
        began = time.perf_counter()
        head = tenant.append(id, said("encore"), ids=[new_id("msg")])[0].position + 1
        assert len(tenant.read(id, last=20).items) == min(20, head)
        assert tenant.item(id, tenant.read(id, after=head - 2, first=1).items[0].id).position == head - 1
        return time.perf_counter() - began

    taken = {id: sorted(seconds(id) for _ in range(9))[4] for id in (new, old)}
    assert taken[old] < 8 * taken[new] + 0.02
    assert [message.content for message in tenant.read(old, after=99_997, first=2).messages] == ["99998", "99999"]
    assert len(tenant.read(old).items) == 100_009
    tenant.delete(old)
    assert refusal(lambda: tenant.read(old))[0] is NotFound
