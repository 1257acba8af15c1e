"""Every error a person can meet. Each says what is wrong and, as `hint`, what to do about it.

PlumeError            an operation failed                               exit code 1
├── RunFailed         training ended but its own proof of the result failed
├── Disconnected      another process of the same run ended
├── ConversationChanged   somebody else wrote first; carries where the conversation is now
├── DocumentChanged   somebody else wrote first; carries the revision there is now
└── UserError         the request itself is at fault                    exit code 2
    ├── DataError     rows of a file cannot be used; carries every finding
    ├── ContextExceeded   a prompt has more tokens than there is room for; carries both numbers
    ├── NotFound      a store has nothing of that name for this tenant
    └── AlreadyExists a store has something of that name already
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plume.types import Finding


_SHORT = reprlib.Repr()
_SHORT.maxstring = 80


def shown(name: str) -> str:
    """A name in quotes for a message, however long it is and whatever is in it."""
    return _SHORT.repr(name)


class PlumeError(Exception):
    """An operation failed for a reason that can be named."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RunFailed(PlumeError):
    """The trained weights are not finite, did not change, or answer differently once reloaded."""


class Disconnected(PlumeError):
    """Another process of the same run ended, and what stopped it stands in its output, not here."""


class ConversationChanged(PlumeError):
    """The conversation is no longer what the writer read: nothing was written. `head` is where it is now."""

    def __init__(self, id: str, at: int, head: int) -> None:
        super().__init__(
            f"conversation {shown(id)} has changed: it is at {head}, not at {at}",
            "read it again, decide whether the message still fits, and append it at the new position",
        )
        self.head = head


class DocumentChanged(PlumeError):
    """The document is no longer what the writer read: nothing was written. `revision` is what there is, 0: none."""

    def __init__(self, kind: str, id: str, at: int, revision: int) -> None:
        super().__init__(
            f"{shown(kind)} {shown(id)} has changed: it is at revision {revision}, not at {at}",
            "read it again and write what follows from what it is now",
        )
        self.revision = revision


class UserError(PlumeError):
    """A missing file, an unknown key, a wrong value: nothing was started."""

    exit_code = 2


class WrongKey(UserError):
    """What is sealed was sealed with another key than the one that was given. Of a server, its operator gives it."""


class DataError(UserError):
    """Rows that stop training or evaluation; `findings` lists all of them, not only the first."""

    def __init__(self, message: str, findings: Sequence[Finding], hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.findings = tuple(findings)


class ContextExceeded(UserError):
    """`what` has more `tokens` than the `budget` that the model's context leaves for a prompt."""

    def __init__(self, what: str, tokens: int, budget: int) -> None:
        super().__init__(
            f"{what} has {tokens} tokens; the model's context has room for {max(0, budget)} before the answer",
            "shorten it, leave the answer less (max_new_tokens), or train with a larger max_length",
        )
        self.tokens, self.budget = tokens, budget


class NotFound(UserError):
    """There is nothing of that name for this tenant; whether another tenant has it cannot be told."""


class AlreadyExists(UserError):
    """There is something of that name already; nothing was written."""
