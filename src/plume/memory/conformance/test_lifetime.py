"""What ends, and when: lifetimes, the sweep, export, erasure, and the trail of all that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import pytest

from plume.errors import AlreadyExists, NotFound, UserError
from plume.memory import audit, open_store
from plume.memory.conformance.examples import HOSTILE, refusal, said
from plume.memory.keys import create_key, find_key, list_keys, revoke_key
from plume.memory.lifetime import set_lifetime, sweep
from plume.memory.rights import Receipt, erase, export, restore
from plume.memory.store import VAULT, Clock, Counts, Store, Tenant, new_id


def test_a_tenant_says_how_long_its_conversations_live(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store = timed(lambda: now)
    tenant, other = store.tenant(new_id("tenant")), store.tenant(new_id("tenant"))
    before = tenant.create()
    assert tenant.lifetime() is None
    set_lifetime(store, tenant.name, 60)
    assert (tenant.lifetime(), other.lifetime()) == (60, None)
    made, own = tenant.create(), tenant.create(ttl=1000)
    assert (before.expires_at, made.expires_at, own.expires_at) == (None, now + 60, now + 1000)
    assert (other.create().expires_at, tenant.put("note", "n", 1).expires_at) == (None, None)
    now += 30
    tenant.append(made.id, said("a"))
    assert tenant.read(made.id).expires_at == made.expires_at
    now += 30
    assert refusal(lambda: tenant.read(made.id))[0] is NotFound
    assert tenant.create(made.id).expires_at == now + 60
    for wrong in (0, -1, float("nan"), float("inf")):
        assert refusal(partial(tenant.set_lifetime, wrong))[0] is UserError
    assert tenant.lifetime() == 60
    tenant.set_lifetime(None)
    assert tenant.lifetime() is tenant.create().expires_at is None


# --- the sweep --------------------------------------------------------------------------------------


def test_the_sweep_removes_what_has_expired_and_nothing_else(timed: Callable[[Clock], Store]) -> None:
    now = 1e6  # long before anything that others keep in this store
    store = timed(lambda: now)
    tenant = store.tenant(new_id("tenant"))
    for place in range(5):
        id = tenant.create(f"c{place}", ttl=60, user="zoé").id
        tenant.append(id, said("a", "b"))
        tenant.put("note", str(place), place, ttl=60, user="zoé")
        tenant.put("a/b:c", str(place), place, ttl=60)
    kept = [tenant.create(ttl=61).id, tenant.create().id]
    tenant.put("note", "kept", 1, ttl=60)
    tenant.put("note", "kept", 2)
    now += 59
    assert not sweep(store)
    now += 1
    tenant.create("c0")  # an ended name that is used again is not swept
    swept = [sweep(store, limit=3) for _ in range(5)]
    assert all(one.conversations + one.documents == 3 for one in swept[:4])
    assert sum(swept, start=Counts()) == Counts(conversations=4, messages=8, documents=10)
    assert not sweep(store)
    assert {one.id for one in tenant.conversations()} == {*kept, "c0"}
    assert [one.id for one in tenant.documents("note")] == ["kept"]
    assert (tenant.kinds(), tenant.conversations(user="zoé")) == (("note",), ())
    assert refusal(lambda: tenant.item("c1", "a"))[0] is NotFound
    now -= 60  # a clock that was set back brings nothing back
    assert {one.id for one in tenant.conversations()} == {*kept, "c0"}
    assert refusal(lambda: sweep(store, limit=-1))[0] is UserError


def test_several_sweeps_at_once_remove_each_thing_once(timed: Callable[[Clock], Store], url: str) -> None:
    now = 1e5  # before the other sweep
    stores = [timed(lambda: now)] if url.startswith("memory:") else [timed(lambda: now) for _ in range(3)]
    tenant = stores[0].tenant(new_id("tenant"))
    for place in range(25):
        id = tenant.create(ttl=1).id
        tenant.append(id, said("a", "b"))
        tenant.put("note", str(place), place, ttl=1)
    alive = tenant.create().id
    now += 1
    found: list[Counts] = []

    def work(store: Store) -> None:
        idle = 0
        while idle < 3:  # what another one holds is passed over
            swept = store.sweep(7)
            found.append(swept)
            idle = 0 if swept else idle + 1

    threads = [threading.Thread(target=work, args=(stores[n % len(stores)],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):  # writers go on meanwhile
        tenant.append(alive, said("a"))
    for thread in threads:
        thread.join()
    while left := stores[0].sweep():
        found.append(left)
    assert sum(found, start=Counts()) == Counts(25, 50, 25)
    assert len(tenant.read(alive).items) == 10


def test_a_vault_goes_with_its_conversation_whatever_ends_it(timed: Callable[[Clock], Store]) -> None:
    now = 1e4  # before the other sweeps
    store = timed(lambda: now)
    tenant, other = store.tenant(new_id("tenant")), store.tenant(new_id("tenant"))

    def told(id: str, ttl: float | None = None) -> str:
        tenant.create(id, ttl=ttl, user="zoé")
        for one in (tenant, other):
            one.put(VAULT, id, {"sealed": id})  # neither its end nor its person is given
        tenant.put("note", id, "stays")
        return id

    def vaults(whose: Tenant) -> set[str]:
        return {one.id for one in whose.documents(VAULT)}

    told("kept")
    tenant.delete(told("deleted"))
    assert vaults(tenant) == {"kept"}
    for id in ("again", "swept"):
        told(id, ttl=1)
    now += 1
    tenant.create("again")
    assert vaults(tenant) == {"kept", "swept"}
    assert sweep(store) == Counts(conversations=1, documents=1)
    assert not sweep(store)
    assert vaults(tenant) == {"kept"}
    tenant.put(VAULT, "of no conversation", 1)
    assert tenant.erase("zoé") == Counts(conversations=1, documents=1)
    assert vaults(tenant) == {"of no conversation"}
    everybody = {"kept", "deleted", "again", "swept"}
    assert {one.id for one in tenant.documents("note")} == vaults(other) == everybody


def test_a_sweep_of_few_ends_though_vaults_go_with_them(timed: Callable[[Clock], Store]) -> None:
    now = 1e3  # before the other sweeps
    store = timed(lambda: now)
    tenants = [store.tenant(new_id("tenant")) for _ in range(2)]
    for tenant in tenants:
        for place in range(4):
            tenant.put(VAULT, tenant.create(str(place), ttl=1).id, 1, ttl=1)
    now += 1
    swept = [store.sweep(1) for _ in range(8)]
    assert all(one in (Counts(1, 0, 1), Counts(0, 0, 1), Counts(1, 0, 0)) for one in swept)
    while left := store.sweep(1):
        swept.append(left)
    assert sum(swept, start=Counts()) == Counts(8, 0, 8)


# --- export -----------------------------------------------------------------------------------------


def fill(tenant: Tenant, user: str | None) -> None:
    for turn in range(3):
        id = tenant.create(
            f"{user} {turn}", metadata={"n": turn, "été": "🐦"}, user=user, ttl=[None, 1000][turn % 2]
        ).id
        items = tenant.append(id, said(*HOSTILE))
        tenant.remove(id, [items[turn].id])
        tenant.put("response", f"{user} {turn}", {"turn": turn, "of": user}, user=user)
        tenant.put("note", f"{user} {turn}", [turn], user=user, ttl=1000)


def test_an_export_has_everything_and_is_restored_with_the_same_content(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store, empty = timed(lambda: now), open_store("memory:", clock=lambda: now)
    tenant = store.tenant(new_id("tenant"))
    for user in (None, "zoé", "bob"):
        fill(tenant, user)
    tenant.set_lifetime(5000)
    text, key = create_key(store, tenant.name, name="clé")
    tenant.create("over", ttl=1)
    now += 1
    lines = list(export(store, tenant.name))
    records = [json.loads(line) for line in lines]
    kinds = [record["record"] for record in records]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "export": 1,
        "conversation": 9,
        "message": 9 * (len(HOSTILE) - 1),
        "document": 18,
        "key": 1,
        "audit": 1,
        "end": 1,
    }
    assert key.prefix in "".join(lines)
    assert text.split("-", 2)[2] not in "".join(lines)
    written = restore(empty, lines)
    assert written == Counts(9, 9 * (len(HOSTILE) - 1), 18)
    again = [json.loads(line) for line in export(empty, tenant.name)]
    assert again[-1]["content"] == records[-1]["content"]
    there = empty.tenant(tenant.name)
    assert there.lifetime() == 5000
    for one in tenant.conversations():
        copy = there.read(one.id)
        assert (copy.messages, copy.user, copy.expires_at) == (tenant.read(one.id).messages, one.user, one.expires_at)
    assert refusal(lambda: restore(empty, lines))[0] is AlreadyExists
    other = open_store("memory:", clock=lambda: now + 1000)
    assert restore(other, lines) == Counts(6, 6 * (len(HOSTILE) - 1), 9)  # the rest has expired


def test_an_export_of_a_person_is_theirs_alone(store: Store) -> None:
    tenant = store.tenant(new_id("tenant"))
    for user in (None, "zoé", "bob"):
        fill(tenant, user)
    create_key(store, tenant.name)
    lines = list(export(store, tenant.name, "zoé"))
    assert "bob" not in "".join(lines)
    assert "None" not in "".join(lines)
    end = json.loads(lines[-1])
    assert (end["conversation"], end["document"], end["key"]) == (3, 6, 0)
    with open_store("memory:") as empty:
        restore(empty, lines)
        assert json.loads(list(export(empty, tenant.name, "zoé"))[-1])["content"] == end["content"]
    nobody = [json.loads(line)["record"] for line in export(store, tenant.name, "nobody")]
    assert nobody == ["export", "end"]


def test_an_export_that_is_not_whole_is_refused(store: Store) -> None:
    tenant = store.tenant(new_id("tenant"))
    fill(tenant, None)
    lines = list(export(store, tenant.name))
    place = next(number for number, line in enumerate(lines) if '"record":"message"' in line)
    for wrong in (
        [],
        lines[1:],
        lines[:-1],
        [*lines[:place], *lines[place + 1 :]],
        [line.replace('"content":"%"', '"content":"$"') for line in lines],
        ["{}"],
        ["["],
        [lines[0], lines[place], lines[-1]],
        [lines[0], '{"record":"conversation"}'],
        ['{"record":"export","form":1}'],
        ['{"record":"export","form":2,"tenant":"a","user":null,"lifetime":null}'],
    ):
        with open_store("memory:") as empty:
            assert refusal(partial(restore, empty, wrong))[0] is UserError


def test_what_is_of_plume_itself_is_nobody_s_data(store: Store) -> None:
    """An export of the keys, written by oneself, would otherwise be an API key for any tenant."""
    with open_store("memory:") as forger:
        text, key = create_key(forger, new_id("tenant"), scopes=["admin"])
        document = forger.tenant("plume:keys").get("api_key", key.prefix)
    head = {"record": "export", "form": 1, "tenant": "plume:keys", "user": None, "lifetime": None}
    forged = [json.dumps(head), json.dumps({"record": "document", **asdict(document)})]
    for call in (
        partial(restore, store, forged),
        partial(set_lifetime, store, "plume:keys", 60),
        lambda: list(export(store, "plume:audit")),
        partial(erase, store, "plume:keys"),
        partial(create_key, store, "plume:keys"),
    ):
        kind, message, _ = refusal(call)
        assert (kind, "Plume's own" in message) == (UserError, True)
    assert find_key(store, text) is None
    assert store.tenant("plume:keys").lifetime() is None


# --- erasure ----------------------------------------------------------------------------------------


def everything(tenant: Tenant) -> list[object]:
    found: list[object] = [tenant.read(one.id) for one in tenant.conversations()]
    for kind in tenant.kinds():
        found += tenant.documents(kind)
    return found


def test_an_erased_person_is_gone_and_nobody_else(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store = timed(lambda: now)
    tenant, other = store.tenant(new_id("tenant")), store.tenant(new_id("tenant"))
    for one in (tenant, other):
        for user in ("bob", None):
            fill(one, user)
    before, elsewhere = everything(tenant), everything(other)
    fill(tenant, "zoé")
    tenant.create("over", ttl=1, user="zoé")
    tenant.put("only hers", "n", 1, ttl=1, user="zoé")
    now += 1  # what has expired is erased, too
    receipt = erase(store, tenant.name, "zoé")
    assert receipt.removed == Counts(4, 3 * (len(HOSTILE) - 1), 7)
    assert (receipt.at, receipt.keys) == (now, 0)
    assert (everything(tenant), everything(other)) == (before, elsewhere)
    assert not [*tenant.conversations(user="zoé"), *tenant.documents("note", user="zoé")]
    assert "only hers" not in tenant.kinds()
    again = erase(store, tenant.name, "zoé")
    assert again == Receipt(now, Counts(), 0, False, True, receipt.left)
    assert erase(store, tenant.name, "nobody").removed == erase(store, new_id("nobody")).removed == Counts()
    assert (everything(tenant), everything(other)) == (before, elsewhere)


def test_an_erased_tenant_is_gone_with_its_keys(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store = timed(lambda: now)
    tenant, other = store.tenant(new_id("tenant")), store.tenant(new_id("tenant"))
    for one in (tenant, other):
        fill(one, "zoé")
        fill(one, None)
    tenant.set_lifetime(60)
    text, _ = create_key(store, tenant.name)
    _, ended = create_key(store, tenant.name, ttl=1)
    revoke_key(store, create_key(store, tenant.name)[1].prefix)
    kept, _ = create_key(store, other.name)
    old = store.tenant("plume:keys").get("api_key", ended.prefix)
    now += 1
    elsewhere = everything(other)
    receipt = erase(store, tenant.name)
    assert (receipt.removed, receipt.keys) == (Counts(6, 6 * (len(HOSTILE) - 1), 12), 3)
    assert (everything(tenant), tenant.kinds(), tenant.lifetime(), list_keys(store, tenant.name)) == ([], (), None, ())
    assert tenant.name not in store.tenants(after=tenant.name[:-1])
    assert find_key(store, text) is None
    assert find_key(store, kept) is not None
    assert everything(other) == elsewhere
    assert erase(store, tenant.name).removed == Counts()
    store.tenant("plume:keys").put("api_key", ended.prefix, old.body)  # as an older Plume wrote it
    assert erase(store, tenant.name).keys == 1
    assert refusal(lambda: erase(store, "plume:keys"))[0] is UserError


# --- the trail --------------------------------------------------------------------------------------


def test_the_trail_says_who_did_what_and_no_name(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store, name = timed(lambda: now), new_id("tenant")
    fill(store.tenant(name), "zoé")
    _, key = create_key(store, name, who="command line")
    revoke_key(store, key.prefix, who=key.prefix)
    set_lifetime(store, name, 60)
    list(export(store, name, "zoé"))
    erase(store, name, "zoé", who="command line")
    now += 2000
    sweep(store)
    lines = list(audit.trail(store, name))
    assert [line.entry["what"] for line in lines] == ["create_key", "revoke_key", "set_lifetime", "export", "erase"]
    assert [line.entry["who"] for line in lines] == ["command line", key.prefix, "program", "program", "command line"]
    assert [line.entry["what"] for line in audit.trail(store, name, "zoé")] == ["export", "erase"]
    assert list(audit.trail(store, name, "bob")) == list(audit.trail(store, new_id("tenant"))) == []
    assert (lines[-1].entry["conversations"], lines[-1].entry["messages"], lines[-1].at) == (
        3,
        3 * (len(HOSTILE) - 1),
        1e9,
    )
    told = str(lines)
    assert name not in told
    assert "zoé" not in told


def test_nothing_changes_a_line_of_the_trail(store: Store) -> None:
    first = store.note({"what": "a", "été": "🐦\0"})
    second = store.note({"what": "b"})
    assert first.number < second.number
    for name in ("plume:audit", "plume:keys", new_id("tenant")):
        store.tenant(name).erase("nobody")
    store.sweep()
    store.scrub()
    assert store.trail(after=first.number - 1)[:2] == (first, second)
    assert store.trail(after=first.number, limit=1) == (second,)
    assert store.trail(limit=0) == ()
    assert refusal(lambda: store.trail(limit=-1))[0] is UserError
    assert refusal(lambda: store.note({"a": {1}}))[0] is UserError


@pytest.mark.parametrize("threads", [4])
def test_lines_written_at_once_are_all_there(store: Store, threads: int) -> None:
    mark = new_id("mark")
    writers = [
        threading.Thread(target=audit.record, args=(store, "verify"), kwargs={"who": mark}) for _ in range(threads)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [line for line in audit.trail(store) if line.entry.get("who") == mark]
    assert len({line.number for line in lines}) == len(lines) == threads
