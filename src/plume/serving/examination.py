"""The doctor looks at an uploaded file, in a process of its own, so that a large one does not slow any answer down."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from plume.checks.run import examine
from plume.errors import PlumeError
from plume.types import Finding

_LISTED = 20  # findings in the details of a file


class Unexamined(Exception):
    """The process ended without a word."""


async def examined(path: Path, name: str) -> tuple[bool, str | None]:
    """Whether a file can be trained on, and what there is to say of it. Raises Unexamined."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "plume.serving.examination",
        str(path),
        name,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        raise Unexamined
    fit, details = json.loads(said)
    return bool(fit), details


def verdict(path: str, name: str) -> tuple[bool, str | None]:
    """What the doctor says: the findings that forbid training first."""
    try:
        found = examine(path, name=name, keep=False)
    except PlumeError as error:
        return False, f"{error.message}: {error.hint}".replace(path, name)
    if not found.findings:
        return found.count > 0, None
    ordered = sorted(found.findings, key=lambda one: ("error", "warning", "info").index(one.severity))
    lines = [_line(finding, path, name) for finding in ordered[:_LISTED]]
    if len(ordered) > _LISTED:
        lines.append(f"and {len(ordered) - _LISTED} more")
    count = Counter(finding.severity for finding in ordered)
    summary = ", ".join(f"{number} {kind}{'s' * (number > 1 and kind != 'info')}" for kind, number in count.items())
    return found.count > 0 and not found.errors, "\n".join([f"{found.count} examples; {summary}", *lines])


def _line(finding: Finding, path: str, name: str) -> str:
    said = f"{finding.source}: {finding.severity} {finding.code}: {finding.message} ({finding.hint})"
    return said.replace(path, name)


if __name__ == "__main__":
    json.dump(verdict(*sys.argv[1:]), sys.stdout)
