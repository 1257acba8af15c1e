"""What is one tenant's is nobody else's; what has expired is nobody's; a key opens what it was made for."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from plume.errors import DocumentChanged, NotFound, PlumeError, UserError
from plume.memory import open_store
from plume.memory.conformance.examples import refusal, said
from plume.memory.keys import create_key, find_key, list_keys, revoke_key
from plume.memory.sealing.master import MasterKey
from plume.memory.store import Clock, Conversation, Document, Store, Tenant, new_id


def calls(tenant: Tenant, id: str, item: str) -> dict[str, Callable[[], object]]:
    """Every call of the protocol, with the fewest arguments and with each of the others, naming these."""
    values: dict[str, Any] = {
        "id": id,
        "item": item,
        "items": [item],
        "ids": [item],
        "after": id,
        "messages": said("a"),
        "metadata": {"a": 1},
        "kind": "note",
        "body": 1,
        "user": "zoé",
        "ttl": 60.0,
        "at": 7,
        "limit": 10,
        "first": 2,
        "last": 2,
        "before": 3,
        "conversation": Conversation(id, 0, 0, 0),
        "vectors": {0: b"raw"},
    }
    positions = {"read": {"after": 1}, "vectors": {"after": 1}}  # where a name means something else
    made: dict[str, Callable[[], object]] = {}
    for name, member in inspect.getmembers(Tenant, callable):
        if name.startswith("_"):
            continue
        known = {**values, **positions.get(name, {})}
        parameters = list(inspect.signature(member).parameters.values())[1:]
        fewest = {one.name: known[one.name] for one in parameters if one.default is one.empty or one.name == "id"}
        made[name] = partial(getattr(tenant, name), **fewest)
        for one in parameters:
            if one.name not in fewest:
                made[f"{name} {one.name}"] = partial(getattr(tenant, name), **fewest, **{one.name: known[one.name]})
    return made


def answer(call: Callable[[], object]) -> object:
    try:
        return call()
    except PlumeError as error:
        return type(error), error.message, error.hint


def test_no_call_tells_whether_another_tenant_has_something(timed: Callable[[Clock], Store]) -> None:
    """What is answered where somebody else has that id is what is answered where nobody has, byte for byte."""
    store = timed(lambda: 1e9)
    owner, id, item = store.tenant(new_id("owner")), new_id("conv"), new_id("msg")

    def answers() -> dict[str, object]:
        names = calls(owner, id, item)
        return {name: answer(calls(store.tenant(new_id("other")), id, item)[name]) for name in names}

    before = answers()
    owner.create(id, metadata={"secret": 1}, user="zoé")
    kept = owner.append(id, said("secret"), ids=[item])
    owner.put("note", id, "secret", user="zoé")
    owner.set_lifetime(1000)
    assert answers() == before
    refused = {name.partition(" ")[0]: told[0] for name, told in before.items() if isinstance(told, tuple) and told}
    assert refused.pop("put") is DocumentChanged
    assert set(refused.values()) == {NotFound}
    assert set(refused) == READ_OR_CHANGE
    assert (owner.read(id).items, owner.get("note", id).body, owner.lifetime()) == (kept, "secret", 1000)


READ_OR_CHANGE = {
    *("read", "item", "append", "remove", "update", "conversations", "delete", "get", "documents", "discard"),
    *("index", "vectors"),
}


def test_the_same_names_are_different_things_for_each_tenant(store: Store) -> None:
    owner, other = store.tenant(new_id("owner")), store.tenant(new_id("other"))
    id, item = new_id("conv"), new_id("msg")
    owner.create(id)
    kept = owner.append(id, said("secret"), ids=[item])
    owner.put("note", id, "secret")
    assert not other.conversations()
    assert not other.documents("note")
    other.create(id)
    assert other.put("note", id, "mine", at=0).revision == 1
    assert refusal(lambda: other.item(id, item))[0] is NotFound
    other.append(id, said("mine"), ids=[item])
    other.delete(id)
    other.discard("note", id)
    other.erase()
    assert owner.read(id).items == kept
    assert owner.get("note", id).body == "secret"


def test_any_sequence_of_calls_ends_as_it_does_in_memory(timed: Callable[[Clock], Store]) -> None:
    """Two tenants use the same names at random, while the clock goes on and back."""
    chance, now = random.Random(7), 1e9
    stores = [timed(lambda: now), open_store("memory:", clock=lambda: now)]
    prefix = new_id("tenant")
    names, tenants = ["un", "deux", "trois"], [[store.tenant(prefix + name) for name in "ab"] for store in stores]
    kinds = set()
    for step in range(250):
        now += chance.choice([0, 0, 0.5, 40, -3])
        whose, drawn = chance.randrange(2), chance.random()
        told, model = (outcome(one[whose], random.Random(drawn), names, step) for one in tenants)
        assert told == model, step
        kinds.add(type(told))
    assert kinds >= {tuple, Conversation, Document, type(None)}


def outcome(tenant: Tenant, chance: random.Random, names: list[str], step: int) -> object:
    """What one call drawn at random returns, or how it refuses."""
    id, ttl = chance.choice(names), chance.choice([None, 30.0])
    at, items, user = chance.choice([None, 0, 1, 2, 4]), [chance.choice("pqrstu")], chance.choice([None, "zoé"])
    drawn: list[Callable[[], object]] = [
        lambda: tenant.create(id, ttl=ttl, metadata={"step": step}, user=user),
        lambda: tenant.append(id, said(items[0], "b"), at=at, ids=[items[0], items[0] * 2]),
        lambda: tenant.append(id, said(items[0]), ids=items),
        lambda: tenant.read(id),
        lambda: tenant.read(id, after=at, last=2),
        lambda: tenant.item(id, items[0]),
        lambda: tenant.remove(id, items),
        lambda: tenant.update(id, {"step": step}),
        lambda: tenant.conversations(user=user, after=chance.choice([None, id]), limit=2),
        lambda: tenant.delete(id) if chance.random() < 0.3 else None,
        lambda: tenant.put("note", id, step, at=at, ttl=ttl, user=user),
        lambda: tenant.get("note", id),
        lambda: tenant.documents("note", user=user, after=chance.choice([None, id]), limit=2),
        lambda: tenant.discard("note", id) if chance.random() < 0.3 else None,
    ]
    try:
        return chance.choice(drawn)()
    except PlumeError as error:
        return type(error), error.message


# --- lifetime ---------------------------------------------------------------------------------------


def test_what_has_expired_is_not_found_before_anything_sweeps_it(timed: Callable[[Clock], Store]) -> None:
    now = 1_761_440_400.0  # an hour in which clocks in Europe go back
    tenant = timed(lambda: now).tenant(new_id("tenant"))
    fresh = timed(lambda: now).tenant(new_id("tenant"))
    id, item = new_id("conv"), new_id("msg")
    made = tenant.create(id, ttl=60)
    assert made.expires_at == now + 60
    items = tenant.append(id, said("a"), ids=[item])
    tenant.put("note", id, 1, ttl=60)
    keeps = tenant.create()
    now += 59.999999
    assert tenant.read(id).items == items
    assert tenant.get("note", id).expires_at == made.expires_at
    now = 1_761_440_460.0
    for name in READ_OR_CHANGE - {"conversations", "documents"}:
        assert refusal(calls(tenant, id, item)[name]) == refusal(calls(fresh, id, item)[name])
    for name in ("conversations after", "documents after", "append ids", "put at"):
        assert refusal(calls(tenant, id, item)[name]) == refusal(calls(fresh, id, item)[name])
    assert [one.id for one in tenant.conversations()] == [keeps.id]
    assert tenant.documents("note") == ()
    now -= 1  # a clock that was set back shows it again, whole
    assert tenant.read(id).items == items
    now += 3600
    again = tenant.create(id)
    assert (again.head, again.expires_at, tenant.read(id).items) == (0, None, ())
    assert tenant.put("note", id, 2, at=0).revision == 1
    for wrong in (0, -1, float("inf"), float("nan")):
        assert refusal(partial(tenant.create, ttl=wrong))[0] is UserError


def test_times_within_a_conversation_never_go_back(timed: Callable[[Clock], Store]) -> None:
    now = 2e9
    tenant = timed(lambda: now).tenant(new_id("tenant"))
    id = tenant.create().id
    for jump in (0, -7200, 3600, 1e8, -1e8):
        now += jump
        tenant.append(id, said("a"))
    times = [item.created_at for item in tenant.read(id).items]
    assert times == sorted(times)
    assert times[0] == 2e9
    assert tenant.read(id).updated_at == times[-1]


def test_the_stores_own_clock_is_the_time_of_day(tenant: Tenant) -> None:
    made = tenant.create(ttl=1000)
    assert abs(made.created_at - time.time()) < 600
    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 1000) < 1
    assert tenant.read(made.id).id == made.id


# --- keys -------------------------------------------------------------------------------------------


def test_a_key_opens_its_tenant_until_it_is_revoked_or_expires(timed: Callable[[Clock], Store]) -> None:
    now = 3e9
    store, owner = timed(lambda: now), new_id("tenant")
    text, key = create_key(store, owner, name="clé", scopes=["read"], ttl=60)
    other, _ = create_key(store, owner, scopes=["admin"])
    assert find_key(store, text) == key
    assert (key.tenant, key.name, key.scopes, key.allows("read"), key.allows("write")) == (
        owner,
        "clé",
        ("read",),
        True,
        False,
    )
    found = find_key(store, other)
    assert found is not None
    assert found.allows("write")
    assert len({one.prefix for one in list_keys(store, owner)}) == 2
    assert list_keys(store, new_id("nobody")) == ()
    for wrong in (
        "",
        "sk-1",
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        text + "A",
        text.replace("plume", "Plume"),
    ):
        assert find_key(store, wrong) is None
    swapped = f"plume-{key.prefix}-{other.rpartition('-')[2]}"
    assert find_key(store, swapped) is None
    assert revoke_key(store, found.prefix, tenant=owner).revoked
    assert find_key(store, other) is None
    now += 60
    assert find_key(store, text) is None


def test_nothing_of_a_keys_secret_is_stored_and_no_key_speaks_for_plume(store: Store) -> None:
    text, key = create_key(store, new_id("tenant"))
    document = store.tenant("plume:keys").get("api_key", key.prefix)
    assert text.split("-", 2)[2] not in str(document)
    assert text.removeprefix(f"plume-{key.prefix}-") not in str(document)
    assert len(text.removeprefix(f"plume-{key.prefix}-")) == 43
    assert refusal(lambda: create_key(store, "plume:keys"))[0] is UserError
    assert refusal(lambda: create_key(store, "a", scopes=["root"]))[0] is UserError
    assert refusal(lambda: create_key(store, "a", scopes=[]))[0] is UserError
    missing = refusal(lambda: revoke_key(store, "0" * 16, tenant=key.tenant))
    foreign = refusal(lambda: revoke_key(store, key.prefix, tenant="somebody else"))
    assert foreign == (missing[0], missing[1].replace("0" * 16, key.prefix), missing[2])


# --- what lasts -------------------------------------------------------------------------------------


def test_what_was_acknowledged_is_there_when_the_store_is_opened_again(
    persistent: str, tenant: Tenant, keys: tuple[MasterKey, ...]
) -> None:
    id = tenant.create(metadata={"a": 1}).id
    items = tenant.append(id, said("a", "é\0🐦"))
    with open_store(persistent, keys=keys) as again:
        assert again.tenant(tenant.name).read(id).items == items
        assert again.tenant(tenant.name).read(id).metadata == {"a": 1}


def test_the_settings_in_force_keep_what_was_acknowledged(persistent: str, store: Store) -> None:
    assert store.durability().problem is None, persistent
    assert store.durability().settings
