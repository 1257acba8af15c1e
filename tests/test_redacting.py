"""A store behind a door that redacts: what lies behind it, the marks of a resumed conversation, and who can restore."""

import contextlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from plume.cli.redacting import check_vaults
from plume.errors import AlreadyExists, NotFound, PlumeError, UserError
from plume.memory import open_store, rights
from plume.memory.redacting import RedactingStore, RedactingTenant
from plume.memory.store import Counts, Document, Tenant
from plume.memory.vault import Vault, find_vault, read_key, restore, seal, unseal
from plume.redact import Redaction, listed
from plume.serving.past import vault_of
from plume.types import Message, ToolCall
from serving import SECONDS, running, untrained

KEY = bytes(range(32))
BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
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


TITLE = {"title": "pour marie@phare.fr"}


@pytest.mark.parametrize("what", ["put", "create", "update"])
def test_a_write_that_fails_leaves_no_half_made_conversation(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """One that is made with metadata has them from its first write on, and its vault before."""
    bare = open_store("memory:")
    tenant = bare.tenant("alice")

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(tenant, what, fail)
    door = RedactingTenant(tenant, WANTED, KEY, None)
    with contextlib.suppress(OSError):
        door.create("lundi", metadata=TITLE)
    made = tenant.conversations()
    assert [one.metadata for one in made] == ([{"title": "pour [EMAIL]"}] if what == "update" else [])
    assert [one.id for one in tenant.documents("vault")] == [one.id for one in made]


def test_the_vault_of_metadata_lives_as_long_as_the_conversation() -> None:
    now = 1e9
    store = open_store("memory:", clock=lambda: now)
    tenant = RedactingStore(store, WANTED, KEY).tenant("alice")
    for _ in range(2):  # the second time, the id is that of an expired conversation
        made = tenant.create("lundi", metadata=TITLE, ttl=100, user="marie")
        kept = tenant.get("vault", "lundi")
        assert (kept.expires_at, kept.user) == (made.expires_at, "marie") == (now + 100, "marie")
        assert restore("[EMAIL]", find_vault(tenant, "lundi"), KEY) == "marie@phare.fr"
        now += 100
    tenant.create("mardi", metadata={"title": "luc@phare.fr"})
    with pytest.raises(AlreadyExists):
        tenant.create("mardi", metadata=TITLE)
    assert restore("[EMAIL] [EMAIL_2]", find_vault(tenant, "mardi"), KEY) == "luc@phare.fr [EMAIL_2]"


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


def test_a_vault_goes_with_its_conversation_on_the_store_behind_the_door(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plume.db"
    with redacting(url) as door, open_store(url) as bare:
        tenant = door.tenant("alice")
        deleted, erased = tenant.create().id, tenant.create(user="marie").id
        for id in (deleted, erased):
            tenant.append(id, [Message("user", "marie@phare.fr")])
        bare.tenant("alice").delete(deleted)
        assert [one.id for one in bare.tenant("alice").documents("vault")] == [erased]
        assert rights.erase(bare, "alice", "marie").removed == Counts(1, 1, 1)
        assert not bare.tenant("alice").kinds()


def test_no_vault_is_left_of_a_conversation_that_is_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory:")
    bare = store.tenant("alice")
    id, put = bare.create().id, bare.put

    def deleted_before(*arguments: Any, **options: Any) -> Document:
        bare.delete(id)
        return put(*arguments, **options)

    monkeypatch.setattr(bare, "put", deleted_before)
    with pytest.raises(NotFound):
        RedactingStore(store, WANTED, KEY).tenant("alice").append(id, [Message("user", "marie@phare.fr")])
    assert not bare.documents("vault")


def test_two_doors_at_once_give_no_mark_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plume.db"
    said = [f"{who}{number}@phare.fr" for number in range(6) for who in "ab"]
    with redacting(url) as one, redacting(url) as other, ThreadPoolExecutor(2) as pool:
        id = one.tenant("alice").create().id

        def work(store: RedactingStore) -> None:
            for text in said:
                store.tenant("alice").append(id, [Message("user", text)])

        list(pool.map(work, (one, other)))
        marks = contents(one.tenant("alice"), id)
        vault = find_vault(one.tenant("alice"), id)
    assert sorted(marks) == sorted(2 * [f"[EMAIL{n}]" for n in ("", *(f"_{n}" for n in range(2, 13)))])
    assert sorted(restore(mark, vault, KEY) for mark in marks) == sorted(2 * said)


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
    file.chmod(0o600)
    for text in (KEY.hex(), KEY.hex().upper(), BASE64, BASE64.rstrip("=")):
        assert read_key({"PLUME_VAULT_KEY": text}) == KEY
    assert read_key({"PLUME_VAULT_KEY_FILE": str(file)}) == KEY
    for wrong in (
        {},
        {"PLUME_VAULT_KEY": "court"},
        {"PLUME_VAULT_KEY": f"court! {BASE64}"},
        {"PLUME_VAULT_KEY": KEY.hex(), "PLUME_VAULT_KEY_FILE": str(file)},
        {"PLUME_VAULT_KEY_FILE": str(tmp_path / "absent")},
    ):
        with pytest.raises(UserError) as error:
            read_key(wrong)
        assert "court" not in error.value.message
    file.chmod(0o644)
    with pytest.raises(UserError, match="others may read or change"):
        read_key({"PLUME_VAULT_KEY_FILE": str(file)})


def test_the_server_stores_what_is_redacted_and_answers_as_ever(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'plume.db'}"
    door = RedactingStore(open_store(url), WANTED, KEY, vault_of)
    asked: dict[str, Any] = {"model": "any", "max_output_tokens": 4}
    with running(tmp_path / "a", {"any": untrained()}, store=door) as server, server.client() as client:
        about = {"who": "Rose", "name": "Rose"}
        first = client.responses.create(input="Je suis marie@phare.fr, amie de Rose", metadata=about, **asked)
        assert first.metadata == about
        second = client.responses.create(input="luc@phare.fr et marie@phare.fr", previous_response_id=first.id, **asked)
        items = client.responses.input_items.list(second.id).data
        assert items[0].content[0].text == "[EMAIL_2] et [EMAIL]"  # type: ignore[index,union-attr]
        again = client.responses.retrieve(first.id)
        assert (again.metadata, again.id, again.model) == ({"who": "[NOM]", "name": "[NOM]"}, first.id, "any")
        conversation = client.conversations.create(items=[{"role": "user", "content": "marie@phare.fr"}])
        third = client.responses.create(input="tél. 06 12 34 56 78", conversation=conversation.id, **asked)
        told = [item.content[0].text for item in client.conversations.items.list(conversation.id, order="asc")][:2]  # type: ignore[index,union-attr]
        assert told == ["[EMAIL]", "tél. [TEL]"]
        store = open_store(url)
        tenant = store.tenant(store.tenants()[0])
        assert restore("[EMAIL_2]", find_vault(tenant, first.id), KEY) == "luc@phare.fr"
        assert restore("[EMAIL], [TEL]", find_vault(tenant, conversation.id), KEY) == "marie@phare.fr, 06 12 34 56 78"
        assert tenant.get("vault", conversation.id).expires_at is None
        client.conversations.delete(conversation.id)
        assert {one.id for one in tenant.documents("vault")} == {first.id}
        assert client.responses.retrieve(third.id).id == third.id
        files = b"".join(file.read_bytes() for file in tmp_path.glob("plume.db*"))
        store.close()
    assert not any(value.encode() in files for value in PRIVATE)


def test_another_key_is_the_servers_fault_and_stands_in_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, asked = f"sqlite:///{tmp_path / 'plume.db'}", "luc@phare.fr"
    with redacting(url, vault_of) as store:
        id = store.tenant("local").create().id
        store.tenant("local").append(id, [Message("user", "marie@phare.fr")])
        with running(tmp_path / "b", {"any": untrained()}, store=store) as server, server.client() as client:
            linked = client.responses.create(model="any", max_output_tokens=4, input="luc@phare.fr").id
    door = RedactingStore(open_store(url), WANTED, os.urandom(32), vault_of)
    with running(tmp_path / "a", {"any": untrained()}, store=door) as server, server.client() as client:
        with pytest.raises(openai.InternalServerError) as error:
            client.responses.create(model="any", max_output_tokens=4, input=asked, conversation=id)
        assert (error.value.code, "sealed" in str(error.value)) == ("internal_error", False)
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="any", max_output_tokens=4, input=asked, previous_response_id=linked)
        metrics = httpx.get(f"{server.url}/metrics", timeout=SECONDS).text
        assert "vllm:generation_tokens_total{" not in metrics, "the model was asked for what could not be kept"
        with pytest.raises(openai.InternalServerError):
            client.conversations.items.create(id, items=[{"role": "user", "content": asked}])
        assert len(client.conversations.items.list(id).data) == 1
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 3
    assert all(re.match(r"request req_\w+ failed: the vault of .* was sealed with the key", line) for line in told)


def test_a_server_does_not_start_on_vaults_that_stay_shut(caplog: pytest.LogCaptureFixture) -> None:
    store = open_store("memory:")
    door, other = RedactingStore(store, WANTED, KEY), RedactingStore(store, WANTED, os.urandom(32))
    id = door.tenant("école").create().id
    for any_door in (store, door, other):
        check_vaults(any_door, leave=False)
    door.tenant("école").append(id, [Message("user", "marie@phare.fr")])
    check_vaults(door, leave=False)
    with pytest.raises(UserError, match="would go on in plain text") as plain:
        check_vaults(store, leave=False)
    with pytest.raises(UserError, match="were sealed with the key") as wrong:
        check_vaults(other, leave=False)
    assert [error.value.hint for error in (plain, wrong)] == [
        "say --redact as before, or --leave-vaults if that is meant",
        "give that key, or --leave-vaults if that is meant",
    ]
    assert not caplog.records
    for any_door in (store, other):
        check_vaults(any_door, leave=True)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    new = other.tenant("lycée").create().id
    other.tenant("lycée").append(new, [Message("user", "luc@phare.fr")])
    check_vaults(other, leave=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--redact", "mail"], "no kind 'mail'"),
        (["--redact", "name"], "no list of them"),
        (["--redact", "all"], "PLUME_VAULT_KEY"),
        (["--redact-names", "absent.txt"], "absent.txt"),
    ],
)
def test_serve_says_what_redaction_lacks_before_it_starts(tmp_path: Path, options: list[str], told: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLUME_VAULT")}
    command = [sys.executable, "-m", "plume", "serve", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert told in done.stderr


@pytest.mark.parametrize("options", [[], ["--redact", "email"]])
def test_serve_says_that_vaults_stay_shut_before_it_starts(tmp_path: Path, options: list[str]) -> None:
    with redacting(f"sqlite:///{tmp_path}/plume.db") as store:
        tenant = store.tenant("local")
        tenant.append(tenant.create().id, [Message("user", "marie@phare.fr")])
    command = [sys.executable, "-m", "plume", "serve", "--data-dir", str(tmp_path), "--port", "0", *options]
    environment = {**os.environ, "PLUME_VAULT_KEY": "ab" * 32}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
    assert "--leave-vaults" in done.stderr
