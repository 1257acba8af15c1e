"""Fine-tuning with OpenAI's own client, from the upload to the answer of the model, whoever is killed on the way."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from conftest import ASKED, PLACES
from plume.memory import open_store
from plume.memory.keys import create_key
from plume.models.bundle import save
from serving import SECONDS, Running, running, untrained

SHAPE: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "lieu",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"lieu": {"type": "string", "enum": [f"{place} été" for place in PLACES.values()]}},
            "required": ["lieu"],
            "additionalProperties": False,
        },
    },
}
CONVERSATIONS = [
    [
        {"role": "user", "content": asked.format(thing)},
        {"role": "assistant", "content": json.dumps({"lieu": f"{place} été"}, ensure_ascii=False)},
    ]
    for thing, place in PLACES.items()
    for asked in ASKED
]
LONG = 2000  # epochs that no test waits for


def jsonl(conversations: list[Any]) -> bytes:
    return "".join(json.dumps({"messages": one}, ensure_ascii=False) + "\n" for one in conversations).encode()


def upload(client: openai.OpenAI, content: bytes | None = None, name: str = "lieux.jsonl") -> str:
    """A file to train on; its id."""
    return client.files.create(file=(name, content or jsonl(CONVERSATIONS)), purpose="fine-tune").id


def begin(client: openai.OpenAI, file: str, *, epochs: int, model: str = "any", **more: Any) -> FineTuningJob:
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}}
    return client.fine_tuning.jobs.create(model=model, training_file=file, method=method, **more)


def told(url: str, job: str, key: str = "any") -> Iterator[FineTuningJobEvent]:
    """What happens to a job as it happens, from the beginning, until it is over."""
    path = f"{url}/v1/fine_tuning/jobs/{job}/events?stream=true"
    with httpx.stream("GET", path, headers={"authorization": f"Bearer {key}"}, timeout=120) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield FineTuningJobEvent.model_validate_json(line.removeprefix("data: "), strict=True)
    raise AssertionError("the stream was cut off")


def until(url: str, job: str, said: str) -> None:
    """Wait until a job has said so."""
    assert any(re.search(said, event.message) for event in told(url, job))


def process_of(job: str) -> int:
    """The process that works on a job."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if job.encode() in line and b"jobs.worker" in line:
            return int(directory.name)
    raise AssertionError(f"nobody works on {job}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("jobs"), {"any": untrained()}, jobs_at_once=2) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


@pytest.fixture(scope="module")
def done(served: Running, client: openai.OpenAI) -> FineTuningJob:
    """A job that has succeeded, with a file to validate on."""
    asked = [[{"role": "user", "content": f"And the {thing}?"}, CONVERSATIONS[0][1]] for thing in PLACES]
    validation = upload(client, jsonl(asked), "valid.jsonl")
    job = begin(
        client,
        upload(client),
        epochs=8,
        validation_file=validation,
        suffix="lieux d’été",
        seed=7,
        metadata={"wofür": "Test"},
    )
    assert job.status in ("validating_files", "queued", "running")
    assert [event.message for event in told(served.url, job.id)][-1] == "The job has successfully completed"
    return client.fine_tuning.jobs.retrieve(job.id)


def test_a_finished_job_has_made_a_model_that_answers_in_json(client: openai.OpenAI, done: FineTuningJob) -> None:
    assert done.status == "succeeded"
    assert done.fine_tuned_model == f"ft:any:local:lieux-d-été:{done.id.removeprefix('ftjob-')[:12]}"
    assert (done.seed, done.model, done.error, done.metadata) == (7, "any", None, {"wofür": "Test"})
    assert (done.hyperparameters.n_epochs, done.hyperparameters.batch_size) == (8, 16)
    assert done.trained_tokens is not None
    assert done.trained_tokens > 0
    assert done.finished_at is not None
    listed = {model.id: model for model in client.models.list()}
    assert listed[done.fine_tuned_model].owned_by == "local"
    question: Any = [{"role": "user", "content": "Where is the lamp?"}]
    answer = client.chat.completions.create(model=done.fine_tuned_model, messages=question, response_format=SHAPE)
    assert json.loads(answer.choices[0].message.content or "")["lieu"].endswith(" été")


def test_a_job_tells_what_happens_newest_first(client: openai.OpenAI, done: FineTuningJob) -> None:
    events = list(client.fine_tuning.jobs.list_events(done.id, limit=7))
    assert events[0].message == "The job has successfully completed"
    assert events[-1].message == f"Created fine-tuning job: {done.id}"
    assert len({event.id for event in events}) == len(events)
    steps = [event for event in events if event.message.startswith("Step ")]
    data: Any = steps[0].data
    assert (steps[0].type, data["step"], data["total_steps"]) == ("metrics", 8, 8)
    assert data["train_loss"] > 0


def test_what_was_saved_on_the_way_can_be_asked(client: openai.OpenAI, done: FineTuningJob) -> None:
    found = list(client.fine_tuning.jobs.checkpoints.list(done.id))
    assert [one.step_number for one in found] == [8, 7, 6]
    assert found[0].metrics.full_valid_loss is not None
    question: Any = [{"role": "user", "content": "Où est « boat » ?"}]
    for one in found:
        client.chat.completions.create(model=one.fine_tuned_model_checkpoint, messages=question, max_tokens=2)
    assert list(client.fine_tuning.jobs.checkpoints.list(done.id, limit=1)) == found


def test_the_result_file_has_a_line_for_each_step(client: openai.OpenAI, done: FineTuningJob) -> None:
    [result] = done.result_files
    assert client.files.retrieve(result).purpose == "fine-tune-results"
    rows = list(csv.DictReader(client.files.content(result).text.splitlines()))
    assert list(rows[0]) == ["step", "train_loss", "valid_loss"]
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["valid_loss"]) > 0


