"""Sealed stores: the published suite on all five, what tampering is told from, and keys that come and go."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import sealed_writers
from plume.errors import PlumeError, UserError
from plume.memory import open_store, rights, storm
from plume.memory.bodies import messages_section
from plume.memory.conformance.conftest import persistent, store, tenant, timed  # noqa: F401
from plume.memory.conformance.examples import refusal, said
from plume.memory.conformance.test_lifetime import *  # noqa: F403
from plume.memory.conformance.test_tenants import *  # noqa: F403
from plume.memory.conformance.test_values import *  # noqa: F403
from plume.memory.conformance.test_vectors import *  # noqa: F403
from plume.memory.conformance.test_writers import *  # noqa: F403
from plume.memory.recall.search import Recall
from plume.memory.recall.vectors import Embedder, Matrix, vector_bytes
from plume.memory.redacting import RedactingStore
from plume.memory.rows import Change, RawMessage
from plume.memory.sealing import keyring
from plume.memory.sealing.envelope import KEY_ID, DataKey
from plume.memory.sealing.master import MasterKey, master_key
from plume.memory.sealing.rotation import open_to_seal, rotate
from plume.memory.sealing.seal import KEPT, MARK, Damaged, KeyGone
from plume.memory.sealing.verify import Fault, Walked, verify
from plume.memory.store import VAULT, Counts, Store, Tenant, new_id
from plume.memory.vault import find_vault, restore
from plume.redact import Redaction
from plume.types import Message
from stores import admin, started  # noqa: F401
from test_store import url  # noqa: F401

WORD = "phosphorescence"  # stands in every body, and nowhere else
KEY, OTHER = (master_key(bytes([number]) * 32) for number in (1, 2))


@pytest.fixture(scope="session")
def keys() -> tuple[MasterKey, ...]:
    return (KEY,)


@pytest.fixture
def kept(tenant: Tenant) -> tuple[str, str]:
    """Two conversations of a person, and a document."""
    ids = [tenant.create(metadata={"title": f"{WORD} {number}"}, user="alice").id for number in range(2)]
    for id in ids:
        tenant.append(id, said(f"{WORD} a", f"{WORD} b", f"{WORD} c"))
    tenant.put("note", ids[0], {"text": WORD}, user="alice")
    return ids[0], ids[1]


def raw_messages(store: Store, tenant: str, id: str) -> list[RawMessage]:
    return list(store.rows(tenant).messages(id, -1))


def overwrite(store: Store, tenant: str, id: str, bodies: dict[int, bytes]) -> None:
    """As somebody would who can write to the database but has no key."""
    rows = store.rows(tenant)
    changes = [Change(old, old._replace(body=bodies.get(old.position, old.body))) for old in rows.messages(id, -1)]
    rows.replace_messages(id, changes)


def faults(store: Store, *tenants: str) -> list[tuple[str, str, int]]:
    found = [step for step in verify(store) if isinstance(step, Fault)]
    assert not any(WORD in fault.message for fault in found)
    return [
        (fault.section.tenant, fault.section.names[-1], fault.number)
        for fault in found
        if fault.section.tenant in tenants
    ]


# --- redaction and recall before and over a sealed store -------------------------------------------


def test_a_sealed_store_behind_the_door_that_redacts(store: Store, tenant: Tenant) -> None:
    """The vault is sealed twice: who has the store's key reads marks, and only who has the vault's restores."""
    key = bytes(range(32))
    door = RedactingStore(store, Redaction(), key).tenant(tenant.name)
    id = door.create(metadata={"title": "pour marie@phare.fr"}, ttl=1000, user="zoé").id
    door.append(id, [Message("user", "marie@phare.fr, 06 12 34 56 78")])
    again = RedactingStore(store, Redaction(), key).tenant(tenant.name)
    again.append(id, [Message("user", "luc@phare.fr et MARIE@phare.fr")])
    assert [one.content for one in tenant.read(id).messages] == ["[EMAIL], [TEL]", "[EMAIL_2] et [EMAIL]"]
    assert restore("[EMAIL_2], [TEL]", find_vault(tenant, id), key) == "luc@phare.fr, 06 12 34 56 78"
    kept = tenant.get(VAULT, id)
    assert kept.user == "zoé"
    assert kept.expires_at == pytest.approx(tenant.read(id).expires_at, abs=60)
    raw = [one.body for one in store.rows(tenant.name).documents(None)]
    assert not [body for body in raw if kept.body["sealed"].encode() in body]
    assert faults(store, tenant.name) == []
    gone = door.create().id
    door.append(gone, [Message("user", "luc@phare.fr")])
    tenant.delete(gone)
    assert [one.id for one in tenant.documents(VAULT)] == [id]
    assert rights.erase(store, tenant.name, "zoé").removed == Counts(1, 2, 1)
    assert not tenant.kinds()


def test_recall_on_a_sealed_store(store: Store, tenant: Tenant) -> None:
    def bag(texts: Sequence[str]) -> Matrix:
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.casefold().split():
                row[sum(place * ord(sign) for place, sign in enumerate(word, 1)) % 64] += 1
        return rows

    embedder = Embedder("bag", bag)
    id = tenant.create(user="zoé").id
    tenant.append(id, said("Le phare est sur l’îlot", "Le bateau part à midi", "Élodie préfère le thé vert"))
    found = Recall(store, embedder).search(tenant.name, "où est le phare", limit=1)
    assert (found[0].conversation, found[0].item.message.content) == (id, "Le phare est sur l’îlot")
    plain = vector_bytes("bag", embedder.unit(["Le phare est sur l’îlot"])[0])
    assert tenant.vectors(id)[0] == plain
    lying = raw_messages(store, tenant.name, id)
    assert not [row for row in lying if row.vector is None or plain in row.vector]
    late = Recall(store, embedder)  # as another process finds the vectors
    assert late.search(tenant.name, "thé vert", limit=1)[0].item.position == 2
    assert Recall(store, embedder).search(new_id("other"), "phare") == ()
    rights.erase(store, tenant.name, "zoé")
    assert late.search(tenant.name, "phare") == ()


# --- what is not what was sealed for its place ------------------------------------------------------


def test_a_body_opens_only_where_it_was_sealed(store: Store, tenant: Tenant, kept: tuple[str, str]) -> None:
    one, two = kept
    other = store.tenant(new_id("tenant"))
    other.create(one, user="alice")
    other.append(one, said("hers"))
    mine, second = raw_messages(store, tenant.name, one), raw_messages(store, tenant.name, two)
    places = ((tenant, one, 1, mine[0]), (tenant, one, 0, second[0]), (other, one, 0, mine[0]))
    for whose, id, position, stolen in places:
        old = raw_messages(store, whose.name, id)[position].body
        overwrite(store, whose.name, id, {position: stolen.body})
        with pytest.raises(Damaged) as error:
            whose.read(id)
        assert f"position {position}" in error.value.message
        assert WORD not in error.value.message
        overwrite(store, whose.name, id, {position: old})
    assert faults(store, tenant.name, other.name) == []
    assert len(tenant.read(one).items) == 3


def test_metadata_and_documents_cannot_change_places(store: Store, tenant: Tenant, kept: tuple[str, str]) -> None:
    one, two = kept
    rows = store.rows(tenant.name)
    found = {raw.id: raw for raw in rows.conversations(None)}
    rows.replace_conversation(found[one], found[two].body)
    with pytest.raises(Damaged):
        tenant.read(one)
    with pytest.raises(Damaged):
        tenant.conversations()
    assert tenant.read(two).metadata == {"title": f"{WORD} 1"}
    first = rows.documents(None)[0]
    tenant.put("note", one, {"text": "newer"}, user="alice")
    newer = rows.documents(None)[0]
    rows.replace_document(newer, first.body)  # an older revision under the number of the newer one
    with pytest.raises(Damaged):
        tenant.get("note", one)
    assert faults(store, tenant.name) == [(tenant.name, one, 0), (tenant.name, one, 2)]


def test_every_changed_bit_and_every_plain_body_is_told(store: Store, tenant: Tenant, kept: tuple[str, str]) -> None:
    id, _ = kept
    raw = raw_messages(store, tenant.name, id)[1].body
    spoilt = {place: raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :] for place in (0, 1, 13, 17, 29, -1)}
    plain = b'{"v":1,"role":"user","content":"forged"}'
    for body in (*spoilt.values(), raw[:-1], raw[:20], b"", plain):
        overwrite(store, tenant.name, id, {1: body})
        kind, message, _ = refusal(lambda: tenant.read(id))
        assert kind in (Damaged, KeyGone)
        assert "forged" not in message
        assert ("plain" in message) == (body in (spoilt[0], b"", plain))
    assert faults(store, tenant.name) == [(tenant.name, id, 1)]
    overwrite(store, tenant.name, id, {1: raw})
    assert tenant.item(id, tenant.read(id).items[1].id).message.content == f"{WORD} b"


def test_the_mark_cannot_be_made_to_take_plain_bodies(file: Path) -> None:
    with open_store(f"sqlite:///{file}", keys=[KEY]) as made:
        mine = made.tenant(KEPT)
        mark = mine.get(*MARK)
        mine.put(*MARK, {**mark.body, "state": "sealing"})
    assert refusal(lambda: open_store(f"sqlite:///{file}", keys=[KEY]))[0] is Damaged


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "plume.db"


# --- what lies on the disk --------------------------------------------------------------------------


def test_no_word_of_a_body_lies_in_the_files_of_the_database(
    persistent: str,
    tenant: Tenant,
    kept: tuple[str, str],
) -> None:
    tenant.update(kept[0], {"title": f"{WORD} again"})
    tenant.remove(kept[1], [tenant.read(kept[1]).items[0].id])
    files = written(persistent)
    held = [file.read_bytes() for file in files if file.is_file()]
    assert any(kept[0].encode() in content for content in held)  # names are in clear: these are the right files
    assert not any(WORD.encode() in content for content in held)
    assert not any(KEY.wrap in content or KEY.wrap.hex().encode() in content for content in held)


def written(url: str) -> list[Path]:
    """Every file of the database, with all that it has been told."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return [found for found in path.parent.iterdir() if found.name.startswith(path.name)]
    with admin(url) as run:
        if url.startswith("redis"):
            run("SAVE")
            directory = Path(os.fsdecode(next(iter(run("CONFIG GET dir").values()))))
        elif url.startswith("postgresql"):
            run("CHECKPOINT")
            directory = Path(run("SHOW data_directory")[0][0])
        else:
            run("FLUSH TABLES")
            run("SET GLOBAL innodb_max_dirty_pages_pct = 0")
            directory = Path(run("SELECT @@datadir")[0][0])
    return list(directory.rglob("*"))


