"""Batches as they lie on the disk: the document, the input, and what was answered so far, line by line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from openai.types import Batch, BatchError, BatchRequestCounts, BatchUsage
from openai.types.batch import Errors
from openai.types.batch_usage import InputTokensDetails, OutputTokensDetails
from pydantic import Field

from plume.serving.documents import Documents, Record
from plume.serving.stored import FileRecord, Files

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
FINAL: tuple[Status, ...] = ("failed", "completed", "expired", "cancelled")
SECONDS = 24 * 3600  # that a batch may take
_INPUT, OUTPUT, ERRORS = "input.jsonl", "output.jsonl", "errors.jsonl"
_MOST = 50_000  # requests
_KEYS = {"custom_id", "method", "url", "body"}
_LISTED = 100  # errors of an input file


class BatchRecord(Record):
    """`key` is what limits know the caller by; `times` says when a status began; `lines` are those of the input."""

    key: str
    input_file: str
    endpoint: str
    request: str
    output_file: str
    error_file: str
    status: Status = "validating"
    times: dict[str, int] = Field(default_factory=dict)
    errors: list[dict[str, Any]] = Field(default_factory=list)
    lines: int = 0
    usage: BatchUsage | None = None

    @property
    def final(self) -> bool:
        return self.status in FINAL

    def began(self, status: Status, **change: Any) -> BatchRecord:
        """The same with another status, from now on."""
        return self.model_copy(update={"status": status, "times": {**self.times, status: int(time.time())}, **change})


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch."""

    custom_id: str
    body: dict[str, Any]


class Batches:
    """Batches by their ids."""

    def __init__(self, data_dir: Path, files: Files) -> None:
        self.documents = Documents(data_dir / "batches", BatchRecord, "batch_", "batch")
        self.files = files

    def add(self, record: BatchRecord, file: FileRecord) -> BatchRecord:
        """Keep a new batch with its own hold on its input. Raises OSError."""

        def fill(building: Path) -> None:
            source = self.files.content(file)
            try:
                (building / _INPUT).hardlink_to(source)
            except OSError:  # a file system without them
                shutil.copyfile(source, building / _INPUT)

        return self.documents.add(record, fill)

    def input(self, id: str) -> Path:
        return self.documents.path(id) / _INPUT

    def answers(self, id: str, kind: str) -> Path:
        return self.documents.path(id) / kind

    def wire(self, record: BatchRecord) -> Batch:
        done, failed = self._count(record.id, OUTPUT), self._count(record.id, ERRORS)
        over = record.final and record.status != "failed"
        errors = [BatchError(**error) for error in record.errors]
        return Batch(
            id=record.id,
            completion_window="24h",
            created_at=record.created_at,
            endpoint=record.endpoint,
            input_file_id=record.input_file,
            object="batch",
            status=record.status,
            **{f"{status}_at": moment for status, moment in record.times.items()},  # type: ignore[arg-type]
            expires_at=record.created_at + SECONDS,
            output_file_id=record.output_file if over and done else None,
            error_file_id=record.error_file if over and failed else None,
            errors=Errors(data=errors, object="list") if errors else None,
            metadata=record.metadata,
            usage=record.usage,
            request_counts=BatchRequestCounts(completed=done, failed=failed, total=record.lines),
        )

    def answered(self, id: str) -> set[str]:
        """Which requests have their answer. Half of one, which a kill has left, is cut off."""
        found = set()
        for kind in (OUTPUT, ERRORS):
            path = self.answers(id, kind)
            if path.exists():
                with path.open("r+b") as file:
                    size = 0
                    for line in file:
                        if line.endswith(b"\n"):
                            found.add(json.loads(line)["custom_id"])
                            size += len(line)
                    file.truncate(size)
        return found

    def usage(self, id: str) -> BatchUsage:
        """What all answers so far took together."""
        read = cached = written = 0
        path = self.answers(id, OUTPUT)
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    one = json.loads(line)["response"]["body"]["usage"]
                    details = one.get("prompt_tokens_details") or one.get("input_tokens_details") or {}
                    read += one.get("prompt_tokens", one.get("input_tokens", 0))
                    written += one.get("completion_tokens", one.get("output_tokens", 0))
                    cached += details.get("cached_tokens", 0)
        return BatchUsage(
            input_tokens=read,
            input_tokens_details=InputTokensDetails(cached_tokens=cached),
            output_tokens=written,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            total_tokens=read + written,
        )

    def _count(self, id: str, kind: str) -> int:
        path = self.answers(id, kind)
        if not path.exists():
            return 0
        with path.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(partial(file.read, 2**20), b""))

    def lines(self, id: str) -> Iterator[Line]:
        """The requests of an input that was found to be good."""
        with self.input(id).open("rb") as file:
            for raw in file:
                if raw.strip():
                    value = json.loads(raw)
                    yield Line(value["custom_id"], value["body"])

    def faults(self, record: BatchRecord, most_nbytes: int) -> tuple[int, list[dict[str, Any]]]:
        """How many requests an input has, and what is wrong with it."""
        seen: set[str] = set()
        found: list[dict[str, Any]] = []
        with self.input(record.id).open("rb") as file:
            number = 0
            while len(found) < _LISTED and (raw := file.readline(most_nbytes + 1)):
                number += 1
                if not raw.strip():
                    continue
                fault = "the line is too long" if len(raw) > most_nbytes else _fault(raw, record.endpoint, seen)
                if fault:
                    found.append({"code": "invalid_line", "line": number, "message": fault, "param": None})
                if len(raw) > most_nbytes or len(seen) > _MOST:
                    break
        if len(seen) > _MOST:
            message = f"there are more than {_MOST} requests: make several batches of them"
            found.append({"code": "too_many_requests", "line": None, "message": message, "param": "input_file_id"})
        if not seen and not found:
            message = "the file holds no request"
            found.append({"code": "empty_file", "line": None, "message": message, "param": "input_file_id"})
        return len(seen), found


def _fault(raw: bytes, endpoint: str, seen: set[str]) -> str | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return "the line is not JSON"
    if not isinstance(value, dict) or value.keys() != _KEYS:
        return f"a request is an object with the keys {', '.join(sorted(_KEYS))} and no others"
    id = value["custom_id"]
    if not isinstance(id, str) or not 0 < len(id) <= 512:
        return "custom_id must be a text of 1 to 512 characters"
    if id in seen:
        return f"custom_id {id!r} is there twice"
    seen.add(id)
    if value["method"] != "POST" or value["url"] != endpoint:
        return f"method and url must be POST and {endpoint}, as the batch says"
    if not isinstance(value["body"], dict):
        return "body must be an object"
    return "streams cannot be had in a batch: leave out body.stream" if value["body"].get("stream") else None


def append(path: Path, answer: dict[str, Any]) -> None:
    """Add a line that is whole once it is there."""
    line = json.dumps(answer, ensure_ascii=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())
