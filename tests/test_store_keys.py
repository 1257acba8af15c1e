"""The keys of sealed stores: where they come from, what shows them, and the verbs that use them."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plume.errors import UserError
from plume.memory import open_store
from plume.memory.conformance.examples import refusal, said
from plume.memory.keys import create_key
from plume.memory.rows import Change
from plume.memory.sealing.master import KEY, KEY_COMMAND, KEY_FILE, master_key, master_keys
from plume.memory.sealing.rotation import open_to_seal, rotate
from plume.memory.store import Store
from serving import running, untrained
from test_cli import Plume, plume  # noqa: F401

SECRET, SECOND = bytes(range(32)), bytes(range(32, 64))
WORD = "phosphorescence"


@pytest.fixture(autouse=True)
def _no_key_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY, KEY_FILE, KEY_COMMAND):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key as it should lie there."""
    path = tmp_path / "clé du magasin.key"
    path.write_text(f"{SECRET.hex()}\n", encoding="ascii")
    path.chmod(0o600)
    return path


def test_a_key_comes_from_the_environment_a_file_or_a_command(file: Path) -> None:
    key, second = master_key(SECRET), master_key(SECOND)
    plain, safe = base64.b64encode(SECRET).decode(), base64.urlsafe_b64encode(SECOND).decode().rstrip("=")
    assert master_keys(environ={}) == ()
    for text in (SECRET.hex(), SECRET.hex().upper(), plain, plain.rstrip("=")):
        assert master_keys(environ={KEY: text}) == (key,)
    assert master_keys(environ={KEY: f"{safe}, {plain} {safe}"}) == (second, key)
    assert master_keys(environ={KEY_FILE: str(file)}) == master_keys(file, environ={}) == (key,)
    assert master_keys(file, environ={KEY: safe}) == (key,)  # what was said last
    command = f"{sys.executable} -c 'print(\"{safe}\")'"
    assert master_keys(environ={KEY_COMMAND: command}) == (second,)
    assert len({key.id, second.id, key.wrap.hex()[:16], key.check.hex()[:16]}) == 4


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({KEY: "geheim"}, "it is no key"),
        ({KEY: "geheim" * 8}, "it is no key"),
        ({KEY: "zz" * 32}, "it is no key"),
        ({KEY: f"{SECRET.hex()},geheim"}, "key 2 of 2 is no key"),
        ({KEY: " , "}, "there is no key"),
        ({KEY: SECRET.hex(), KEY_COMMAND: "pass geheim"}, "are both set"),
        ({KEY_FILE: "/nowhere/geheime.key"}, "No such file"),
        ({KEY_COMMAND: "false"}, "ended with 1"),
        ({KEY_COMMAND: "echo geheim"}, "it is no key"),
        ({KEY_COMMAND: "echo 'geheim"}, "cannot be understood"),
        ({KEY_COMMAND: "no-such-program-geheim"}, "No such file"),
        ({KEY_COMMAND: "printf '\\377geheim'"}, "printed something else"),
        ({KEY_COMMAND: "echo $(id) ; echo"}, "key 1 of 3 is no key"),  # no shell
    ],
)
def test_what_is_no_key_is_said_without_showing_it(environ: dict[str, str], said: str) -> None:
    kind, message, hint = refusal(lambda: master_keys(environ=environ))
    assert (kind, said in message, bool(hint)) == (UserError, True, True)
    shown = f"{message} {hint}".replace("/nowhere/geheime.key", "")
    assert "geheim" not in shown
    assert SECRET.hex() not in shown


def test_a_file_that_others_may_read_is_refused(file: Path) -> None:
    for mode in (0o644, 0o640, 0o602):
        file.chmod(mode)
        kind, message, hint = refusal(lambda: master_keys(file, environ={}))
        assert (kind, "others may read" in message, "chmod 600" in str(hint)) == (UserError, True, True)
    file.chmod(0o400)
    assert master_keys(file, environ={}) == (master_key(SECRET),)


def test_nothing_shows_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, url = master_key(SECRET), f"sqlite:///{tmp_path / 'a.db'}"
    with caplog.at_level(logging.DEBUG), open_store(url, keys=[key]) as store:
        mine = store.tenant("a")
        mine.append(mine.create().id, said("a"))
        shown = [repr(value) for value in (key, store, mine, store.sealing, [key], {"key": key})]
    shown += [record.getMessage() for record in caplog.records]
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (SECRET, key.wrap, key.check):
        assert not any(text in line for line in shown for text in (secret.hex(), repr(secret)[2:-1]))
        assert secret not in held
        assert secret.hex().encode() not in held