# --- keys -------------------------------------------------------------------------------------------


def test_a_wrong_key_no_key_and_a_needless_key_are_said_and_touch_nothing(persistent: str, store: Store) -> None:
    before = [*store.rows(KEPT).documents(None)]
    kind, message, hint = refusal(lambda: open_store(persistent))
    assert (kind, "no key was given" in message, "PLUME_STORE_KEY" in str(hint)) == (UserError, True, True)
    kind, message, hint = refusal(lambda: open_store(persistent, keys=[OTHER]))
    assert (kind, OTHER.id in message, KEY.id in str(hint)) == (UserError, True, True)
    assert [*store.rows(KEPT).documents(None)] == before
    with open_store(persistent, keys=[OTHER, KEY]) as both:  # what seals is what the store says
        made = both.tenant(new_id("tenant"))
        made.append(made.create().id, said("a"))
        assert store.tenant(made.name).conversations()


def test_a_key_for_a_plain_store_names_the_command_that_seals_it(file: Path) -> None:
    address = f"sqlite:///{file}"
    with open_store(address) as plain:
        mine = plain.tenant("a")
        id = mine.create(metadata={"title": WORD}, user="alice").id
        mine.append(id, said(WORD, "b"))
        mine.put("note", "n", WORD)
    kind, message, hint = refusal(lambda: open_store(address, keys=[KEY]))
    assert (kind.__name__, "not sealed" in message) == ("NotSealed", True)
    assert "plume conversations rotate-key --seal" in str(hint)
    with open_to_seal(address, [KEY]) as half:
        mine = half.tenant("a")
        assert mine.read(id).messages == tuple(said(WORD, "b"))  # others read and write meanwhile
        mine.append(id, said("c"))
    with open_to_seal(address, [KEY]) as again:
        assert sum(getattr(step, "sealed", 0) for step in rotate(again, address, [KEY])) == 4
        again.scrub()
    with open_store(address, keys=[KEY]) as sealed:
        assert sealed.tenant("a").read(id).messages == (*said(WORD, "b"), *said("c"))
        assert sealed.tenant("a").get("note", "n").body == WORD
        assert faults(sealed, "a") == []
        raw = [row.body for row in raw_messages(sealed, "a", id)]
        assert not any(body.startswith(b"{") for body in raw)
    assert not any(WORD.encode() in found.read_bytes() for found in file.parent.iterdir() if found.is_file())


