"""What one request took: noted where it happens, read at its end by the log, the metrics and the traces.

Nothing that was asked or answered is in it. Times are of `time.monotonic`, in seconds.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from plume.serving.worker import Ticket
from plume.types import Sampling

Reason = str  # stop, length, tool_calls, or abort where an answer did not come to its end


@dataclass(slots=True)
class Record:
    """A request and, where it asked a model for something, the answers it got. `model` is the name of a model that is
    served, never what a client wrote; `accepted` is when the model's queue took it."""

    id: str = ""
    arrived: float = field(default_factory=time.monotonic)
    streamed: bool = False
    model: str | None = None
    sampling: Sampling | None = None
    prompt_tokens: int = 0
    tickets: list[Ticket] = field(default_factory=list)
    finishes: dict[int, Reason] = field(default_factory=dict)

    @property
    def accepted(self) -> float | None:
        return self.tickets[0].submitted if self.tickets else None

    @property
    def cached(self) -> int:
        """Tokens of the prompts that were known from earlier ones, those of a call's second reading left out."""
        return self.tickets[0].cached if self.tickets else 0

    @property
    def begun(self) -> float | None:
        """When it had waited long enough and the model began to read the prompt."""
        return self.tickets[0].begun if self.tickets else None

    @property
    def first(self) -> float | None:
        """When the first token of all came."""
        return min((ticket.first for ticket in self.tickets if ticket.first), default=None)

    @property
    def last(self) -> float | None:
        return max((ticket.last for ticket in self.tickets if ticket.last), default=None)

    @property
    def written(self) -> int:
        """Tokens of answers."""
        return sum(ticket.written for ticket in self.tickets)

    @property
    def per_token(self) -> float | None:
        """Seconds between two tokens, on average."""
        if self.first is None or self.last is None or self.written < 2:
            return None
        return (self.last - self.first) / (self.written - 1)


_current: ContextVar[Record | None] = ContextVar("record", default=None)


def begin(record: Record) -> None:
    """Let this be the record of what the current task does."""
    _current.set(record)


def current() -> Record:
    """The record of the request that is being answered; a new one where no request is, as in a job."""
    return _current.get() or Record()
