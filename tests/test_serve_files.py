"""Uploads with OpenAI's own client: what is kept, what is said of it, and that nothing of half a file stays."""

import json
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import FileObject

from conftest import write_rows
from plume.errors import UserError
from plume.memory import open_store
from plume.memory.keys import create_key
from plume.serving import files
from plume.serving.documents import held
from plume.serving.tasks import Tasks
from serving import Running, running

ROWS = [{"prompt": f"Où est la lampe n° {n} ?", "completion": f"Dans « la tour » {n}."} for n in range(12)]
MOST = 200_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("files"), {}, max_upload_nbytes=MOST) as server:
        yield server


def tasks_of(server: Running) -> Tasks:
    app: Any = server.server.config.app
    tasks: Tasks = app.state.tasks
    return tasks


def kept(server: Running) -> set[str]:
    """Everything that lies where files are kept, half-made or whole."""
    return {str(path.name) for path in (server.service.settings.data_dir / "files").iterdir()}


def body(parts: dict[str, str | bytes], *, end: bytes = b"--B--\r\n") -> tuple[bytes, dict[str, str]]:
    """A multipart body as it goes over the wire."""
    raw = b""
    for name, value in parts.items():
        filename = '; filename="qa.jsonl"' if name == "file" else ""
        content = value.encode() if isinstance(value, str) else value
        raw += f'--B\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + content + b"\r\n"
    return raw + end, {"content-type": "multipart/form-data; boundary=B"}


def test_a_file_comes_back_as_it_was_sent(served: Running, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "été.jsonl", ROWS)
    with served.client() as client, path.open("rb") as stream:
        made = client.files.create(file=stream, purpose="fine-tune")
        assert (made.filename, made.bytes, made.status) == ("été.jsonl", path.stat().st_size, "processed")
        assert client.files.retrieve(made.id) == made
        assert client.files.content(made.id).content == path.read_bytes()
        assert made in list(client.files.list())
        assert client.files.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            client.files.content(made.id)
    assert made.id not in kept(served)


def test_answers_are_what_the_clients_types_say(served: Running) -> None:
    with served.client() as client:
        raw = client.files.with_raw_response.create(file=("qa.jsonl", b"{}\n"), purpose="batch")
        FileObject.model_validate_json(raw.http_response.content, strict=True)
        listed = client.files.with_raw_response.list().http_response.json()
    assert listed["object"] == "list"
    assert listed["first_id"] == raw.parse().id


@pytest.mark.parametrize("purpose", ["batch", "evals", "user_data"])
def test_other_purposes_are_not_checked(served: Running, purpose: Any) -> None:
    with served.client() as client:
        made = client.files.create(file=("x.bin", b"\x00\xff" * 100), purpose=purpose)
        assert (made.status, made.purpose) == ("processed", purpose)
        assert client.files.content(made.id).content == b"\x00\xff" * 100


def test_the_doctor_names_line_and_remedy(served: Running) -> None:
    rows = [*ROWS[:4], {"prompt": "Et la cloche ?", "completion": ""}, *ROWS[4:]]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with served.client() as client:
        made = client.files.create(file=("questions.jsonl", content), purpose="fine-tune")
    assert made.status == "error"
    assert made.status_details is not None
    first = made.status_details.split("\n")[1]
    assert first.startswith("questions.jsonl:5: error D")
    assert "completion" in first
    assert "(" in first  # what to do about it
    assert str(served.service.settings.data_dir) not in made.status_details


