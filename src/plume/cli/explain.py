"""`plume explain`: what a code means, why it matters, and how to fix it."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from plume.checks.catalogue import CATALOGUE, FAMILIES
from plume.cli import options, output
from plume.errors import UserError

EXAMPLES = "Examples: plume explain D203 · plume explain D203 D703 · plume check --list"


def explain(
    codes: Annotated[list[str], typer.Argument(metavar="CODE...", help="Codes that a check has given, such as D203.")],
    json: options.Json = False,
) -> None:
    """Say what a finding means: title, severity, the harm it does, the fix."""
    wanted = [code.upper() for code in codes]
    for code in wanted:
        if code not in CATALOGUE:
            near = difflib.get_close_matches(code, CATALOGUE, 1)
            raise UserError(
                f"there is no check {code!r}", f"did you mean {near[0]}?" if near else "plume check --list shows all"
            )
    if json:
        output.write_json([_entry(code) for code in wanted])
        return
    for number, code in enumerate(wanted):
        entry = CATALOGUE[code]
        fixed = "\nplume check FILE --fix OUT does it." if entry.fixable else ""
        output.out.print("\n" * (number > 0) + f"[bold]{code}[/] {entry.title}", soft_wrap=False)
        output.out.print(f"[dim]{FAMILIES[code[:2]]} · {entry.severity}[/]\n", soft_wrap=False)
        output.out.print(f"Why: {entry.why}.", markup=False, soft_wrap=False)
        output.out.print(f"Fix: {entry.fix}.{fixed}", markup=False, soft_wrap=False)


def show_all(json: bool) -> None:
    """The whole catalogue, a line a code."""
    if json:
        output.write_json([_entry(code) for code in CATALOGUE])
        return
    for code, entry in CATALOGUE.items():
        fixable = " [fixable]" if entry.fixable else ""
        output.write(f"{code}  {entry.severity:<24}  {entry.title}{fixable}")


def _entry(code: str) -> dict[str, object]:
    entry = CATALOGUE[code]
    return {
        "code": code,
        "family": FAMILIES[code[:2]],
        "title": entry.title,
        "severity": entry.severity,
        "why": entry.why,
        "fix": entry.fix,
        "fixable": entry.fixable,
    }
