"""Every error a person can meet. Each says what is wrong and, as `hint`, what to do about it.

PlumeError            an operation failed                               exit code 1
├── RunFailed         training ended but its own proof of the result failed
├── Disconnected      another process of the same run ended
└── UserError         the request itself is at fault                    exit code 2
    └── DataError     rows of a file cannot be used; carries every finding
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plume.types import Finding


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


class UserError(PlumeError):
    """A missing file, an unknown key, a wrong value: nothing was started."""

    exit_code = 2


class DataError(UserError):
    """Rows that stop training or evaluation; `findings` lists all of them, not only the first."""

    def __init__(self, message: str, findings: Sequence[Finding], hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.findings = tuple(findings)
