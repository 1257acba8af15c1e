"""Which models there are, by which names, when they are loaded and when they are dropped; and the command itself."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Model
from typer.testing import CliRunner

from plume.cli.main import app as command
from plume.cli.serve import snippets
from plume.errors import UserError
from plume.memory import open_store
from plume.models.bundle import save
from plume.serving.app import create_app
from plume.serving.models import Entry
from plume.serving.settings import Settings
from serving import SECONDS, Running, running, untrained

ASKED: Any = [{"role": "user", "content": "Où ?"}]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "other"
    path.mkdir(parents=True)
    save(untrained(), path, "")
    return path


@pytest.fixture
def found() -> list[Entry]:
    """What the server's further source finds."""
    return []


@pytest.fixture
def served(tmp_path: Path, found: list[Entry]) -> Iterator[Running]:
    """Two models under the data directory, and a source that finds a third as soon as it is there."""
    names = {"one": untrained(), "two": untrained("raw")}
    with running(tmp_path, names, sources=[lambda: found]) as server:
        yield server


def ask(client: openai.OpenAI, name: str) -> None:
    assert client.chat.completions.create(model=name, messages=ASKED, max_tokens=2).model == name


def test_models_are_listed_and_found_by_their_names(served: Running) -> None:
    answer = httpx.get(f"{served.url}/v1/models").json()
    for model in answer["data"]:
        Model.model_validate(model, strict=True)
    assert {one["id"]: (one["trainable"], one["servable"]) for one in answer["data"]} == {
        "one": (True, True),
        "two": (True, True),
        "bigram": (True, False),
        "gru": (True, False),
        "gpt": (True, False),
    }
    with served.client() as client:
        assert client.models.retrieve("two").id == "two"
        assert client.models.retrieve("gpt").owned_by == "plume"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org/name")


def test_a_model_that_is_finished_while_the_server_runs_can_be_asked_at_once(
    served: Running, found: list[Entry], saved: Path
) -> None:
    name = "ft:gpt:anna:harbour/été:1"
    with served.client() as client:
        with pytest.raises(openai.NotFoundError):
            ask(client, name)
        found.append(Entry(name, saved, 1, "anna"))
        assert [model.id for model in client.models.list().data].count(name) == 1
        assert client.models.retrieve(name).owned_by == "anna"
        ask(client, name)


def test_models_are_loaded_when_they_are_first_asked(served: Running) -> None:
    assert not served.service.models.loaded
    with served.client() as client:
        ask(client, "one")
    assert [loaded.entry.id for loaded in served.service.models.loaded] == ["one"]


def test_the_least_recently_used_makes_room(served: Running, found: list[Entry], saved: Path) -> None:
    models = served.service.models
    with served.client() as client:
        for name in ("one", "two"):
            ask(client, name)
        each = max(loaded.nbytes for loaded in models.loaded)
        models.budget = 2 * each + each // 2
        ask(client, "one")
        found.append(Entry("three", saved, 1))
        ask(client, "three")
        assert {loaded.entry.id for loaded in models.loaded} == {"one", "three"}
        ask(client, "two")
        assert {loaded.entry.id for loaded in models.loaded} == {"two", "three"}


def test_a_model_that_is_answering_is_not_dropped(served: Running) -> None:
    models = served.service.models
    endless: Any = {"logit_bias": {str(untrained().tokenizer.eos_id): -100}, "max_tokens": 2000, "stream": True}
    with served.client() as client:
        with client.chat.completions.create(model="one", messages=ASKED, **endless) as stream:
            next(iter(stream))
            models.budget = models.loaded[0].nbytes + 1000
            with pytest.raises(openai.InternalServerError) as busy:
                ask(client, "two")
            assert (busy.value.status_code, busy.value.code) == (503, "models_busy")
            assert busy.value.response.headers["x-should-retry"] == "true"
            assert int(busy.value.response.headers["retry-after"]) >= 1
        served.until(lambda: served.outstanding == 0)
        ask(client, "two")
        models.budget = 1000
        with pytest.raises(openai.InternalServerError) as never:
            ask(client, "one")
        assert (never.value.code, never.value.response.headers["x-should-retry"]) == ("model_too_large", "false")


def test_a_broken_model_says_so_and_hides_its_place(served: Running, found: list[Entry], saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    found.append(Entry("broken", saved, 1))
    with served.client() as client:
        with pytest.raises(openai.InternalServerError) as broken:
            ask(client, "broken")
        assert broken.value.code == "model_broken"
        assert str(saved) not in str(broken.value)
        ask(client, "one")


def test_models_given_by_name_come_first_and_two_of_one_name_are_refused(tmp_path: Path, saved: Path) -> None:
    store = open_store("memory:")
    app = create_app(Settings(models=(str(saved),), data_dir=tmp_path), store)
    assert app.state.service.models.default("local").id == "other"
    twin = tmp_path / "second" / "other"
    twin.parent.mkdir()
    saved.rename(twin)
    saved.mkdir()
    save(untrained(), saved, "")
    with pytest.raises(UserError, match="two models would be called 'other'"):
        create_app(Settings(models=(str(saved), str(twin)), data_dir=tmp_path), store)
    with pytest.raises(UserError, match="unknown model"):
        create_app(Settings(models=("nowhere",), data_dir=tmp_path), store)


# --- the command ---


def test_the_command_serves_greets_and_ends_well(tmp_path: Path, saved: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "plume",
        "serve",
        str(saved),
        "--port",
        "0",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        greeting = ""
        while "console.log" not in greeting:
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            greeting += line
        url = re.findall(r"http://127\.0\.0\.1:\d+/v1", greeting)[0]
        assert "models:   other" in greeting
        with openai.OpenAI(base_url=url, api_key="any", timeout=SECONDS) as client:
            ask(client, "other")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        log = [json.loads(line) for line in process.stderr]
        assert {line["level"] for line in log} == {"info"}
        assert [line["route"] for line in log if "route" in line] == ["/v1/chat/completions"]


def test_the_greeting_can_be_pasted() -> None:
    made = snippets("http://127.0.0.1:1", "any", 'it\'s "mine"')
    compile(made["Python (pip install openai)"], "snippet", "exec")
    told = subprocess.run(
        ["sh", "-c", made["curl"].replace("curl ", "printf '%s\\n' ", 1)], capture_output=True, check=True
    )
    body = told.stdout.decode().splitlines()[-1]
    assert json.loads(body)["model"] == 'it\'s "mine"'


def test_beyond_this_machine_it_does_not_start_without_a_key(tmp_path: Path, saved: Path) -> None:
    arguments = ["serve", str(saved), "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "need a key" in result.output + result.stderr


def test_a_port_that_is_taken_is_said(served: Running, saved: Path, tmp_path: Path) -> None:
    arguments = ["serve", str(saved), "--port", str(served.port), "--data-dir", str(tmp_path / "data2")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "another --port" in result.output + result.stderr
