"""Models that jobs have made: whose they are, how they go, and that they call the tools that they were shown."""

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from conftest import PLACES
from plume.memory import open_store
from plume.memory.keys import create_key
from serving import SECONDS, Running, running, untrained
from test_serve_batches import ended
from test_serve_jobs import LONG, begin, told, until, upload


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("made"), {"any": untrained()}, jobs_at_once=2) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def answers(server: Running, key: str, name: str) -> list[tuple[str, int, Any]]:
    """What becomes of a model's name wherever it may stand: the place, the status, the body."""
    said: Any = [{"role": "user", "content": "Où ?"}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": said, "max_tokens": 1},
        "/v1/completions": {"prompt": "Où ?", "max_tokens": 1},
        "/v1/responses": {"input": "Où ?", "max_output_tokens": 1},
        "/v1/embeddings": {"input": "Où ?"},
        "/v1/decisions": {"input": "Où ?", "questions": [{"type": "predicate", "instructions": ""}]},
        "/tokenize": {"prompt": "Où ?"},
        "/detokenize": {"tokens": [1]},
    }
    quoted = urllib.parse.quote(name, safe="")
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"}, timeout=SECONDS) as client:
        asked = [client.post(path, json={"model": name, **body}) for path, body in bodies.items()]
        asked += [client.get(f"/v1/models/{quoted}"), client.get("/tokenizer_info", params={"model": name})]
        return [(one.url.path, one.status_code, one.json()) for one in asked]


def test_models_belong_to_whoever_had_them_made(tmp_path: Path) -> None:
    """For anybody else they are answered as if there were none, to the last byte but the name itself."""
    with (
        open_store("memory:") as store,
        running(tmp_path, {"any": untrained()}, store=store, require_key=True) as server,
    ):
        keys = [create_key(store, tenant, scopes=["admin"])[0] for tenant in ("ours", "theirs")]
        with server.client(keys[0]) as ours, server.client(keys[1]) as theirs:
            job = begin(ours, upload(ours), epochs=1)
            assert [event.message for event in told(server.url, job.id, keys[0])][
                -1
            ] == "The job has successfully completed"
            made = ours.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
            assert made is not None
            checkpoint = ours.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
            names, own = {made, checkpoint}, upload(theirs)
            assert {model.id for model in theirs.models.list()} == {model.id for model in ours.models.list()} - names
            for name in names:
                assert {status for _, status, _ in answers(server, keys[0], name)} == {200}
                unknown = "ft:any:ours::nobody"
                refused_there = [(path, status, str(body)) for path, status, body in answers(server, keys[1], name)]
                none = [(path, status, str(body)) for path, status, body in answers(server, keys[1], unknown)]
                assert {status for _, status, _ in refused_there} == {404}
                quoted = [
                    (path.replace(name, unknown), status, body.replace(name, unknown))
                    for path, status, body in refused_there
                ]
                assert quoted == none
                with pytest.raises(openai.NotFoundError):
                    theirs.models.delete(name)
                refusals = []
                for base in (name, unknown):
                    with pytest.raises(openai.BadRequestError) as refused:
                        begin(theirs, own, epochs=1, model=base)
                    refusals.append((refused.value.code, refused.value.message.replace(base, "")))
                assert refusals[0] == refusals[1]
                assert not any(one in refusals[0][1] for one in names)
            line = {"custom_id": "1", "method": "POST", "url": "/v1/completions"}
            content = json.dumps({**line, "body": {"model": made, "prompt": "Où ?", "max_tokens": 1}}).encode()
            for client, status in ((ours, 200), (theirs, 404)):
                file = client.files.create(file=("batch.jsonl", content), purpose="batch")
                batch = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
                )
                batch = ended(server, client, batch)
                written = client.files.content(batch.output_file_id or batch.error_file_id or "").text
                assert json.loads(written)["response"]["status_code"] == status


def test_a_model_learns_to_call_tools(served: Running, client: openai.OpenAI) -> None:
    """Rows as the hosted service takes them, with tools, calls, their results and replies that do not count."""
    looked: Any = {"name": "look", "parameters": {"type": "object", "properties": {"what": {"type": "string"}}}}
    tools: Any = [{"type": "function", "function": looked}]
    rows = []
    for thing, place in PLACES.items():
        call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": f'{{"what": "{thing}"}}'}}
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": "Bonjour"},
                    {"role": "assistant", "content": "Never to be said", "weight": 0},
                    {"role": "user", "content": f"Where is the {thing}?"},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "call_1", "content": place},
                    {"role": "assistant", "content": f"In the {place}.", "weight": 1},
                ],
                "tools": tools,
                "parallel_tool_calls": False,
            }
        )
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    file = client.files.create(file=("calls.jsonl", content), purpose="fine-tune")
    assert file.status == "processed", file.status_details
    hyperparameters: Any = {"n_epochs": 120, "learning_rate_multiplier": 20}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    job = client.fine_tuning.jobs.create(model="any", training_file=file.id, method=method, seed=1)
    assert [event.message for event in told(served.url, job.id)][-1] == "The job has successfully completed"
    model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model or ""
    messages: Any = [{"role": turn["role"], "content": turn["content"]} for turn in rows[0]["messages"][:3]]
    said = client.chat.completions.create(model=model, messages=messages, tools=tools).choices[0]
    assert said.finish_reason == "tool_calls", said
    made: Any = (said.message.tool_calls or [])[0]
    assert made.function.name == "look"
    assert json.loads(made.function.arguments).keys() == {"what"}
    result: Any = {"role": "tool", "tool_call_id": made.id, "content": PLACES["lamp"]}
    history: Any = [*messages, said.message.model_dump(exclude_none=True), result]
    told_so = client.chat.completions.create(model=model, messages=history, tools=tools).choices[0].message
    assert (told_so.content or "").startswith("In the ")


def test_a_model_of_ones_own_can_be_deleted(served: Running, client: openai.OpenAI) -> None:
    job = begin(client, upload(client), epochs=1)
    assert [event.message for event in told(served.url, job.id)][-1] == "The job has successfully completed"
    made = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model or ""
    question: Any = [{"role": "user", "content": "Where is the bell?"}]
    client.chat.completions.create(model=made, messages=question, max_tokens=1)
    next_job = begin(client, upload(client), epochs=LONG, model=made)
    with pytest.raises(openai.ConflictError) as needed:
        client.models.delete(made)
    assert needed.value.code == "model_in_use"
    until(served.url, next_job.id, "Step 1/")
    client.fine_tuning.jobs.cancel(next_job.id)
    deleted = client.models.delete(made)
    assert (deleted.id, deleted.deleted, deleted.object) == (made, True, "model")
    assert made not in {loaded.entry.id for loaded in served.service.models.loaded}
    assert made not in {model.id for model in client.models.list()}
    for gone in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError):
            gone(made)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=made, messages=question)
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
    assert client.chat.completions.create(model=checkpoint, messages=question, max_tokens=1).choices
    again = begin(client, upload(client), epochs=LONG, model=checkpoint)
    client.fine_tuning.jobs.cancel(again.id)
    assert client.models.delete(checkpoint).deleted
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
