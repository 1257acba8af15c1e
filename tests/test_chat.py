"""A turn of a conversation that is kept, and `plume chat`, which is made of them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import plume as package
from plume import chat
from plume.chat import Kept, Told, begin, history, regenerate, turn, undo
from plume.errors import ContextExceeded, ConversationChanged, NotFound, PlumeError, UserError
from plume.generation.engine import Engine
from plume.memory import open_store
from plume.memory.redacting import RedactingStore
from plume.memory.sealing.master import master_keys
from plume.memory.store import LOCAL, Tenant
from plume.memory.vault import find_vault, restore
from plume.models.bundle import load, save
from plume.redact import Redaction, listed
from plume.types import Chunk, Message, Sampling
from serving import untrained
from test_cli import Plume, plume  # noqa: F401
from test_store import url  # noqa: F401

CONTEXT = 160
SHORT = Sampling(max_new_tokens=6)
PERSONA = "Tu gardes le phare."
SECONDS = 60
PERSISTENT = pytest.mark.parametrize("url", ["sqlite", "postgresql", "mysql", "redis"], indirect=True)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(untrained(context=CONTEXT))


@pytest.fixture
def tenant() -> Iterator[Tenant]:
    with open_store("memory:") as store:
        yield store.tenant(LOCAL)


def saved(directory: Path, context: int = 2048) -> Path:
    directory.mkdir(exist_ok=True)
    save(untrained(context=context), directory, "")
    return directory


def said(tenant: Tenant, id: str) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in tenant.read(id).messages]


def ask(engine: Engine, tenant: Tenant, id: str, question: str, **options: Any) -> tuple[Told, str, Kept]:
    told, *chunks, kept = turn(engine, tenant, id, question, options.pop("sampling", SHORT), **options)
    assert isinstance(told, Told)
    assert isinstance(kept, Kept)
    return told, "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), kept


# --- one turn ---


def test_question_and_answer_are_kept_together_as_they_were_said(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    told, answer, kept = ask(engine, tenant, id, "Où est l’île ?")
    assert said(tenant, id) == [("system", PERSONA), ("user", "Où est l’île ?"), ("assistant", answer)]
    assert (kept.question, kept.answer) == tenant.read(id).items[1:]
    assert (told.conversation, told.left_out) == (id, 0)


def test_the_next_turn_reads_what_was_said_before(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    ask(engine, tenant, id, "un")
    told, answer, _ = ask(engine, tenant, id, "deux")
    before = [*tenant.read(id).messages[:3], Message("user", "deux")]
    prompt = engine.prompt(before)
    assert told.tokens == len(prompt)
    assert engine.generate([prompt], SHORT)[0].text == answer


def test_a_long_talk_never_exceeds_the_context_and_reports_what_is_left_out(engine: Engine, tenant: Tenant) -> None:
    id, seen = begin(tenant, PERSONA).id, []
    for number in range(12):
        told, _, _ = ask(engine, tenant, id, f"question numéro {number}")
        assert told.tokens <= CONTEXT - SHORT.max_new_tokens
        seen.append(told.left_out)
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[-1] > 10
    assert len(tenant.read(id).items) == 1 + 2 * 12


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cancelled_turn_leaves_nothing_behind(engine: Engine, tenant: Tenant, after: int) -> None:
    id = begin(tenant).id
    events = turn(engine, tenant, id, "un", SHORT)
    for _ in range(1 + after):
        next(events)
    events.close()
    assert tenant.read(id).head == 0
    assert engine.running == 0


def test_a_turn_that_cannot_be_answered_leaves_nothing_behind(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    for question, sampling in (("long " * 200, SHORT), ("un", Sampling(max_new_tokens=CONTEXT))):
        with pytest.raises(ContextExceeded, match="the newest turn with the persona before it has"):
            list(turn(engine, tenant, id, question, sampling))
    with pytest.raises(UserError, match="n is 2"):
        list(turn(engine, tenant, id, "un", Sampling(n=2, temperature=1.0)))
    with pytest.raises(NotFound):
        list(turn(engine, tenant, "conv_none", "un", SHORT))
    assert said(tenant, id) == [("system", PERSONA)]


def test_an_answer_that_fails_leaves_nothing_behind(tenant: Tenant) -> None:
    made = untrained(context=CONTEXT)
    broken = copy.deepcopy(made.model)
    for parameter in broken.parameters():
        parameter.data.fill_(math.nan)
    id = begin(tenant).id
    with pytest.raises(PlumeError):
        list(turn(Engine(replace(made, model=broken)), tenant, id, "un", SHORT))
    assert tenant.read(id).head == 0


def test_who_writes_meanwhile_wins_and_the_turn_says_so(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant).id
    events = turn(engine, tenant, id, "un", SHORT)
    next(events)
    tenant.append(id, [Message("user", "moi d’abord"), Message("assistant", "soit")])
    with pytest.raises(ConversationChanged):
        list(events)
    assert said(tenant, id) == [("user", "moi d’abord"), ("assistant", "soit")]


def test_a_repeated_turn_is_told_as_it_stands(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant).id
    ids = ("q1", "a1")
    _, answer, kept = ask(engine, tenant, id, "un", ids=ids)
    again = list(turn(engine, tenant, id, "un", replace(SHORT, temperature=1.0, seed=9), ids=ids))
    assert again == [Chunk(answer, (), "stop"), kept]
    assert len(tenant.read(id).items) == 2
    with pytest.raises(UserError, match="another message"):
        list(turn(engine, tenant, id, "deux", SHORT, ids=ids))


def test_what_is_redacted_is_kept_redacted_asked_as_it_is_and_may_be_repeated(engine: Engine) -> None:
    wanted = Redaction(names=listed(["Maëlle"]))
    with RedactingStore(open_store("memory:"), wanted, bytes(32)) as store:
        tenant = store.tenant(LOCAL)
        id, ids = begin(tenant).id, ("q1", "a1")
        told, answer, kept = ask(engine, tenant, id, "je suis Maëlle", ids=ids)
        assert said(tenant, id) == [("user", "je suis [NOM]"), ("assistant", answer)]
        assert told.tokens == len(engine.prompt([Message("user", "je suis Maëlle")]))
        assert list(turn(engine, tenant, id, "je suis Maëlle", SHORT, ids=ids)) == [Chunk(answer, (), "stop"), kept]
        with pytest.raises(UserError, match="another message"):
            list(turn(engine, tenant, id, "je suis là", SHORT, ids=ids))


def test_recalled_messages_are_told_out_of_turn(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    for number in range(10):
        tenant.append(id, [Message("user", f"question numéro {number}"), Message("assistant", "soit")])
    asked: list[str] = []

    def recall(question: str) -> list[int]:
        asked.append(question)
        return [999, 3]

    told, _, _ = ask(engine, tenant, id, "et toi ?", recall=recall)
    assert asked == ["et toi ?"]
    assert told.recalled == 2
    assert told.tokens <= CONTEXT - SHORT.max_new_tokens


def test_a_summary_is_written_once_for_what_is_left_out(engine: Engine, tenant: Tenant) -> None:
    made = tenant.create(metadata={"titre": "phare"})
    for number in range(10):
        tenant.append(made.id, [Message("user", f"question numéro {number}"), Message("assistant", "soit")])
    told, _, _ = ask(engine, tenant, made.id, "et toi ?", summary=True)
    kept = tenant.read(made.id, first=0).metadata
    assert told.summarised
    assert kept["titre"] == "phare"
    assert kept[chat.SUMMARY]
    assert kept[chat.SUMMARISED] % 2 == 0
    assert 0 < told.left_out - kept[chat.SUMMARISED] <= 4  # the summary itself takes room
    assert chat.SUMMARY not in tenant.read(begin(tenant).id).metadata


def test_without_anything_left_out_there_is_no_summary(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant).id
    told, _, _ = ask(engine, tenant, id, "un", summary=True)
    assert not told.summarised
    assert not tenant.read(id).metadata


def test_more_messages_than_the_context_has_tokens_are_not_read(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    turns = [(Message("user", f"u{n}"), Message("assistant", f"a{n}")) for n in range(200)]
    tenant.append(id, [message for pair in turns for message in pair])
    found = history(tenant, id, CONTEXT)
    assert found.messages[0] == Message("system", PERSONA)
    assert found.messages[1].role == "user"
    assert len(found.items) == 1 + CONTEXT
    assert found.unread == 400 - CONTEXT
    told, _, _ = ask(engine, tenant, id, "un")
    kept = (told.tokens - 20) // 8
    assert 400 - 2 * kept - 20 < told.left_out < 400
    assert len(history(tenant, id, CONTEXT, whole=True).items) == 403


def test_a_conversation_just_as_long_as_the_context_is_whole(tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    tenant.append(id, [Message("assistant", "bonjour"), Message("user", "un"), Message("assistant", "soit")])
    assert len(history(tenant, id, 4).items) == 4
    assert [item.position for item in history(tenant, id, 3).items] == [0, 2, 3]


# --- taking back ---


def test_undo_takes_the_last_turn_out_and_moves_the_head(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant, PERSONA).id
    ask(engine, tenant, id, "un")
    before = tenant.read(id)
    ask(engine, tenant, id, "deux")
    removed = undo(tenant, id)
    assert removed[0].message.content == "deux"
    assert tenant.read(id).items == before.items
    assert tenant.read(id).head > before.head + 2
    undo(tenant, id)
    with pytest.raises(UserError, match="nothing has been asked"):
        undo(tenant, id)


def test_regenerate_answers_the_last_question_anew(engine: Engine, tenant: Tenant) -> None:
    warm = replace(SHORT, temperature=2.0)
    id = begin(tenant, PERSONA).id
    ask(engine, tenant, id, "un", sampling=warm)
    first = said(tenant, id)
    told, *_, kept = regenerate(engine, tenant, id, warm)
    assert isinstance(told, Told)
    assert isinstance(kept, Kept)
    assert told.tokens == len(engine.prompt([Message("system", PERSONA), Message("user", "un")]))
    assert said(tenant, id)[:2] == first[:2]
    assert said(tenant, id)[2:] != first[2:]
    assert tenant.read(id).items[1:] == (kept.question, kept.answer)


def test_regenerate_loses_no_answer_when_somebody_else_writes(engine: Engine, tenant: Tenant) -> None:
    id = begin(tenant).id
    ask(engine, tenant, id, "un")
    events = regenerate(engine, tenant, id, SHORT)
    next(events)
    tenant.append(id, [Message("user", "deux"), Message("assistant", "soit")])
    before = said(tenant, id)
    with pytest.raises(ConversationChanged):
        list(events)
    assert said(tenant, id) == before


def test_the_package_gives_the_turn_and_the_store(engine: Engine) -> None:
    with package.open_store("memory:") as store:
        tenant = store.tenant("alice")
        *_, kept = package.chat.turn(engine, tenant, tenant.create().id, "un", SHORT)
        assert isinstance(kept, package.chat.Kept)


# --- the persona of a model ---


def test_a_persona_in_the_models_directory_is_told_before_everything(tmp_path: Path) -> None:
    plain = load(saved(tmp_path / "model"))
    (tmp_path / "model" / "persona.txt").write_text(f"\n{PERSONA}\n", encoding="utf-8")
    keeper = load(tmp_path / "model")
    question = Message("user", "Où est l’île ?")
    assert Engine(keeper).prompt([question]) == Engine(plain).prompt([Message("system", PERSONA), question])
    own = [Message("system", "Tu vends du pain."), question]
    assert Engine(keeper).prompt(own) == Engine(plain).prompt(own)
    (tmp_path / "copy").mkdir()
    save(keeper, tmp_path / "copy", "")
    assert Engine(load(tmp_path / "copy")).prompt([question]) == Engine(keeper).prompt([question])


@pytest.mark.parametrize(
    ("content", "words"), [(b" \n", "is empty"), (b"\xe9t\xe9", "not UTF-8"), (b"a<eos>", "<eos>")]
)
def test_a_persona_that_is_none_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    directory = saved(tmp_path / "model")
    (directory / "persona.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        load(directory)


# --- plume chat, from a pipe ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"))


@pytest.fixture
def talk(plume: Plume, monkeypatch: pytest.MonkeyPatch, model: Path) -> Callable[..., tuple[int, str, str]]:  # noqa: F811
    """`plume chat` with these lines on stdin."""

    def run(lines: str | bytes, *arguments: str, model: Path = model) -> tuple[int, str, str]:
        given = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        return plume("chat", str(model), *arguments, "--set", "max_new_tokens=8")

    return run


Talk = Callable[..., tuple[int, str, str]]


def id_in(err: str) -> str:
    found = re.search(r"conv_[0-9a-f]+", err)
    assert found is not None, err
    return found[0]


def test_each_line_of_a_pipe_is_a_question(talk: Talk, tmp_path: Path) -> None:
    code, out, err = talk("Où est l’île ?\n\nune autre\n")
    with open_store(f"sqlite:///{tmp_path / 'plume-data' / 'plume.db'}") as store:
        kept = store.tenant(LOCAL).read(id_in(err)).messages
    assert code == 0
    assert [message.content for message in kept][::2] == ["Où est l’île ?", "une autre"]
    assert out == "".join(f"{message.content}\n" for message in kept[1::2])
    assert f"--conversation {id_in(err)}" in err


def test_what_to_type_to_go_on_is_all_that_was_given(talk: Talk, tmp_path: Path, model: Path) -> None:
    kept_at = f"sqlite:///{tmp_path / 'talk.db'}"
    code, _, err = talk("un\n", "--set", "temperature=0.5", "--summary", "--store", kept_at)
    again = f"plume chat {model} --set temperature=0.5 --set max_new_tokens=8 --store {kept_at} --summary"
    assert (code, f"{again} --conversation {id_in(err)}" in err) == (0, True), err


def test_what_ends_with_the_program_cannot_go_on(talk: Talk) -> None:
    code, _, err = talk("un\n", "--store", "memory:")
    assert (code, "goes on" in err) == (0, False)


def test_a_talk_as_json(talk: Talk) -> None:
    code, out, err = talk("un\n/history\n/regenerate\n/undo\n/quit\nnever asked\n", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events if event["event"] != "chunk"]
    assert (code, kinds) == (0, ["told", "kept", "message", "message", "told", "kept", "removed"])
    assert events[0] == {
        "event": "told",
        "conversation": id_in(err),
        "tokens": events[0]["tokens"],
        "left_out": 0,
        "recalled": 0,
        "summarised": False,
    }
    message = next(event for event in events if event["event"] == "message")
    assert message == {"event": "message", "id": message["id"], "role": "user", "content": "un"}
    assert "greedy" in err
    assert "never asked" not in out


def test_the_persona_of_a_conversation_is_given_once(talk: Talk, tmp_path: Path) -> None:
    persona = tmp_path / "keeper.txt"
    persona.write_text(PERSONA, encoding="utf-8")
    _, _, err = talk("un\n", "--persona", str(persona))
    id = id_in(err)
    code, out, _ = talk("/history\n", "--conversation", id)
    assert code == 0
    assert out.splitlines()[:2] == [f"system: {PERSONA}", "user: un"]
    assert talk("/history\n", "--conversation", id, "--persona", str(persona))[:2] == (0, out)
    with open_store(f"sqlite:///{tmp_path / 'plume-data' / 'plume.db'}") as store:
        empty = store.tenant(LOCAL).create().id
    code, out, _ = talk("/history\n", "--conversation", empty, "--persona", str(persona))
    assert (code, out) == (0, f"system: {PERSONA}\n")
    persona.write_text("Tu vends du pain.", encoding="utf-8")
    code, _, err = talk("deux\n", "--conversation", id, "--persona", str(persona))
    assert (code, "another persona" in err) == (2, True)


def test_a_talk_says_what_no_longer_fits(talk: Talk, tmp_path: Path) -> None:
    code, _, err = talk("une question\n" * 8, model=saved(tmp_path / "small", context=64))
    assert code == 0
    assert re.search(r"no longer fit: [1-9]\d* left out", err)


@pytest.mark.parametrize(
    ("lines", "arguments", "words"),
    [
        ("un\n", ["--conversation", "conv_none"], "no conversation 'conv_none'"),
        ("/undo\n", [], "nothing has been asked"),
        ("/redo\n", [], "/redo is no command"),
        (b"\xe9t\xe9\n", [], "not valid UTF-8"),
        ("un\n", ["--store", "ftp://x"], "names no store"),
        ("un\n", ["--set", "n=2", "--set", "temperature=1"], "n is 2"),
        ("un\n", ["--persona", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_mistakes_end_a_piped_talk_in_words(talk: Talk, lines: Any, arguments: list[str], words: str) -> None:
    code, out, err = talk(lines, *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_first_question_that_fails_leaves_no_conversation(talk: Talk, tmp_path: Path) -> None:
    small, persona = saved(tmp_path / "small", context=64), tmp_path / "keeper.txt"
    persona.write_text(PERSONA, encoding="utf-8")
    code, out, err = talk("une très longue question " * 40 + "\n", "--persona", str(persona), model=small)
    assert (code, out, "goes on" in err, "context" in err) == (2, "", False, True), err
    with open_store(f"sqlite:///{tmp_path / 'plume-data' / 'plume.db'}") as store:
        assert not store.tenant(LOCAL).conversations()


def test_no_password_is_shown(talk: Talk) -> None:
    code, _, err = talk("un\n", "--store", "postgresql://plume:geheim@127.0.0.1:1/none")
    assert code != 0
    assert "geheim" not in err


@PERSISTENT
def test_a_talk_goes_on_in_another_process_on_every_store(url: str, talk: Talk, model: Path) -> None:  # noqa: F811
    _, first, err = talk("Où est l’île ?\n", "--store", url)
    id = id_in(err)
    command = [sys.executable, "-m", "plume", "chat", str(model), "--store", url, "--conversation", id]
    given = "une autre\n/history\n"
    done = subprocess.run(
        [*command, "--set", "max_new_tokens=8"], input=given, capture_output=True, encoding="utf-8", check=True
    )
    with open_store(url) as store:
        kept = store.tenant(LOCAL).read(id).messages
    assert [message.content for message in kept[:3]] == ["Où est l’île ?", first.removesuffix("\n"), "une autre"]
    told = "".join(f"{message.role}: {message.content}\n" for message in kept)
    assert done.stdout == f"{kept[-1].content}\n{told}"
    engine = Engine(load(model))
    assert engine.generate([engine.prompt(kept[:3])], replace(SHORT, max_new_tokens=8))[0].text == kept[-1].content


# --- plume chat, at a terminal ---


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.seen = ""
        self._pid, self._end = pty.fork()
        if self._pid == 0:
            os.execv(command[0], command)

    def wait(self, pattern: str) -> str:
        """What comes until the pattern does, with it."""
        limit = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            ready, _, _ = select.select([self._end], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"{pattern!r} did not come; what came: {self.seen!r}"
            self.seen += os.read(self._end, 2**16).decode("utf-8", errors="replace").replace("\r\n", "\n")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def insist(self, key: str, word: str) -> None:
        """Press a key until its word comes."""
        limit = time.monotonic() + SECONDS
        while word not in self.seen and time.monotonic() < limit:
            self.type(key)
            if select.select([self._end], [], [], 1)[0]:
                self.seen += os.read(self._end, 2**16).decode("utf-8", errors="replace")
        assert word in self.seen

    def ended(self) -> int:
        with contextlib.suppress(OSError):  # the terminal is gone with its last program
            while os.read(self._end, 2**16):
                pass
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@pytest.fixture
def terminal(model: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "dumb")
    endless = f"logit_bias={{{untrained().tokenizer.eos_id}: -100}}"
    command = (sys.executable, "-m", "plume", "chat", str(model), "--store", "sqlite:///talk.db")
    return Terminal(*command, "--set", "max_new_tokens=1500", "--set", endless)


def test_at_a_terminal_ctrl_c_stops_the_answer_and_the_talk_goes_on(terminal: Terminal) -> None:
    terminal.wait(r"/help shows the commands\n> ")
    terminal.type("un\n")
    terminal.wait(r"un\n...")
    terminal.type("\x03")
    assert "conversation" not in terminal.wait(r"stopped: neither.*> ")
    terminal.type("/redo\n")
    terminal.wait(r"/redo is no command.*> ")
    terminal.type("/history\n")
    terminal.wait(r"nothing has been asked.*> ")
    terminal.type("\x04")
    assert terminal.ended() == 0
    with open_store("sqlite:///talk.db") as store:
        assert not store.tenant(LOCAL).conversations()


def test_at_a_terminal_ctrl_c_without_an_answer_ends(terminal: Terminal) -> None:
    terminal.wait(r"/help shows the commands\n> ")
    terminal.insist("\x03", "interrupted")  # CPython misses a Ctrl-C that comes right behind its prompt
    assert terminal.ended() == 130


def test_a_talk_that_redacts_and_recalls(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUME_VAULT_KEY", bytes(range(32)).hex())
    (tmp_path / "noms.txt").write_text("Rose\n", encoding="utf-8")
    names = ["--redact", "all", "--redact-names", str(tmp_path / "noms.txt")]
    code, _, err = talk("Je suis Rose, rose@phare.fr\nEt le bateau ?\n", *names, "--recall")
    assert code == 0, err
    assert f"--recall --redact all --redact-names {tmp_path / 'noms.txt'} --conversation {id_in(err)}" in err
    code, _, later = talk("Écris à ROSE@phare.fr et luc@phare.fr\n", *names, "--recall", "--conversation", id_in(err))
    assert code == 0, later
    with open_store(f"sqlite:///{tmp_path / 'plume-data' / 'plume.db'}") as store:
        tenant = store.tenant(LOCAL)
        kept = [item.message.content for item in tenant.read(id_in(err)).items if item.message.role == "user"]
        assert kept == ["Je suis [NOM], [EMAIL]", "Et le bateau ?", "Écris à [EMAIL] et [EMAIL_2]"]
        assert len(tenant.vectors(id_in(err))) >= 2
        assert restore("[EMAIL_2]", find_vault(tenant, id_in(err)), bytes(range(32))) == "luc@phare.fr"


@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
def test_a_talk_that_redacts_on_a_sealed_store_goes_on_in_another_process(
    url: str,  # noqa: F811
    talk: Talk,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{url}.sealed" if url.startswith("sqlite") else f"{url.rpartition('/')[0]}/1"  # an empty one
    monkeypatch.setenv("PLUME_VAULT_KEY", bytes(range(32)).hex())
    key = tmp_path / "store.key"
    key.write_text("5e" * 32, encoding="ascii")
    key.chmod(0o600)
    sealed = ["--store", url, "--store-key-file", str(key), "--recall", "--redact", "all"]
    code, _, err = talk("Je suis marie@phare.fr\n", *sealed)
    assert code == 0, err
    assert f"--store-key-file {key} --recall --redact all --conversation {id_in(err)}" in err
    command = [sys.executable, "-m", "plume", "chat", str(model), *sealed, "--conversation", id_in(err)]
    given = "luc@phare.fr et MARIE@phare.fr\n/history\n"
    done = subprocess.run(
        [*command, "--set", "max_new_tokens=8"], input=given, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert "user: Je suis [EMAIL]\n" in done.stdout
    assert "user: [EMAIL_2] et [EMAIL]\n" in done.stdout
    with open_store(url, keys=master_keys(key)) as store:
        tenant = store.tenant(LOCAL)
        assert restore("[EMAIL_2]", find_vault(tenant, id_in(err)), bytes(range(32))) == "luc@phare.fr"
        assert len(tenant.vectors(id_in(err))) >= 1
    code, _, err = talk("bonjour\n", "--store", url)
    assert (code, "no key was given" in err) == (2, True)


def test_a_redacted_talk_goes_on_redacted_under_its_key_and_persona(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("noms.txt", "Rose\n"), ("rose.txt", "Tu es Rose."), ("luc.txt", "Tu es Luc.")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    redacted = ["--redact-names", str(tmp_path / "noms.txt"), "--persona"]
    monkeypatch.setenv("PLUME_VAULT_KEY", bytes(32).hex())
    id = id_in(talk("un\n", *redacted, str(tmp_path / "rose.txt"))[2])
    code, out, err = talk("/history\n", *redacted, str(tmp_path / "rose.txt"), "--conversation", id)
    assert (code, out.splitlines()[0]) == (0, "system: Tu es [NOM]."), err
    code, _, err = talk("deux\n", *redacted, str(tmp_path / "luc.txt"), "--conversation", id)
    assert (code, "another persona" in err) == (2, True)
    code, out, err = talk("Je suis Rose\n", "--conversation", id)
    assert (code, out, "would go on in plain text" in err) == (2, "", True)
    monkeypatch.setenv("PLUME_VAULT_KEY", bytes(range(32)).hex())
    code, out, err = talk("deux\n", *redacted[:2], "--conversation", id)
    assert (code, out, "was sealed with the key" in err) == (2, "", True)


def test_a_talk_that_is_to_redact_without_a_key_does_not_begin(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUME_VAULT_KEY", raising=False)
    code, _, err = talk("bonjour\n", "--redact", "all")
    assert (code, "PLUME_VAULT_KEY" in err, "conv_" in err) == (2, True, False)


def test_a_model_that_is_not_there_leaves_no_store(plume: Plume, tmp_path: Path) -> None:  # noqa: F811
    code, _, _ = plume("chat", str(tmp_path / "nobody"), "--store", f"sqlite:///{tmp_path}/talks.db")
    assert code == 2
    assert not list(tmp_path.iterdir())