def test_a_person_has_one_key_however_many_need_the_first_one(persistent: str, store: Store) -> None:
    mine = store.tenant(new_id("tenant"))
    with contextlib.ExitStack() as stack:
        work = (sealed_writers.create_one, persistent, [KEY], mine.name, "alice")
        pipes = [stack.enter_context(sealed_writers.process(*work))[1] for _ in range(4)]
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send("now")
        made = {pipe.recv() for pipe in pipes}
    assert {one.id for one in mine.conversations()} == made
    assert len(store.tenant(KEPT).documents(mine.name)) == 1
    mine.create(user="bob")
    mine.create()
    assert len(store.tenant(KEPT).documents(mine.name)) == 3


def test_what_a_destroyed_key_sealed_opens_never_again(
    store: Store,
    tenant: Tenant,
    kept: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    id, _ = kept
    others = tenant.create()
    old = raw_messages(store, tenant.name, id)
    assert store.destroy_keys(tenant.name, "alice")
    assert not store.destroy_keys(tenant.name, "alice")
    for call in (lambda: tenant.read(id), lambda: tenant.get("note", id)):
        kind, message, _ = refusal(call)
        assert (kind, "destroyed" in message) == (KeyGone, True)
    assert tenant.read(others.id).items == ()  # somebody else's
    assert len(faults(store, tenant.name)) == 9
    tenant.delete(id)
    tenant.create(id, user="alice")  # who comes back has a new key, and it opens nothing that a backup brings back
    tenant.append(id, said("x", "y", "z"))
    overwrite(store, tenant.name, id, {0: old[0].body})
    with pytest.raises(KeyGone, match="retired"):
        tenant.read(id)
    monkeypatch.setattr(keyring, "FRESH", 0)
    assert store.destroy_keys(tenant.name, None)
    assert refusal(lambda: tenant.read(others.id))[0] is KeyGone


def test_another_process_notices_that_a_key_was_destroyed(
    persistent: str,
    store: Store,
    tenant: Tenant,
    kept: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_store(persistent, keys=[KEY]) as other:
        theirs = other.tenant(tenant.name)
        assert theirs.read(kept[0]).items
        store.destroy_keys(tenant.name, "alice")
        written_after = theirs.append(kept[0], said("after"), ids=["after"])  # with a key that is not destroyed
        monkeypatch.setattr(keyring, "FRESH", 0)
        assert refusal(lambda: theirs.read(kept[0]))[0] is KeyGone
        assert tenant.item(kept[0], "after") == written_after[0]


# --- nonces -----------------------------------------------------------------------------------------


def test_no_nonce_repeats_in_a_million_and_no_key_seals_more_than_it_may() -> None:
    key = DataKey(bytes(KEY_ID), secrets.token_bytes(32))
    cipher = key.at(messages_section("a", "b"))
    assert len({cipher.seal(0, "", b"")[KEY_ID + 1 : KEY_ID + 13] for _ in range(10**6)}) == 10**6
    assert cipher.open(2**31 - 1, "", cipher.seal(2**31 - 1, "", b"last")) == b"last"
    with pytest.raises(PlumeError):
        cipher.seal(2**31, "", b"")
    assert key.at(messages_section("a", "c")).key is not cipher.key
    assert "secret" not in repr(key)


# --- rotation ---------------------------------------------------------------------------------------


def test_a_rotation_that_is_killed_again_and_again_loses_nothing(
    fresh: str,
) -> None:
    """One reads and one writes all the while."""
    old, new, chance = master_key(secrets.token_bytes(32)), master_key(secrets.token_bytes(32)), random.Random(5)
    both, name = (new, old), new_id("tenant")
    with open_store(fresh, keys=[old]) as store:
        mine = store.tenant(name)
        ids = [mine.create(user=chance.choice(["alice", "bob", None])).id for _ in range(8)]
        for turn, id in enumerate(ids * 10):
            storm.append_turn(mine, id, 0, turn, insists=False)
        for id in ids:
            mine.put("note", id, WORD)
        acknowledged: list[storm.Turn] = [(id, 0, turn) for turn, id in enumerate(ids * 10)]
        before = {raw.body for id in ids for raw in store.rows(name).messages(id, -1)}
    with (
        sealed_writers.process(sealed_writers.read_on, fresh, both, name, ids) as (_, reader),
        storm.writer(fresh, name, ids, 1, 100_000, both) as (writing, turns),
    ):
        reader.recv()
        for _ in range(20):
            with sealed_writers.process(sealed_writers.rotate_all, fresh, both) as (process, pipe):
                for _ in range(chance.randrange(0, 16)):
                    pipe.recv()
                pipe.poll(chance.uniform(0, 0.02))
                process.kill()
        with open_store(fresh, keys=both) as store:
            assert not any(isinstance(step, Fault) for step in rotate(store, "test", both))
        turns.poll(5)
        writing.kill()
        acknowledged += storm.received(turns)
        reader.send("stop")
        rounds, wrong = reader.recv()
    assert (rounds > 1, wrong) == (True, [])
    kind, message, hint = refusal(lambda: open_store(fresh, keys=[old]))
    assert (kind, "retired" in message, new.id in str(hint)) == (UserError, True, True)
    with open_store(fresh, keys=[new]) as store:
        mine = store.tenant(name)
        assert storm.faults(mine, ids, acknowledged, complete=False) == []
        assert {mine.get("note", id).body for id in ids} == {WORD}
        assert faults(store, name) == []
        after = [raw.body for id in ids for raw in store.rows(name).messages(id, -1)]
        assert not before & set(after)
        for document in store.tenant(KEPT).documents(name):
            assert {key["master"] for key in document.body["keys"]} == {new.id}
            assert len(document.body["keys"]) == 1


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "redis"])
def fresh(request: pytest.FixtureRequest, started: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    """A store with nothing in it, of which a test may replace the key."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fresh.db'}"
        return
    name, base = f"plume_{secrets.token_hex(4)}", started(request.param)
    if request.param == "redis":
        yield base.removesuffix("/0") + "/1"
        with admin(base.removesuffix("/0") + "/1") as run:
            run("FLUSHDB")
        return
    with admin(base) as run:
        run(f"CREATE DATABASE {name}")
        yield base.rpartition("/")[0] + f"/{name}"
        run(f"DROP DATABASE {name}{' WITH (FORCE)' if request.param == 'postgresql' else ''}")


def test_what_is_made_anew_about_somebody_else_while_keys_rotate_is_sealed_for_them(fresh: str) -> None:
    name = new_id("tenant")
    with open_store(fresh, keys=[KEY]) as store:
        mine = store.tenant(name)
        for id, user in (("a", "alice"), ("b", "alice"), ("c", "bob")):
            mine.append(mine.create(id, user=user).id, said(user))
            mine.put("note", id, WORD, user=user)
    with open_store(fresh, keys=[OTHER, KEY]) as store, open_store(fresh, keys=[OTHER, KEY]) as writer:
        steps = rotate(store, fresh, [OTHER, KEY])
        while not (isinstance(step := next(steps), Walked) and step.tenant == name):
            pass  # conversation a is done, and b has been looked up with it
        mine = writer.tenant(name)
        mine.delete("b")
        mine.append(mine.create("b", user="bob", metadata={"n": 1}).id, said("of bob"))
        mine.put("note", "b", "of bob", user="bob")
        list(steps)
    with open_store(fresh, keys=[OTHER]) as store:
        mine = store.tenant(name)
        mine.erase("alice")
        store.destroy_keys(name, "alice")
        assert mine.read("b").messages == tuple(said("of bob"))
        assert (mine.read("b").metadata, mine.get("note", "b").body) == ({"n": 1}, "of bob")
        assert not [step for step in verify(store) if isinstance(step, Fault)]


def test_a_rotation_with_a_damaged_body_keeps_the_old_key(file: Path) -> None:
    address = f"sqlite:///{file}"
    with open_store(address, keys=[KEY]) as store:
        mine = store.tenant("a")
        id = mine.create("b").id
        mine.append(id, said("a", "b"))
        overwrite(store, "a", id, {1: raw_messages(store, "a", id)[0].body})
    with open_store(address, keys=[OTHER, KEY]) as store:
        steps = rotate(store, address, [OTHER, KEY])
        with pytest.raises(PlumeError, match="1 bodies cannot be opened"):
            list(steps)
        mine = store.tenant("a")
        assert mine.read(id, before=1).messages == tuple(said("a"))
        mine.delete(id)
        list(rotate(store, address, [OTHER, KEY]))
    assert "retired" in refusal(lambda: open_store(address, keys=[KEY]))[1]


# --- many writers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
def test_sixteen_writers_to_one_conversation(persistent: str, tenant: Tenant) -> None:
    ids = [tenant.create(user="alice").id]
    with contextlib.ExitStack() as stack:
        writers = [storm.writer(persistent, tenant.name, ids, number, 8, [KEY]) for number in range(16)]
        pipes = [stack.enter_context(writer)[1] for writer in writers]
        acknowledged = [turn for pipe in pipes for turn in storm.received(pipe)]
    assert len(acknowledged) == 128
    assert storm.faults(tenant, ids, acknowledged, complete=True) == []
