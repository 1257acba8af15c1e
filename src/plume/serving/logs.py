"""What the server writes on standard error: one JSON object a line, without anything that was asked or answered."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TextIO


class JsonLines(logging.Formatter):
    """`time` in UTC, `level`, `logger`, `message`, what `extra={"fields": …}` holds, and a traceback's text."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def write_to(stream: TextIO) -> None:
    """Send what this process logs there: all that the server says, and the warnings of libraries."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("plume").setLevel(logging.INFO)
