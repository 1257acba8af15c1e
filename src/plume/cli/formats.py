"""Findings for machines: JSON, SARIF 2.1.0 and GitHub's workflow annotations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from plume.checks.catalogue import CATALOGUE
from plume.cli.excerpt import Excerpt
from plume.data.sql import is_url
from plume.types import Finding

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as `--json` prints it."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "file": finding.source.file,
        "line": finding.source.line,
        "column": finding.source.column,
        "message": finding.message,
        "hint": finding.hint,
        "related": [{"file": source.file, "line": source.line} for source in finding.related],
    }


def sarif(findings: Sequence[Finding], excerpts: Sequence[Excerpt | None]) -> dict[str, Any]:
    """A SARIF log (OASIS, 2.1.0) with one run; code hosts show it beside the lines."""
    codes = sorted({finding.code for finding in findings})
    driver = {
        "name": "plume",
        "version": metadata.version("plume-lm"),
        "rules": [
            {
                "id": code,
                "shortDescription": {"text": CATALOGUE[code].title},
                "fullDescription": {"text": CATALOGUE[code].why},
                "help": {"text": CATALOGUE[code].fix},
            }
            for code in codes
        ],
    }
    results = [
        {
            "ruleId": finding.code,
            "ruleIndex": codes.index(finding.code),
            "level": _LEVELS[finding.severity],
            "message": {"text": f"{finding.message}; {finding.hint}"},
            "locations": [_location(finding.source.file, finding.source.line, finding.source.column, excerpt)],
            "relatedLocations": [_location(source.file, source.line, None, None) for source in finding.related],
        }
        for finding, excerpt in zip(findings, excerpts, strict=True)
    ]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


def _location(file: str, line: int | None, column: int | None, excerpt: Excerpt | None) -> dict[str, Any]:
    if is_url(file):  # a database is no artifact that could be opened at a line
        return {"logicalLocations": [{"fullyQualifiedName": f"{file}:{line}" if line else file}]}
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(file)}}
    if line:
        place["region"] = {"startLine": line}
        if excerpt and excerpt.width:
            place["region"] |= {"startColumn": excerpt.column, "endColumn": excerpt.column + excerpt.width}
        elif column:
            place["region"]["startColumn"] = column
    return {"physicalLocation": place}


def _uri(file: str) -> str:
    """A file name as a relative reference (RFC 3986, 4.2), where a colon in the first segment would end a scheme."""
    path = PurePath(file).as_posix()
    return "./" * (":" in path.partition("/")[0]) + quote(path)


def github(findings: Iterable[Finding]) -> Iterable[str]:
    """Workflow commands that annotate the lines of a change."""
    for finding in findings:
        source = finding.source
        places = {"file": source.file, "line": source.line, "col": source.column, "title": finding.code}
        said = ",".join(f"{name}={_property(str(value))}" for name, value in places.items() if value is not None)
        yield f"::{_COMMANDS[finding.severity]} {said}::{_data(f'{finding.message}; {finding.hint}')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
