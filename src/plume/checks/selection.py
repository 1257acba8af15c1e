"""Which findings are wanted, and how severe they are: options, `plume.toml`, and a side file of exceptions."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from plume.checks.catalogue import CATALOGUE
from plume.data.lines import is_file
from plume.errors import UserError
from plume.redact import Names, read_names
from plume.types import Finding, Severity

SETTINGS = Path("plume.toml")
SUFFIX = ".plume-ignore"
_EXCEPTION = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?\s+(?P<code>D\d+)(?:\s+.*)?")


@dataclass(frozen=True, slots=True)
class Selection:
    """Codes or families (`D2`, `D203`) wanted and not wanted, severities other than the catalogue's, and the names
    of people that D210 is to find."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = field(default_factory=dict)
    names: Names = frozenset()

    def wants(self, code: str) -> bool:
        return (not self.select or code.startswith(self.select)) and not code.startswith(self.ignore or ("-",))

    def apply(self, finding: Finding) -> Finding:
        """The finding with the severity that was set for its code, or else for its family."""
        families = [code for code in self.severity if finding.code.startswith(code)]
        severity = self.severity[max(families, key=len)] if families else finding.severity
        return finding if severity == finding.severity else replace(finding, severity=severity)


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class Exceptions(Container[tuple[int | None, str]]):
    """The (line, code) pairs that are right as they are; a family stands for each of its codes."""

    pairs: frozenset[tuple[int, str]] = frozenset()

    def __contains__(self, place: object) -> bool:
        line, code = place if isinstance(place, tuple) else (None, "")
        return any((line, code[:length]) in self.pairs for length in range(1, len(code) + 1))


def selection(
    select: Iterable[str] = (), ignore: Iterable[str] = (), names: Path | None = None, settings: Path = SETTINGS
) -> Selection:
    """What options and `plume.toml` (in the working directory) ask for together; options win.

    Codes may be separated by commas. Raises UserError for a code that is not in the catalogue.
    """
    table = _check_table(settings)
    severity: dict[str, Severity] = {}
    given = table.get("severity", {})
    if not isinstance(given, dict):
        raise UserError(f"{settings}: severity = {given!r} is not a table", 'write: severity = {D203 = "warning"}')
    for code, value in given.items():
        if value not in get_args(Severity):
            raise UserError(f"{settings}: {code} = {value!r} is no severity", "write error, warning or info")
        severity[_known(code, str(settings))] = value
    return Selection(
        _codes(select, "--select") or _codes(table.get("select", ()), str(settings)),
        _codes(ignore, "--ignore") + _codes(table.get("ignore", ()), str(settings)),
        severity,
        read_names(names) if names else frozenset(),
    )


def kept(found: Iterable[Finding], chosen: Selection) -> list[Finding]:
    """The findings that are wanted and that no side file of their file excepts, with the severities set for them."""
    excepted: dict[str, Exceptions] = {}
    wanted = [chosen.apply(finding) for finding in found if chosen.wants(finding.code)]
    for file in {finding.source.file for finding in wanted}:
        excepted[file] = exceptions(file)
    return [one for one in wanted if (one.source.line, one.code) not in excepted[one.source.file]]


def exceptions(file: str) -> Exceptions:
    """What `FILE.plume-ignore` excepts: lines such as `17 D203 both are right`, or `17-20 D2 …` for a family.

    Raises UserError when the side file cannot be read or a line of it cannot be understood.
    """
    side = Path(file + SUFFIX)
    if not is_file(side):
        return Exceptions()
    try:
        text = side.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{side} is not UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{side}: cannot be read ({error.strerror})", "make it readable, or remove it") from None
    found: set[tuple[int, str]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _EXCEPTION.fullmatch(line.strip())
        if not match:
            raise UserError(f"{side}:{number}: {line.strip()!r} is no exception", "write: 17 D203 why it is right")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        code = _known(match["code"], f"{side}:{number}")
        found.update((row, code) for row in range(first, min(last, first + 1_000_000) + 1))
    return Exceptions(frozenset(found))


def _check_table(settings: Path) -> dict[str, Any]:
    try:
        whole = tomllib.loads(settings.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{settings}: {error}", "correct the file, or remove it") from None
    _refuse_unknown(whole, ("check",), str(settings))
    table = whole.get("check", {})
    if not isinstance(table, dict):
        raise UserError(f"{settings}: check = {table!r} is not a table", 'write [check], and below it: ignore = ["D2"]')
    _refuse_unknown(table, ("select", "ignore", "severity"), f"{settings}, [check]")
    return table


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
            raise UserError(f"{where}: {key!r} is not known", hint)


def _codes(given: object, where: str) -> tuple[str, ...]:
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise UserError(f"{where}: {given!r} is not a list of codes", 'write a list: ["D2", "D301"]')
    return tuple(_known(code.strip(), where) for text in given for code in str(text).split(",") if code.strip())


def _known(code: str, where: str) -> str:
    if re.fullmatch(r"D\d{0,3}", code) and any(known.startswith(code) for known in CATALOGUE):
        return code
    near = difflib.get_close_matches(code, CATALOGUE, 1)
    hint = f"did you mean {near[0]}?" if near else "plume check --list shows all codes"
    raise UserError(f"{where}: there is no check {code!r}", hint)
