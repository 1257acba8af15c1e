"""`plume conversations`, as a person uses it."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest

from plume.memory import open_store
from plume.memory.keys import create_key
from plume.types import Message, ToolCall
from test_cli import Plume, plume  # noqa: F401


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """A store where the command looks for it, with conversations of three tenants."""
    (tmp_path / "plume-data").mkdir()
    url = f"sqlite:///{tmp_path / 'plume-data' / 'plume.db'}"
    with open_store(url) as store:
        for tenant, user in (("local", None), ("local", "zoé"), ("école", "zoé")):
            one = store.tenant(tenant)
            id = one.create(f"{tenant} {user}", metadata={"titre": "Le phare"}, user=user).id
            one.append(id, [Message("user", "Où est [bold]le phare ?"), Message("assistant", "Sur l’îlot.")])
        create_key(store, "école")
    return url


def test_conversations_are_listed_and_shown(kept: str, plume: Plume) -> None:  # noqa: F811, ARG001
    code, out, err = plume("conversations", "list", "--json")
    listed = json.loads(out)["conversations"]
    assert (code, err) == (0, "")
    assert [(one["tenant"], one["user"], one["head"]) for one in listed] == [
        ("local", "zoé", 2),
        ("local", None, 2),
        ("école", "zoé", 2),
    ]
    _, out, _ = plume("conversations", "list", "--tenant", "local", "--user", "zoé", "--json")
    assert [one["id"] for one in json.loads(out)["conversations"]] == ["local zoé"]
    code, out, _ = plume("conversations", "list")
    assert (code, out.count("zoé"), "plume:" in out) == (0, 4, False)
    _, out, _ = plume("conversations", "show", "local None")
    assert out == "user: Où est [bold]le phare ?\nassistant: Sur l’îlot.\n"
    _, out, _ = plume("conversations", "show", "école zoé", "--tenant", "école", "--json")
    shown = json.loads(out)
    assert ([item["content"] for item in shown["items"]][1], shown["metadata"]) == (
        "Sur l’îlot.",
        {"titre": "Le phare"},
    )


def test_calls_of_tools_and_their_results_are_shown(kept: str, plume: Plume) -> None:  # noqa: F811
    call = ToolCall("look", '{"what": "lampe"}', "call_1")
    with open_store(kept) as store:
        asked, told = Message("assistant", "", (call,)), Message("tool", "en haut", tool_call_id="call_1")
        store.tenant("local").append(
            "local None", [asked, told, Message("assistant", "Là-haut.", (ToolCall("ring", "{}"),))]
        )
    _, out, _ = plume("conversations", "show", "local None")
    assert out.splitlines()[2:] == [
        'assistant calls look as call_1: {"what": "lampe"}',
        "tool answers call_1: en haut",
        "assistant: Là-haut.",
        "assistant calls ring: {}",
    ]


HOSTILE = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b31mà\r\tfin\x7f"


def test_a_terminal_obeys_no_stored_text_and_a_pipe_gets_it_as_it_is(
    kept: str,
    plume: Plume,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_store(kept) as store:
        tenant = store.tenant("local")
        calls = (ToolCall(HOSTILE, HOSTILE, "call_1"),)
        tenant.append("local None", [Message("user", HOSTILE), Message("assistant", "", calls)])
        tenant.create("autre", user=f"zoé{HOSTILE}")
    assert f"user: {HOSTILE}\n" in plume("conversations", "show", "local None")[1]
    for arguments in (["show", "local None"], ["show", "local None", "--json"], ["list"]):
        with monkeypatch.context() as at:
            at.setattr(sys.stdout, "isatty", lambda: True)
            written = plume("conversations", *arguments)[1]
        assert "fin" in written
        controls = re.sub(r"\x1b\[[0-9;]*m", "", written) if arguments == ["list"] else written  # bold, by the table
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", controls), repr(written)
        if "--json" in arguments:
            assert HOSTILE in [item["content"] for item in json.loads(written)["items"]]


def test_an_id_is_listed_whole(kept: str, plume: Plume) -> None:  # noqa: F811
    who = "Marie-Françoise [red]de l’Île-aux-Moines[/bold] " * 3
    with open_store(kept) as store:
        id = store.tenant("école").create(user=who).id
    code, out, _ = plume("conversations", "list")
    line = next(line for line in out.splitlines() if id in line)
    assert (code, who.strip() in line) == (0, True)


def test_a_person_is_exported_and_erased(kept: str, plume: Plume) -> None:  # noqa: F811
    code, out, err = plume("conversations", "export", "--user", "zoé")
    records = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [record["record"] for record in records] == ["export", "conversation", "message", "message", "end"]
    code, out, err = plume("conversations", "erase", "--user", "zoé")
    assert (code, out, "--yes" in err) == (2, "", True)
    code, out, err = plume("conversations", "erase", "--user", "zoé", "--yes")
    assert (code, err) == (0, "")
    assert "1 conversations with 2 messages" in out
    _, out, _ = plume("conversations", "erase", "--tenant", "école", "--yes", "--json")
    receipt = json.loads(out)
    assert (receipt["removed"]["conversations"], receipt["keys"], receipt["left"]) == (1, 1, [])
    with open_store(kept) as store:
        assert [one.id for one in store.tenant("local").conversations()] == ["local None"]
        assert not store.tenant("école").conversations()
    _, out, _ = plume("conversations", "audit", "--user", "zoé", "--json")
    told = [json.loads(line)["entry"] for line in out.splitlines()]
    assert [(entry["what"], entry["who"]) for entry in told] == [("export", "command line"), ("erase", "command line")]
    assert "zoé" not in out
    _, out, _ = plume("conversations", "audit")
    assert [line.split()[1] for line in out.splitlines()] == ["create_key", "export", "erase", "erase"]


def test_an_erasure_that_a_reader_holds_up_says_what_it_did(
    kept: str,
    plume: Plume,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plume.memory.sql.connect.SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(kept.removeprefix("sqlite:///"))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM plume_items").fetchone()
        code, out, err = plume("conversations", "erase", "--user", "zoé", "--yes")
        assert (code, "1 conversations with 2 messages" in out) == (1, True)
        assert "left to do" in err
        assert "another program reads" in err
        code, out, _ = plume("conversations", "erase", "--user", "zoé", "--yes", "--json")
        assert (code, json.loads(out)["scrubbed"]) == (1, False)
    _, out, _ = plume("conversations", "audit", "--user", "zoé", "--json")
    assert [json.loads(line)["entry"]["conversations"] for line in out.splitlines()] == [1, 0]
    assert plume("conversations", "erase", "--user", "zoé", "--yes")[0] == 0


def test_a_lifetime_is_set_and_what_has_expired_is_purged(kept: str, plume: Plume) -> None:  # noqa: F811
    assert "kept for good" in plume("conversations", "lifetime")[1]
    assert "for 30 days" in plume("conversations", "lifetime", "--days", "30")[1]
    _, out, _ = plume("conversations", "lifetime", "--json")
    assert json.loads(out) == {"tenant": "local", "lifetime": 30 * 86400}
    assert "for good" in plume("conversations", "lifetime", "--forever")[1]
    with open_store(kept, clock=lambda: 1e9) as store:
        store.tenant("local").create("over", ttl=1)
        store.tenant("local").put("note", "over", 1, ttl=1)
    code, out, _ = plume("conversations", "purge", "--json")
    assert (code, json.loads(out)) == (0, {"conversations": 1, "messages": 0, "documents": 1})
    assert plume("conversations", "purge")[1] == "removed 0 conversations with 0 messages, 0 documents\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["conversations", "list"],
        ["conversations", "show", "lundi"],
        ["conversations", "export"],
        ["conversations", "erase", "--yes"],
        ["conversations", "purge"],
        ["conversations", "lifetime"],
        ["conversations", "audit"],
        ["conversations", "rotate-key"],
        ["conversations", "rotate-key", "--seal"],
        ["conversations", "verify"],
        ["keys", "list"],
        ["keys", "revoke", "0f3a6b1c2d4e5f60"],
    ],
    ids=" ".join,
)
def test_a_mistyped_store_is_none_and_stays_none(
    plume: Plume,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLUME_STORE_KEY", "ab" * 32)
    for named in (["--store", "sqlite:///typo.db"], ["--data-dir", "typo"]):
        code, out, err = plume(*arguments, *named)
        assert (code, out) == (2, "")
        assert "there is no store" in err
        assert "typo" in err
        assert "--store" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nowhere"], "there is no conversation"),
        (["list", "--tenant", "plume:sealing"], "Plume's own"),
        (["show", "names", "--tenant", "plume:audit"], "Plume's own"),
        (["export", "--tenant", "plume:audit"], "Plume's own"),
        (["erase", "--tenant", "plume:keys", "--yes"], "Plume's own"),
        (["lifetime", "--tenant", "plume:keys"], "Plume's own"),
        (["lifetime", "--tenant", "plume:keys", "--days", "1"], "Plume's own"),
        (["lifetime", "--days", "-1"], "positive number"),
        (["lifetime", "--days", "1", "--forever"], "both given"),
        (["list", "--store", "mongodb://h"], "names no store"),
        (["list", "--limit", "-1"], "ask for none or more"),
    ],
)
def test_what_cannot_be_done_with_conversations_is_said(
    kept: str,  # noqa: ARG001
    plume: Plume,  # noqa: F811
    arguments: list[str],
    said: str,
) -> None:
    code, out, err = plume("conversations", *arguments)
    assert (code, out) == (2, "")
    assert said in err
