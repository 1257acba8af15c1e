"""A server killed at drawn moments, itself or the process of a job, over uploads, fine-tuning jobs and batches.

    python benchmarks/serve_kills.py [--kills 100] [--seed 0] [--pause 8]

While a client uploads, begins jobs and begins batches, `plume serve` or the process of the running job is killed
(SIGKILL) after a time drawn evenly up to `--pause` seconds, and the server started again if it was that. What a client
was told is accepted must be there in the end: every file byte by byte, every job with one success and one model that
answers, every checkpoint that is listed, every batch with each of its requests answered once. Prints one JSON line;
exit code 1 when anything was lost or done twice.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import torch

from plume.models import gpt
from plume.models.bundle import bundle, save
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer

PLACES = {"lamp": "tower", "boat": "harbour", "bread": "oven", "sheep": "meadow", "bell": "chapel"}
ASKED = ("Where is the {}?", "Tell me where the {} is.", "Où est « {} » ?")
CHAT: Any = "/v1/chat/completions"
REQUESTS = 40  # of a batch
EPOCHS = 24
OPEN = 2  # jobs, and batches, that are not over at a time
UPLOAD = 8 * 2**20  # bytes at most


@dataclass
class Accepted:
    """What a client was told is there, by id."""

    files: dict[str, bytes] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=8, help="most seconds between two kills")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    accepted, killed = Accepted(), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name) / "data"
        small_model(data_dir / "models" / "small")
        while killed.total() < options.kills:
            with serving(data_dir) as (process, client), uploading(client, accepted, chance.random()):
                while process.poll() is None:
                    begin(client, accepted)
                    time.sleep(chance.uniform(0, options.pause))
                    victim = chance.choice([process.pid, *workers(accepted)])
                    os.kill(victim, signal.SIGKILL)
                    killed["server" if victim == process.pid else "worker"] += 1
                    if victim == process.pid or killed.total() == options.kills:
                        break
            print(f"{killed.total()} kills", file=sys.stderr)
        with serving(data_dir) as (_, client):
            wrong = list(faults(client, accepted))
    made = {name: len(getattr(accepted, name)) for name in ("files", "jobs", "batches")}
    row: dict[str, Any] = {
        "bench": "serve_kills",
        "metric": "lost_or_done_twice",
        "unit": "files, jobs, batches and checkpoints",
    }
    row |= {"plume": len(wrong), "peer": 0, "peer_name": "nobody killed", "ratio": None, "lower_is_better": True}
    print(json.dumps({**row, "runs": wrong, "accepted": made, "kills": dict(killed)}), flush=True)
    raise SystemExit(bool(wrong))


def small_model(directory: Path) -> None:
    """A model that says anything, to train from and to ask."""
    torch.manual_seed(1)
    tokenizer = train_tokenizer("bpe", [question.format(thing) for thing in PLACES for question in ASKED], 400)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0, "max_length": 512}
    made = gpt.build({"vocab_size": tokenizer.vocab_size, **sizes})
    directory.mkdir(parents=True)
    save(bundle(made, tokenizer, TEMPLATES["chat"], 20), directory, "")


@contextlib.contextmanager
def serving(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    """`plume serve`, and a client of it that does not try again by itself."""
    command = [sys.executable, "-m", "plume", "serve", "--data-dir", str(data_dir), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+/v1", process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
        try:
            yield process, openai.OpenAI(base_url=found[0], api_key="any", max_retries=0, timeout=60)
        finally:
            process.kill()


@contextlib.contextmanager
def uploading(client: openai.OpenAI, accepted: Accepted, seed: float) -> Iterator[None]:
    """One file after the other, of drawn length, as long as the server takes them."""
    over = threading.Event()

    def work() -> None:
        chance = random.Random(seed)
        with contextlib.suppress(openai.APIConnectionError):
            while not over.is_set():
                content = chance.randbytes(chance.randrange(UPLOAD))
                made = client.files.create(file=("noise.bin", content), purpose="user_data")
                accepted.files[made.id] = content
                over.wait(0.5)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def begin(client: openai.OpenAI, accepted: Accepted) -> None:
    """Jobs and batches, so that some are always under way; whatever was answered is accepted."""
    with contextlib.suppress(openai.APIConnectionError):
        jobs = [
            job for job in client.fine_tuning.jobs.list() if job.status in ("validating_files", "queued", "running")
        ]
        if len(jobs) < OPEN:
            file = client.files.create(file=("village.jsonl", rows()), purpose="fine-tune").id
            method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": EPOCHS}}}
            job = client.fine_tuning.jobs.create(model="small", training_file=file, method=method)
            accepted.jobs.append(job.id)
        batches = [batch for batch in client.batches.list() if not batch.completed_at]
        if len(batches) < OPEN:
            file = client.files.create(file=("requests.jsonl", requests()), purpose="batch").id
            batch = client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
            accepted.batches.append(batch.id)


def rows() -> bytes:
    lines = [
        {
            "messages": [
                {"role": "user", "content": question.format(thing)},
                {"role": "assistant", "content": json.dumps({"place": place})},
            ]
        }
        for thing, place in PLACES.items()
        for question in ASKED
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def requests() -> bytes:
    lines = []
    for number in range(REQUESTS):
        messages = [{"role": "user", "content": f"Where is boat {number}?"}]
        body = {"model": "small", "messages": messages, "max_tokens": 200}
        lines.append({"custom_id": f"{number}", "method": "POST", "url": CHAT, "body": body})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def workers(accepted: Accepted) -> list[int]:
    """The processes that work on a job now."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (directory / "cmdline").read_bytes().split(b"\0")
            if b"plume.serving.jobs.worker" in line and any(job.encode() in line for job in accepted.jobs):
                found.append(int(directory.name))
    return found