def test_answers_are_what_the_clients_types_say(client: openai.OpenAI, done: FineTuningJob) -> None:
    jobs = client.fine_tuning.jobs.with_raw_response
    FineTuningJob.model_validate_json(jobs.retrieve(done.id).http_response.content, strict=True)
    for raw, kind in (
        (jobs.list(), FineTuningJob),
        (jobs.list_events(done.id), FineTuningJobEvent),
        (client.fine_tuning.jobs.checkpoints.with_raw_response.list(done.id), FineTuningJobCheckpoint),
    ):
        page = raw.http_response.json()
        assert page["object"] == "list"
        assert page["last_id"] == page["data"][-1]["id"]
        for one in page["data"]:
            kind.model_validate_json(json.dumps(one), strict=True)


def test_a_model_from_nothing_and_then_from_that(served: Running, client: openai.OpenAI) -> None:
    """Deleting the file does a job that has begun no harm."""
    file = upload(client)
    first = begin(client, file, epochs=2, model="bigram")
    client.files.delete(file)
    until(served.url, first.id, "successfully completed")
    first = client.fine_tuning.jobs.retrieve(first.id)
    assert first.fine_tuned_model is not None
    again = begin(client, upload(client), epochs=1, model=first.fine_tuned_model, suffix="more")
    until(served.url, again.id, "successfully completed")
    again = client.fine_tuning.jobs.retrieve(again.id)
    assert again.model == first.fine_tuned_model
    assert again.fine_tuned_model is not None
    assert again.fine_tuned_model.startswith("ft:bigram:local:more:")


def test_rows_that_cannot_be_trained_fail_the_job_by_name(served: Running, client: openai.OpenAI) -> None:
    empty = [{"role": "user", "content": "Et la cloche ?"}, {"role": "assistant", "content": ""}]
    file = upload(client, jsonl([*CONVERSATIONS[:4], empty]), "cloches.jsonl")
    job = begin(client, file, epochs=1)
    until(served.url, job.id, "The job failed")
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "failed"
    assert job.fine_tuned_model is None
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "cloches.jsonl:5" in job.error.message
    assert str(served.service.settings.data_dir) not in job.error.message