def test_the_verbs_open_a_sealed_store_and_say_what_is_wrong(
    plume: Plume,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, _ = plume("keys", "create", "school", "--store-key-file", str(file), "--json")
    assert code == 0
    secret = json.loads(out)["key"]
    code, _, err = plume("keys", "list")
    assert (code, "no key was given" in err, KEY in err) == (2, True, True)
    monkeypatch.setenv(KEY, SECOND.hex())
    code, _, err = plume("keys", "list")
    assert (code, "does not open this store" in err, SECOND.hex() in err) == (2, True, False)
    monkeypatch.setenv(KEY, f"{SECOND.hex()},{SECRET.hex()}")
    code, out, _ = plume("conversations", "rotate-key", "--json")
    assert (code, json.loads(out)["key"]) == (0, master_key(SECOND).id)
    monkeypatch.setenv(KEY, SECRET.hex())
    code, _, err = plume("keys", "list")
    assert (code, "was retired" in err) == (2, True)
    monkeypatch.setenv(KEY, SECOND.hex())
    code, out, _ = plume("keys", "list", "--json")
    assert json.loads(out)["keys"][0]["prefix"] == secret.split("-")[1]


def test_verify_names_what_does_not_open_by_its_place(
    plume: Plume,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    monkeypatch.setenv(KEY, SECRET.hex())
    with open_store(url, keys=master_keys()) as store:
        mine = store.tenant("école")
        mine.create("lundi", metadata={"a": WORD})
        mine.append("lundi", said(WORD, WORD, "c"))
        mine.put("note", "n", WORD)
        assert plume("conversations", "verify", "--store", url)[0] == 0
        rows = store.rows("école")
        first, second, _ = rows.messages("lundi", -1)
        rows.replace_messages("lundi", [Change(second, second._replace(body=first.body))])
        rows.replace_document(rows.documents(None)[0], b'"plain"')
    code, out, err = plume("conversations", "verify", "--store", url, "--json")
    told = json.loads(out)
    assert (code, told["verified"], WORD in out + err) == (1, 2, False)
    places = [{name: value for name, value in fault.items() if name != "message"} for fault in told["faults"]]
    assert places == [
        {"tenant": "école", "conversation": "lundi", "part": "message", "position": 1},
        {"tenant": "école", "kind": "note", "document": "n", "revision": 1},
    ]
    code, out, err = plume("conversations", "verify", "--store", url)
    assert (code, "2 faults" in out, "position 1" in err) == (1, True, True)


def test_a_command_is_asked_for_the_key_once(plume: Plume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may ask a person."""
    open_store(f"sqlite:///{tmp_path / 'a.db'}", keys=(master_key(SECRET),)).close()
    asked = tmp_path / "asked"
    monkeypatch.setenv(KEY_COMMAND, f"sh -c 'echo >> \"{asked}\"; echo {SECRET.hex()}'")
    assert plume("conversations", "rotate-key", "--store", f"sqlite:///{tmp_path / 'a.db'}")[0] == 0
    assert asked.read_text() == "\n"


def test_sealing_what_was_plain_leaves_nothing_of_it_in_the_file(
    plume: Plume,
    file: Path,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with open_store(url) as store:
        mine = store.tenant("a")
        mine.create("b", metadata={"title": WORD})
        mine.append("b", said(*[WORD] * 120))
    assert any(WORD.encode() in path.read_bytes() for path in tmp_path.glob("a.db*"))
    code, _, err = plume("conversations", "verify", "--store", url, "--store-key-file", str(file))
    assert (code, "rotate-key --seal" in err) == (2, True)
    code, out, _ = plume("conversations", "rotate-key", "--seal", "--store", url, "--store-key-file", str(file))
    assert (code, out.startswith("121 bodies")) == (0, True)
    assert not any(WORD.encode() in path.read_bytes() for path in tmp_path.glob("a.db*"))
    with open_store(url, keys=master_keys(file, environ={})) as store:
        assert store.tenant("a").read("b").messages == tuple(said(*[WORD] * 120))


def test_verify_says_that_a_store_is_still_being_sealed(
    plume: Plume,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with open_store(url) as store:
        for name in "bc":
            store.tenant(name).create("d", metadata={"title": WORD})
            store.tenant(name).append("d", said(WORD, WORD))
    monkeypatch.setenv(KEY, SECRET.hex())
    with open_to_seal(url, master_keys()) as store:
        next(rotate(store, url, master_keys()))  # and is killed
    code, out, err = plume("conversations", "verify", "--store", url, "--json")
    assert (code, json.loads(out)) == (1, {"verified": 2, "faults": [], "state": "sealing", "plain": 3})
    code, out, err = plume("conversations", "verify", "--store", url)
    assert (code, "3 bodies not sealed" in out, "rotate-key goes on" in err) == (1, True, True)
    assert plume("conversations", "rotate-key", "--store", url)[0] == 0
    code, out, err = plume("conversations", "verify", "--store", url)
    assert (code, "all open" in out, err) == (0, True, "")


def test_a_missing_library_is_named_with_the_line_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from plume.errors import UserError\nfrom plume.memory import open_store\n"
        "from plume.memory.sealing.master import master_keys\n"
        "try:\n    open_store('memory:', keys=master_keys())\n"
        "except UserError as error:\n    print(error.message, error.hint, sep='|')"
    )
    environment = {**os.environ, KEY: SECRET.hex()}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8", env=environment
    )
    assert done.stdout.strip().split("|") == [
        "memory:: the library cryptography is missing",
        "pip install 'plume-lm[sealing]'",
    ]


@pytest.fixture
def sealed(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'plume.db'}", keys=[master_key(SECRET)])


def test_the_server_keeps_conversations_in_a_sealed_store(sealed: Store, tmp_path: Path) -> None:
    key = create_key(sealed, "school")[0]
    with running(tmp_path, {"any": untrained()}, store=sealed, require_key=True) as server:
        with server.client(key) as client:
            made = client.conversations.create(metadata={"title": WORD})
            client.conversations.items.create(made.id, items=[{"role": "user", "content": f"{WORD} ?"}])
            answer = client.responses.create(model="any", input=WORD, conversation=made.id, max_output_tokens=8)
            items = list(client.conversations.items.list(made.id, order="asc"))
            assert WORD in str(items[0])
            assert client.responses.retrieve(answer.id).id == answer.id
        held = b"".join(path.read_bytes() for path in tmp_path.glob("plume.db*"))
        assert made.id.encode() in held
        assert WORD.encode() not in held
