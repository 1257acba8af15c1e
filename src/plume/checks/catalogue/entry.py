"""What the catalogue says of one code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severities = Literal["error", "warning", "info", "error or warning", "warning or info", "error, warning or info"]


@dataclass(frozen=True, slots=True)
class Entry:
    """`why` names the harm, measured where it was measured; `fix` what a person does about it.

    `fixable` says that `plume check --fix` does it by itself.
    """

    title: str
    severity: Severities
    why: str
    fix: str
    fixable: bool = False