def test_what_only_the_model_knows_fails_the_job_too(served: Running, client: openai.OpenAI) -> None:
    """The doctor at the door sees no tokens: a row that is longer than the context is found by the job."""
    long = [CONVERSATIONS[0][0], {"role": "assistant", "content": "été " * 3000}]
    job = begin(client, upload(client, jsonl([*CONVERSATIONS[:3], long]), "longues.jsonl"), epochs=1)
    until(served.url, job.id, "The job failed")
    error = client.fine_tuning.jobs.retrieve(job.id).error
    assert error is not None
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    assert "longues.jsonl:4" in error.message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "gpt-4o-mini"}, "model"),
        ({"training_file": "file-unknown"}, "training_file"),
        ({"validation_file": "../document"}, "validation_file"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta"),
        ({"hyperparameters": {}, "method": {"type": "supervised", "supervised": {"hyperparameters": {}}}}, None),
        ({"suffix": "x" * 65}, "suffix"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"seed": -1}, "seed"),
        ({"grader": {}}, "grader"),
    ],
)
def test_what_would_not_be_honoured_is_refused_by_name(client: openai.OpenAI, change: Any, param: str | None) -> None:
    body = {"model": "any", "training_file": upload(client), **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/fine_tuning/jobs", cast_to=object, body=body)
    assert refused.value.param == (param or "hyperparameters")


def test_files_for_other_purposes_are_not_trained_on(client: openai.OpenAI) -> None:
    other = client.files.create(file=("x.jsonl", jsonl(CONVERSATIONS)), purpose="batch")
    with pytest.raises(openai.BadRequestError) as refused:
        begin(client, other.id, epochs=1)
    assert refused.value.param == "training_file"


def test_a_job_rests_goes_on_and_is_cancelled(served: Running, client: openai.OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    job = begin(client, upload(client), epochs=LONG)
    until(served.url, job.id, "Step 1/")
    paused = jobs.pause(job.id)
    assert paused.status == "queued"
    assert paused.metadata == {"plume:paused": "true"}
    assert jobs.pause(job.id) == paused
    served.until(lambda: not any(job.id.encode() in line for line in commands()))
    assert jobs.retrieve(job.id).status == "queued"
    assert jobs.resume(job.id).metadata is None
    until(served.url, job.id, "goes on from its last checkpoint")
    cancelled = jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    served.until(lambda: not any(job.id.encode() in line for line in commands()))
    assert jobs.retrieve(job.id).status == "cancelled"
    said = [event.message for event in told(served.url, job.id)]
    assert [said.count(f"The job was {what}") for what in ("paused", "resumed", "cancelled")] == [1, 1, 1]
    for attempt in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError) as refused:
            attempt(job.id)
        assert refused.value.code == "job_is_over"


def commands() -> Iterator[bytes]:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            yield (directory / "cmdline").read_bytes()
        except OSError:
            continue


def test_one_key_begins_one_job(client: openai.OpenAI) -> None:
    file, headers = upload(client), {"Idempotency-Key": "so oft wie nötig".encode().hex()}
    made = [begin(client, file, epochs=LONG, extra_headers=headers) for _ in range(3)]
    assert len({job.id for job in made}) == 1
    with pytest.raises(openai.BadRequestError) as other:
        begin(client, file, epochs=LONG, suffix="other", extra_headers=headers)
    assert other.value.code == "idempotency_key_reused"
    assert begin(client, file, epochs=LONG).id != made[0].id
    for job in client.fine_tuning.jobs.list():
        if job.status not in ("succeeded", "failed", "cancelled"):
            client.fine_tuning.jobs.cancel(job.id)


def test_lists_choose_by_metadata_and_come_in_pages(client: openai.OpenAI, done: FineTuningJob) -> None:
    jobs = client.fine_tuning.jobs
    every = list(jobs.list(limit=2))
    assert done.id in [job.id for job in every]
    assert [job.created_at for job in every] == sorted((job.created_at for job in every), reverse=True)
    assert [job.id for job in jobs.list(metadata={"wofür": "Test"})] == [done.id]
    assert list(jobs.list(metadata={"wofür": "nichts"})) == []
    assert done.id not in [job.id for job in jobs.list(extra_query={"metadata": "null"})]


def test_jobs_belong_to_whoever_began_them(tmp_path: Path) -> None:
    with (
        open_store("memory:") as store,
        running(tmp_path, {"any": untrained()}, store=store, require_key=True) as server,
    ):
        keys = [create_key(store, tenant)[0] for tenant in ("ours", "theirs")]
        with server.client(keys[0]) as ours, server.client(keys[1]) as theirs:
            job = begin(ours, upload(ours), epochs=LONG)
            jobs = theirs.fine_tuning.jobs
            for attempt in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.checkpoints.list):
                with pytest.raises(openai.NotFoundError):
                    attempt(job.id)
            with pytest.raises(openai.NotFoundError):
                jobs.list_events(job.id)
            with pytest.raises(openai.BadRequestError):
                begin(theirs, job.training_file, epochs=1)
            assert list(jobs.list()) == []
            ours.fine_tuning.jobs.cancel(job.id)