def faults(client: openai.OpenAI, accepted: Accepted) -> Iterator[str]:
    """What was lost, or done twice."""
    for id, content in accepted.files.items():
        try:
            if client.files.content(id).content != content:
                yield f"{id} has changed"
        except openai.APIError as error:
            yield f"{id}: {error}"
    for id in accepted.jobs:
        yield from job_faults(client, id)
    for id in accepted.batches:
        yield from batch_faults(client, id)


def job_faults(client: openai.OpenAI, id: str) -> Iterator[str]:
    try:
        job = client.fine_tuning.jobs.retrieve(id)
        while job.status not in ("succeeded", "failed", "cancelled"):
            time.sleep(1)
            job = client.fine_tuning.jobs.retrieve(id)
        if job.status != "succeeded" or job.fine_tuned_model is None:
            yield f"{id} {job.status}: {job.error}"
            return
        said = [event.message for event in client.fine_tuning.jobs.list_events(id, limit=1000)]
        if said.count("The job has successfully completed") != 1:
            yield f"{id} has not succeeded once"
        steps = sorted(int(found[1]) for text in said if (found := re.match(r"Step (\d+)/", text)))
        if steps != list(range(1, EPOCHS + 1)):
            yield f"{id} tells of the steps {steps}"
        saved = list(client.fine_tuning.jobs.checkpoints.list(id))
        for model in (job.fine_tuned_model, *(one.fine_tuned_model_checkpoint for one in saved)):
            question: Any = [{"role": "user", "content": "Where is the bell?"}]
            client.chat.completions.create(model=model, messages=question, max_tokens=2)
        client.files.content(job.result_files[0])
    except openai.APIError as error:
        yield f"{id}: {error}"


def batch_faults(client: openai.OpenAI, id: str) -> Iterator[str]:
    try:
        batch = client.batches.retrieve(id)
        while not batch.completed_at and batch.status not in ("failed", "expired", "cancelled"):
            time.sleep(1)
            batch = client.batches.retrieve(id)
        lines = client.files.content(batch.output_file_id or "").text.splitlines()
        answered = sorted(int(json.loads(line)["custom_id"]) for line in lines)
        if batch.status != "completed" or answered != list(range(REQUESTS)):
            yield f"{id} {batch.status}: {answered}"
    except (openai.APIError, ValueError) as error:
        yield f"{id}: {error}"


if __name__ == "__main__":
    main()
