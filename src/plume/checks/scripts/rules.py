"""The form of a rule on scripts: a function of the facts, registered under its code.

    @rule("D701", "error")
    def overwritten_labels(facts: Facts) -> Iterator[Found]: ...

A rule that concludes from an absence ("no pad token is set") is registered with `whole=True` and rests when
some of the script could not be read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from plume.checks.scripts.facts import Facts
from plume.types import Severity

RELATED = "\0"  # stands in a message for the line of the first related place


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule has to say about one place of the script; `related` are the other places."""

    node: ast.AST
    message: str
    hint: str
    related: tuple[ast.AST, ...] = ()
    quote: str = ""


Check = Callable[[Facts], Iterator[Found]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check with what all its findings share."""

    code: str
    severity: Severity
    check: Check
    whole: bool


RULES: list[Rule] = []


def rule(code: str, severity: Severity, *, whole: bool = False) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        RULES.append(Rule(code, severity, check, whole))
        return check

    return register
