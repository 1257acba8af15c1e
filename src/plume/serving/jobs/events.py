"""The events of a job: a file that only grows. What happens again after a kill has the id it had, and counts once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from openai.types.fine_tuning import FineTuningJobEvent

Level = Literal["info", "warn", "error"]
_FILE = "events.jsonl"


def append(
    directory: Path,
    job: str,
    key: str,
    message: str,
    *,
    level: Level = "info",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Add an event; `key` is what makes it the same event when it is told again. Events with data are metrics."""
    event = {
        "id": f"ftevent-{hashlib.sha256(f'{job}/{key}'.encode()).hexdigest()[:24]}",
        "object": "fine_tuning.job.event",
        "created_at": int(time.time()),
        "level": level,
        "message": message,
        "type": "metrics" if data else "message",
        "data": dict(data) if data else None,
    }
    line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
    with (directory / _FILE).open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":  # the last one was cut off by a kill
            line = "\n" + line
        file.write(line.encode())


def read(directory: Path) -> list[FineTuningJobEvent]:
    """All events, oldest first."""
    try:
        raw = (directory / _FILE).read_bytes()
    except FileNotFoundError:
        return []
    found: dict[str, FineTuningJobEvent] = {}
    for line in raw.split(b"\n"):
        try:
            event = FineTuningJobEvent(**json.loads(line))
        except ValueError:  # nothing, or cut off by a kill
            continue
        found.setdefault(event.id, event)
    return list(found.values())