def test_a_large_file_is_checked_behind_its_answer(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_WAITED_FOR", 0)
    with served.client() as client, write_rows(tmp_path / "qa.jsonl", ROWS).open("rb") as stream:
        made = client.files.create(file=stream, purpose="fine-tune")
        assert made.status == "uploaded"
        assert client.files.wait_for_processing(made.id, poll_interval=0.01).status == "processed"


def test_a_file_that_a_killed_server_has_not_checked_is_checked_by_the_next(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server, server.client() as client:
        made = client.files.create(file=("qa.jsonl", b'{"prompt": "Where?", "completion": ""}\n'), purpose="fine-tune")
        unchecked = {"status": "uploaded", "status_details": None}
        tasks_of(server).files.documents.change(made.id, lambda record: record.model_copy(update=unchecked))
    with running(tmp_path, {}) as server, server.client() as client:
        found = client.files.wait_for_processing(made.id, poll_interval=0.01)
        assert (found.status, found.status_details) == ("error", made.status_details)


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ({"file": "x"}, "purpose"),
        ({"purpose": "batch"}, "file"),
        ({"file": "x", "purpose": "assistants"}, "purpose"),
        ({"file": "x", "purpose": "fine-tune-results"}, "purpose"),
        ({"file": "x", "purpose": "batch", "language": "fr"}, "language"),
        ({"file": "x", "purpose": "b" * 2000}, "purpose"),
        ({"file": "x", "purpose": "batch", "expires_after[seconds]": "7200"}, "expires_after[anchor]"),
        (
            {
                "file": "x",
                "purpose": "batch",
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": "5",
            },
            "expires_after[seconds]",
        ),
    ],
)
def test_what_would_not_be_honoured_is_refused_by_name(served: Running, parts: Any, param: str) -> None:
    before = kept(served)
    content, headers = body(parts)
    answer = httpx.post(f"{served.url}/v1/files", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert kept(served) == before


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (body({"file": "x", "purpose": "batch"}, end=b"")[0], "multipart/form-data; boundary=B"),
        (b"\x00" * 50, "multipart/form-data; boundary=B"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data"),
    ],
)
def test_what_is_no_whole_body_is_refused(served: Running, content: bytes, kind: str) -> None:
    before = kept(served)
    answer = httpx.post(f"{served.url}/v1/files", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_multipart")
    assert kept(served) == before


def test_a_file_that_is_too_large_leaves_nothing(served: Running) -> None:
    before = kept(served)
    content, headers = body({"purpose": "batch", "file": "x" * (MOST + 1)})
    pieces = (content[start : start + 5000] for start in range(0, len(content), 5000))
    for sent in (content, pieces):  # one that says its length, and one that does not
        answer = httpx.post(f"{served.url}/v1/files", content=sent, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert kept(served) == before


def test_a_half_sent_body_leaves_nothing(served: Running) -> None:
    before = kept(served)
    content, headers = body({"purpose": "batch", "file": "x" * 50_000})
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: {headers['content-type']}\r\n"
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content[:30_000])
        served.until(lambda: kept(served) != before)  # it is being written
    served.until(lambda: kept(served) == before)


def test_a_full_disk_is_an_error_that_leaves_nothing(served: Running) -> None:
    """A limit on the size of files stands in for the disk; the system refuses the write either way."""
    before = kept(served)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with served.client() as client:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            with pytest.raises(openai.InternalServerError) as refused:
                client.files.create(file=("x.jsonl", b"x" * 60_000), purpose="batch")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (refused.value.status_code, refused.value.code) == (507, "insufficient_storage")
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert kept(served) == before
        assert client.files.create(file=("x.jsonl", b"x" * 60_000), purpose="batch").bytes == 60_000


@pytest.mark.parametrize("name", ["../../secret.jsonl", "..\\secret.jsonl", "/etc/secret.jsonl", "a\x00\nsecret.jsonl"])
def test_names_are_shown_and_never_become_paths(served: Running, name: str) -> None:
    with served.client() as client:
        made = client.files.create(file=(name, b"{}"), purpose="user_data")
    assert made.filename.endswith("secret.jsonl")
    assert "/" not in made.filename
    lying = {path.name for path in (served.service.settings.data_dir / "files" / made.id).iterdir()}
    assert lying == {"content.jsonl", "document.json"}


@pytest.mark.parametrize("id", ["..%2f..%2fplume.db", "file-..", "file-" + "0" * 24, "%00", "file-" + "0" * 5000, "é"])
def test_ids_are_looked_up(served: Running, id: str) -> None:
    for path in (f"/v1/files/{id}", f"/v1/files/{id}/content"):
        answer = httpx.get(served.url + path)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]


def test_lists_come_in_pages_and_both_orders(served: Running) -> None:
    with served.client() as client:
        for record in client.files.list():
            client.files.delete(record.id)
        made = [client.files.create(file=(f"{n}.txt", b"x"), purpose="user_data").id for n in range(5)]
        client.files.create(file=("other.txt", b"x"), purpose="batch")
        listed = list(client.files.list(purpose="user_data", limit=2))
        assert [record.id for record in listed] == made[::-1]
        assert [record.id for record in client.files.list(purpose="user_data", limit=2, order="asc")] == made
        with pytest.raises(openai.BadRequestError) as wrong:
            client.files.list(after="file-unknown")
        assert wrong.value.param == "after"
        with pytest.raises(openai.BadRequestError) as unknown:
            client.files.list(extra_query={"search": "été"})
        assert unknown.value.param == "search"


def test_a_file_that_has_expired_is_gone(served: Running) -> None:
    with served.client() as client:
        lifetime: Any = {"anchor": "created_at", "seconds": 3600}
        made = client.files.create(file=("x.txt", b"x"), purpose="user_data", expires_after=lifetime)
        assert made.expires_at == made.created_at + 3600
        documents = tasks_of(served).files.documents
        documents.change(made.id, lambda record: record.model_copy(update={"expires_at": 1}))
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(made.id)
        assert made.id not in [record.id for record in client.files.list()]


def test_files_belong_to_whoever_sent_them(tmp_path: Path) -> None:
    with open_store("memory:") as store, running(tmp_path, {}, store=store, require_key=True) as server:
        keys = [create_key(store, tenant)[0] for tenant in ("ours", "theirs")]
        with server.client(keys[0]) as ours, server.client(keys[1]) as theirs:
            made = ours.files.create(file=("x.txt", b"x"), purpose="user_data")
            attempts: list[Callable[[str], Any]] = [theirs.files.retrieve, theirs.files.content, theirs.files.delete]
            for attempt in attempts:
                with pytest.raises(openai.NotFoundError):
                    attempt(made.id)
            assert list(theirs.files.list()) == []
            assert ours.files.retrieve(made.id) == made


def test_a_data_directory_has_one_server(served: Running) -> None:
    data_dir = served.service.settings.data_dir
    with pytest.raises(UserError) as refused, held(data_dir):
        pass
    assert str(data_dir) in refused.value.message
    assert "--data-dir" in str(refused.value.hint)
