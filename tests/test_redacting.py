"""A store behind a door that redacts: what lies behind it, the marks of a resumed conversation, and who can restore."""

import os
import sqlite3
from pathlib import Path

import pytest

from plume.errors import NotFound, PlumeError, UserError
from plume.memory import open_store
from plume.memory.redacting import RedactingStore
from plume.memory.store import Tenant
from plume.memory.vault import Vault, find_vault, read_key, restore, seal, unseal
from plume.redact import Redaction, listed
from plume.types import Message, ToolCall

KEY = bytes(range(32))
WANTED = Redaction(names=listed(["Rose"]))
PRIVATE = ["marie@phare.fr", "luc@phare.fr", "06 12 34 56 78"]


def redacting(url: str, scope: object = None, **options: object) -> RedactingStore:
    return RedactingStore(open_store(url, **options), WANTED, KEY, scope)  # type: ignore[arg-type]


def contents(tenant: Tenant, id: str) -> list[str]:
    return [message.content for message in tenant.read(id).messages]


def test_nothing_private_reaches_the_disk_and_marks_go_on_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plume.db"
    with redacting(url) as store:
        alice = store.tenant("alice")
        id = alice.create(metadata={"title": "pour marie@phare.fr"}).id
        call = ToolCall("send", '{"to": "luc@phare.fr"}', "call_1")
        alice.append(id, [Message("user", "marie@phare.fr et Rose"), Message("assistant", "", (call,))])
    with redacting(url) as store:
        alice = store.tenant("alice")
        alice.append(id, [Message("user", "luc@phare.fr, MARIE@phare.fr, 06 12 34 56 78")])
        assert contents(alice, id) == ["[EMAIL] et [NOM]", "", "[EMAIL_2], [EMAIL], [TEL]"]
        assert alice.read(id).messages[1].tool_calls[0].arguments == '{"to": "[EMAIL_2]"}'
        assert alice.read(id).metadata == {"title": "pour [EMAIL]"}
        vault = find_vault(alice, id)
        assert restore("à [EMAIL_2], [EMAIL], [EMAIL_3]", vault, KEY) == "à luc@phare.fr, marie@phare.fr, [EMAIL_3]"
        files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not any(value.encode() in files for value in PRIVATE)


def test_another_key_opens_no_vault_and_writes_nothing() -> None:
    store = open_store("memory:")
    tenant = RedactingStore(store, WANTED, KEY).tenant("alice")
    id = tenant.create().id
    tenant.append(id, [Message("user", "marie@phare.fr")])
    other = os.urandom(32)
    with pytest.raises(UserError, match="was sealed with the key"):
        restore("[EMAIL]", find_vault(tenant, id), other)
    with pytest.raises(UserError, match="was sealed with the key"):
        RedactingStore(store, WANTED, other).tenant("alice").append(id, [Message("user", "luc@phare.fr")])
    assert contents(tenant, id) == ["[EMAIL]"]


def test_a_vault_that_was_moved_or_changed_does_not_open() -> None:
    vault = seal({"[EMAIL]": "marie@phare.fr"}, KEY, "alice", "conv_1")
    assert unseal(vault, KEY) == {"[EMAIL]": "marie@phare.fr"}
    assert b"marie" not in vault.sealed
    for wrong in (
        Vault("bob", "conv_1", vault.key, vault.nonce, vault.sealed),
        Vault("alice", "conv_2", vault.key, vault.nonce, vault.sealed),
        Vault("alice", "conv_1", vault.key, vault.nonce, vault.sealed[:-1] + bytes([vault.sealed[-1] ^ 1])),
    ):
        with pytest.raises(PlumeError, match="damaged, or belongs"):
            unseal(wrong, KEY)


def test_a_repeated_append_is_the_same_message() -> None:
    tenant = redacting("memory:").tenant("alice")
    id = tenant.create().id
    first = tenant.append(id, [Message("user", "marie@phare.fr")], ids=["1"])
    assert tenant.append(id, [Message("user", "marie@phare.fr")], ids=["1"]) == first


def test_a_vault_goes_with_its_conversation_in_time_and_by_hand() -> None:
    now = 1e9
    store = open_store("memory:", clock=lambda: now)
    tenant = RedactingStore(store, WANTED, KEY).tenant("alice")
    id = tenant.create(ttl=100, user="marie").id
    now += 60
    tenant.append(id, [Message("user", "marie@phare.fr")])
    kept = store.tenant("alice").get("vault", id)
    assert (kept.expires_at, kept.user) == (1e9 + 100, "marie")
    now += 40
    with pytest.raises(NotFound):
        store.tenant("alice").get("vault", id)
    id = tenant.create().id
    tenant.append(id, [Message("user", "marie@phare.fr")])
    tenant.delete(id)
    with pytest.raises(NotFound):
        find_vault(tenant, id)


def test_two_doors_at_once_give_no_mark_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plume.db"
    with redacting(url) as one, redacting(url) as other:
        id = one.tenant("alice").create().id
        for number in range(5):
            one.tenant("alice").append(id, [Message("user", f"a{number}@phare.fr")])
            other.tenant("alice").append(id, [Message("user", f"b{number}@phare.fr, a{number}@phare.fr")])
        marks = " ".join(contents(one.tenant("alice"), id)).replace(",", "").split()
        vault = find_vault(one.tenant("alice"), id)
    assert [restore(mark, vault, KEY) for mark in marks[:3]] == ["a0@phare.fr", "b0@phare.fr", "a0@phare.fr"]
    assert len(set(marks)) == 10
    with sqlite3.connect(tmp_path / "plume.db") as connection:
        [[count]] = connection.execute("SELECT count(*) FROM plume_documents").fetchall()
    connection.close()
    assert count == 1


def test_documents_are_redacted_when_they_have_a_vault() -> None:
    def scope(tenant: Tenant, kind: str, id: str, body: object) -> str | None:  # noqa: ARG001
        return id if kind == "response" else None

    tenant = redacting("memory:", scope).tenant("alice")
    body = {"id": "Rose", "model": "Rose", "text": ["marie@phare.fr", 3, None]}
    tenant.put("response", "r", body, ttl=60)
    assert tenant.get("response", "r").body == {**body, "text": ["[EMAIL]", 3, None], "vault": "r"}
    tenant.put("key", "k", {"text": "marie@phare.fr"})
    assert tenant.get("key", "k").body == {"text": "marie@phare.fr"}
    with pytest.raises(NotFound):
        find_vault(tenant, "k")


def test_keys_are_read_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY.hex() + "\n", encoding="ascii")
    assert read_key({"PLUME_VAULT_KEY": KEY.hex()}) == KEY
    assert read_key({"PLUME_VAULT_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}) == KEY
    assert read_key({"PLUME_VAULT_KEY_FILE": str(file)}) == KEY
    for wrong in (
        {},
        {"PLUME_VAULT_KEY": "court"},
        {"PLUME_VAULT_KEY": KEY.hex(), "PLUME_VAULT_KEY_FILE": str(file)},
        {"PLUME_VAULT_KEY_FILE": str(tmp_path / "absent")},
    ):
        with pytest.raises(UserError) as error:
            read_key(wrong)
        assert "court" not in error.value.message