def test_the_hosted_script_works_with_another_base_url(served: Running, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "examples" / "openai_finetune.py"
    command = [sys.executable, str(script), f"{served.url}/v1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=180)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert json.loads(lines[-1]) == {"thing": "boat", "place": "harbour"}
    assert "The job has successfully completed" in lines


# --- kills ---


def test_a_job_outlives_its_process(served: Running, client: openai.OpenAI) -> None:
    """Killed twice, before anything was saved and after; in the end it is as if nothing had happened."""
    job = begin(client, upload(client), epochs=24, seed=3)
    until(served.url, job.id, "Fine-tuning job started")
    os.kill(process_of(job.id), signal.SIGKILL)
    until(served.url, job.id, "Checkpoint created at step 3")
    os.kill(process_of(job.id), signal.SIGKILL)
    said = [event.message for event in told(served.url, job.id)]
    assert said.count("The job has successfully completed") == 1
    assert sum("SIGKILL" in message for message in said) == 2
    assert [message.split("/")[0] for message in said if message.startswith("Step ")] == [
        f"Step {n}" for n in range(1, 25)
    ]
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


def test_a_job_whose_process_always_ends_fails(served: Running, client: openai.OpenAI) -> None:
    job = begin(client, upload(client), epochs=LONG)
    until(served.url, job.id, "Fine-tuning job started")
    app: Any = served.server.config.app
    app.state.tasks.jobs.documents.change(job.id, lambda record: record.model_copy(update={"deaths": 9}))
    os.kill(process_of(job.id), signal.SIGKILL)
    until(served.url, job.id, "The job failed")
    error = client.fine_tuning.jobs.retrieve(job.id).error
    assert error is not None
    assert error.code == "worker_died"


@contextmanager
def program(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`plume serve` as a person starts it, and its URL."""
    command = [sys.executable, "-m", "plume", "serve", "--data-dir", str(data_dir), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            found = re.search(r"(http://\S+)/v1", process.stdout.readline())
            assert found is not None
            yield process, found[1]
        finally:
            process.kill()


def test_half_an_upload_dies_with_its_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with program(data_dir) as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=SECONDS)
        whole = client.files.create(file=("whole.jsonl", b"{}\n" * 9), purpose="batch")
        head = 'POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary="B"\r\n'
        part = '--B\r\ncontent-disposition: form-data; name="file"; filename="half.jsonl"\r\n\r\n'
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(f"{head}content-length: 900000\r\n\r\n{part}".encode() + b"x" * 100_000)
            while not list((data_dir / "files").glob(".*/upload")):
                time.sleep(0.01)
            process.kill()
            process.wait()
    with program(data_dir) as (_, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=SECONDS)
        assert [file.id for file in client.files.list()] == [whole.id]
        assert client.files.content(whole.id).content == b"{}\n" * 9
        assert [path.name for path in (data_dir / "files").iterdir()] == [whole.id]


def test_a_job_outlives_its_server(tmp_path: Path) -> None:
    """The server is killed while a job trains; the next one goes on with it, and nobody does it twice."""
    data_dir = tmp_path / "data"
    (data_dir / "models" / "any").mkdir(parents=True)
    save(untrained(), data_dir / "models" / "any", "")
    with program(data_dir) as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=SECONDS)
        second = subprocess.run(
            [sys.executable, "-m", "plume", "serve", "--data-dir", str(data_dir), "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert "in use by another server" in second.stderr
        file = upload(client)
        job = begin(client, file, epochs=16)
        until(url, job.id, "Checkpoint created at step")
        process.kill()
        process.wait()
    with program(data_dir) as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=SECONDS)
        said = [event.message for event in told(url, job.id)]
        assert said.count("The job has successfully completed") == 1
        assert any("goes on from its last checkpoint" in message for message in said)
        model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
        assert model is not None
        question: Any = [{"role": "user", "content": "Where is the bell?"}]
        assert client.chat.completions.create(model=model, messages=question, max_tokens=2).choices
        assert client.files.content(file).content == jsonl(CONVERSATIONS)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
