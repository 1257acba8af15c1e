"""What every verb prints with: results on stdout, all else on stderr, and errors in one form.

At a terminal no text that was stored, generated or given moves the cursor, fills the clipboard or hides a line: control
characters are shown as pictures.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plume.cli.formats import as_json
from plume.cli.pictures import for_reader
from plume.errors import DataError, Disconnected, PlumeError, RunFailed
from plume.types import Finding

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_SHOWN = 20
_WITH_HINTS = 10  # more findings than these get one line each, so that all fit on a screen
_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # controls that JSON leaves as they are
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write(text: str, *, end: str = "\n") -> None:
    """Plain text on stdout; in a pipe exactly as it is."""
    sys.stdout.write(for_reader(text, sys.stdout) + end)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """One line of JSON on stdout; numbers that JSON cannot hold become null upstream."""
    text = json.dumps(value, ensure_ascii=False, default=_plain, allow_nan=False)
    write(text.translate(_ESCAPED))


def note(text: str) -> None:
    """A remark on stderr."""
    err.print(for_reader(text, err.file), markup=False)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On stdout, each cell as it is: no markup is read in it, and nothing is cut or folded to a terminal's width."""
    rows = [[for_reader(cell, out.file) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, min_width=max(map(cell_len, (name, *(row[place] for row in rows)))))
    for row in rows:
        table.add_row(*row)
    out.print(table, markup=False)


def show_findings(findings: Sequence[Finding], *, limit: int = _SHOWN) -> None:
    """Findings on stderr, errors first when not all are shown."""
    ranked = sorted(findings, key=lambda finding: finding.severity != "error") if len(findings) > limit else findings
    for finding in ranked[:limit]:
        show_finding(err, finding, hint=len(findings) <= _WITH_HINTS)
    if len(findings) > limit:
        err.print(f"… and {len(findings) - limit} more")


def show_finding(console: Console, finding: Finding, *, hint: bool = True) -> None:
    colour = _COLOURS[finding.severity]
    source, message, advice = (
        escape(for_reader(text, console.file)) for text in (str(finding.source), finding.message, finding.hint)
    )
    console.print(f"[{colour}]{finding.severity}[/] [bold]{source}[/] {finding.code} {message}")
    if hint:
        console.print(f"  [dim]{advice}[/]")


def show_error(message: str, hint: str | None = None) -> None:
    """The form of every error: what, an empty line, what to do."""
    err.print(f"[bold red]error:[/] {escape(for_reader(message, err.file))}")
    if hint:
        err.print(f"\n[bold]hint:[/] {escape(for_reader(hint, err.file))}")


@contextlib.contextmanager
def errors(debug: bool) -> Iterator[None]:
    """Turn every expected failure into its text and exit code; with `debug`, let tracebacks through."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader went away (`plume … | head`): nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except PlumeError as error:
        _or_raise(debug)
        show_findings(error.findings if isinstance(error, DataError) else ())
        if main_process() or isinstance(error, Disconnected):
            show_error(error.message, error.hint)
        elif not isinstance(error, RunFailed):  # a run fails in every process alike, and the main one says so
            show_error(f"process {os.environ['RANK']}: {error.message}", error.hint)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        _or_raise(debug)
        raise SystemExit(_operating_system(error)) from None


def main_process() -> bool:
    """Whether this process is the one of several (torchrun, accelerate launch) that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def _or_raise(debug: bool) -> None:
    if debug:
        raise


def _operating_system(error: OSError) -> int:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in _NO_SPACE:
        show_error(
            f"{where}the disk is full", "free some space; a run continues with: plume train --resume --output-dir DIR"
        )
        return 1
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        show_error(f"{where}permission denied", "choose a place that you may read and write")
        return 2
    show_error(f"{where}{error.strerror or error}")
    return 1


def event_json(event: Any) -> dict[str, Any]:
    """A training event as `--json` prints it."""
    values = asdict(event)
    if "findings" in values:
        values["findings"] = [as_json(finding) for finding in event.findings]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
