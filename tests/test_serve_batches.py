"""Batches with OpenAI's own client: every request answered once, whoever stops the server on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from plume.memory import open_store
from plume.memory.keys import create_key
from plume.serving.batches import runner
from plume.serving.tasks import Tasks
from serving import Running, running, untrained

CHAT: Any = "/v1/chat/completions"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("batches"), {"any": untrained()}, rows=8, queue=2) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def tasks_of(server: Running) -> Tasks:
    app: Any = server.server.config.app
    tasks: Tasks = app.state.tasks
    return tasks


def chat(number: int, **change: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Où est « la lampe n° {number} » ?"}]
    body = {"model": "any", "messages": messages, "max_tokens": 3, "seed": number, **change}
    return {"custom_id": f"question-{number}", "method": "POST", "url": CHAT, "body": body}


def upload(client: openai.OpenAI, lines: list[Any]) -> str:
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    return client.files.create(file=("requests.jsonl", content), purpose="batch").id


def begin(client: openai.OpenAI, lines: list[Any], **more: Any) -> Batch:
    return client.batches.create(input_file_id=upload(client, lines), endpoint=CHAT, completion_window="24h", **more)


def ended(served: Running, client: openai.OpenAI, batch: Batch) -> Batch:
    documents = tasks_of(served).batches.documents
    served.until(lambda: documents.find(batch.id).final)
    return client.batches.retrieve(batch.id)


def answers(client: openai.OpenAI, file: str | None) -> list[Any]:
    return [json.loads(line) for line in client.files.content(file).text.splitlines()] if file else []


def test_every_request_is_answered_as_if_it_were_asked_alone(served: Running, client: openai.OpenAI) -> None:
    lines = [*(chat(number) for number in range(20)), chat(20, model="nobody"), chat(21, verbosity="low")]
    batch = ended(served, client, begin(client, lines, metadata={"für": "Test"}))
    assert batch.status == "completed"
    assert batch.metadata == {"für": "Test"}
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (22, 20, 2)
    given = {answer["custom_id"]: answer for answer in answers(client, batch.output_file_id)}
    assert given.keys() == {f"question-{number}" for number in range(20)}
    alone = client.chat.completions.create(**chat(4)["body"])
    response = given["question-4"]["response"]
    assert response["status_code"] == 200
    assert response["request_id"].startswith("req_")
    assert response["body"]["choices"][0]["message"]["content"] == alone.choices[0].message.content
    failed = {answer["custom_id"]: answer["response"] for answer in answers(client, batch.error_file_id)}
    assert (failed["question-20"]["status_code"], failed["question-21"]["status_code"]) == (404, 400)
    assert failed["question-21"]["body"]["error"]["param"] == "verbosity"
    assert client.files.retrieve(batch.output_file_id or "").purpose == "batch_output"
    usages = [answer["response"]["body"]["usage"] for answer in given.values()]
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages) > 0
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages) > 0
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    known = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert batch.usage.input_tokens_details.cached_tokens == known


def test_answers_are_what_the_clients_types_say(served: Running, client: openai.OpenAI) -> None:
    made = ended(served, client, begin(client, [chat(1)]))
    raw = client.batches.with_raw_response.retrieve(made.id)
    Batch.model_validate_json(raw.http_response.content, strict=True)
    assert made.id in [batch.id for batch in client.batches.list(limit=1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ([], "object with the keys"),
        ({**chat(2), "priority": 1}, "object with the keys"),
        ({**chat(2), "custom_id": "question-1"}, "twice"),
        ({**chat(2), "custom_id": 7}, "custom_id"),
        ({**chat(2), "url": "/v1/files"}, "method and url"),
        ({**chat(2), "method": "DELETE"}, "method and url"),
        ({**chat(2), "body": "été"}, "body must be an object"),
        (chat(2, stream=True), "stream"),
    ],
)
def test_a_line_that_is_no_request_fails_the_batch_by_its_number(
    served: Running, client: openai.OpenAI, line: Any, said: str
) -> None:
    raw = line if isinstance(line, str) else json.dumps(line)
    content = f"{json.dumps(chat(1))}\n\n{raw}\n".encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    batch = ended(served, client, made)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    [error] = batch.errors.data
    assert error.line == 3
    assert said in (error.message or "")
    assert batch.output_file_id is None


def test_an_empty_file_fails(served: Running, client: openai.OpenAI) -> None:
    batch = ended(served, client, begin(client, []))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == "empty_file"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/files"}, "endpoint"),
        ({"endpoint": "/v1/chat/completions/../files"}, "endpoint"),
        ({"input_file_id": "file-unknown"}, "input_file_id"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
def test_what_would_not_be_honoured_is_refused_by_name(client: openai.OpenAI, change: Any, param: str) -> None:
    body = {"input_file_id": upload(client, [chat(1)]), "endpoint": CHAT, "completion_window": "24h", **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/batches", cast_to=object, body=body)
    assert refused.value.param == param


def test_cancelling_keeps_what_was_answered(served: Running, client: openai.OpenAI) -> None:
    endless = chat(1, max_tokens=2000, logit_bias={str(untrained().tokenizer.eos_id): -100})
    made = begin(client, [chat(0), *({**endless, "custom_id": f"endless-{n}"} for n in range(200))])
    tasks = tasks_of(served)
    served.until(lambda: bool(tasks.batches.answered(made.id)))
    assert client.batches.cancel(made.id).status in ("cancelling", "cancelled")
    batch = ended(served, client, made)
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None
    assert "question-0" in [answer["custom_id"] for answer in answers(client, batch.output_file_id)]
    assert batch.request_counts is not None
    assert batch.request_counts.completed < 201
    served.until(lambda: served.outstanding == 0)
    with pytest.raises(openai.BadRequestError) as over:
        client.batches.cancel(made.id)
    assert over.value.code == "batch_is_over"


def test_time_runs_out(served: Running, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS", 0)
    batch = ended(served, client, begin(client, [chat(1), chat(2)]))
    assert batch.status == "expired"
    errors = [answer["error"]["code"] for answer in answers(client, batch.error_file_id) if answer["error"]]
    assert errors == ["batch_expired"] * 2


def test_a_batch_goes_on_where_a_server_has_stopped(tmp_path: Path) -> None:
    """What was answered stays answered; half a line that a kill has left counts as no answer."""
    lines = [chat(number) for number in range(30)]
    with running(tmp_path, {"any": untrained()}, rows=4) as server, server.client() as client:
        made = begin(client, lines)
        tasks = tasks_of(server)
        server.until(lambda: len(tasks.batches.answered(made.id)) >= 3)
    output = tasks.batches.answers(made.id, "output.jsonl")
    before = output.read_bytes()
    assert 0 < before.count(b"\n") < 30
    output.write_bytes(before + b'{"custom_id": "question-29", "resp')
    with running(tmp_path, {}, rows=4) as server, server.client() as client:
        batch = ended(server, client, made)
        assert batch.status == "completed"
        content = client.files.content(batch.output_file_id or "").content
    assert content.startswith(before)
    given = [json.loads(line)["custom_id"] for line in content.splitlines()]
    assert sorted(given) == sorted(line["custom_id"] for line in lines)


def test_one_key_begins_one_batch(client: openai.OpenAI) -> None:
    file = upload(client, [chat(1)])
    body: Any = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    made = {client.batches.create(**body, extra_headers={"Idempotency-Key": "x1"}).id for _ in range(2)}
    assert len(made) == 1
    with pytest.raises(openai.BadRequestError) as other:
        client.batches.create(**{**body, "endpoint": "/v1/completions"}, extra_headers={"Idempotency-Key": "x1"})
    assert other.value.code == "idempotency_key_reused"


def test_batches_belong_to_whoever_began_them(tmp_path: Path) -> None:
    """They are answered in the name of their owner, whatever a header of another request claims."""
    with (
        open_store("memory:") as store,
        running(tmp_path, {"any": untrained()}, store=store, require_key=True) as server,
    ):
        keys = [create_key(store, tenant)[0] for tenant in ("ours", "theirs")]
        with server.client(keys[0]) as ours, server.client(keys[1]) as theirs:
            batch = ended(server, ours, begin(ours, [chat(1)]))
            assert batch.status == "completed"
            with pytest.raises(openai.NotFoundError):
                theirs.batches.retrieve(batch.id)
            with pytest.raises(openai.NotFoundError):
                theirs.files.content(batch.output_file_id or "")
            assert list(theirs.batches.list()) == []
        answer = httpx.get(f"{server.url}/v1/batches", headers={"plume.caller": "ours"})
        assert answer.status_code == 401
