"""`plume check`: every mistake in data files, training scripts and runs, before it costs anything."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from plume.checks.catalogue import CATALOGUE
from plume.checks.directory import open_text_side
from plume.checks.fix import fix
from plume.checks.run import Examined
from plume.checks.selection import SETTINGS, SUFFIX, selection
from plume.cli import formats, options, output
from plume.cli.examine import STDIN, Request, examine_all
from plume.cli.excerpt import excerpts
from plume.cli.explain import show_all
from plume.cli.findings import show, show_summary, told
from plume.cli.mask import show_row
from plume.data.lines import spooled_stdin
from plume.data.records import Reading
from plume.errors import UserError
from plume.types import Finding

EXAMPLES = (
    "Examples: plume check qa.jsonl · plume check train.jsonl --eval-data test.jsonl · plume check qa.csv --fix "
    "qa.fixed.jsonl · plume check qa.jsonl --model ./smol --show 17 · plume check finetune.py · "
    "plume check 'sqlite:///faq.db' --query 'SELECT question, answer FROM faq'"
)
_WATCH_SECONDS = 0.5
OutputFormat = Literal["text", "json", "sarif", "github"]


def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE...", help="Data, scripts (.py, .ipynb), runs, a database URL, or - for stdin."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Check the rows with this model's tokenizer and template.")
    ] = None,
    eval_data: Annotated[str | None, typer.Option(metavar="FILE", help="Evaluation rows, checked for leaks.")] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="A recipe.yaml to check with the rows.")] = None,
    fix_to: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write a corrected copy and a journal.")
    ] = None,
    show_line: Annotated[
        int | None, typer.Option("--show", metavar="LINE", help="With --model: what of this row is trained.")
    ] = None,
    select: Annotated[list[str] | None, typer.Option(metavar="CODES", help="Only these: D2, D301 …")] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="CODES", help="All but these.")] = None,
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    query: options.Query = None,
    force_format: options.ForceFormat = None,
    split_documents: options.SplitDocuments = False,
    names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of people, one a line, that D210 is to find.")
    ] = None,
    json: options.Json = False,
    output_format: Annotated[OutputFormat, typer.Option(help="For people, programs, code hosts.")] = "text",
    watch: Annotated[bool, typer.Option("--watch", help="Check again whenever a file changes.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List every check, and do nothing else.")] = False,
) -> None:
    """Name every mistake with its line, its reason and its fix: in data, in training scripts, in a finished run.

    Exit code 0 when no finding is an error, 1 when one is, 2 when a file cannot be opened. Findings that are right as
    they are go into FILE.plume-ignore (`17 D203 why`); plume.toml sets select, ignore and severities.
    """
    if list_all:
        show_all(json)
        return
    if not files:
        raise UserError("no file was named", "plume check qa.jsonl; plume check --list shows what is looked for")
    names_read = tuple(dict.fromkeys(files))
    reading = Reading(split_documents, prompt_column, completion_column, query, force_format)
    chosen = selection(select or (), ignore or (), names)
    with contextlib.ExitStack() as stack:
        stdin = spooled_stdin() if STDIN in names_read else None
        if stdin:
            stack.callback(stdin.unlink)
        request = Request(names_read, eval_data, model, recipe, reading, chosen, stdin)
        if show_line is not None:
            _show_row(request, show_line)
        elif fix_to:
            _fix(request, fix_to, json=json)
        elif _check_until_done(request, "json" if json else output_format, watch=watch):
            raise typer.Exit(1)


def _check_until_done(request: Request, wanted: OutputFormat, *, watch: bool) -> bool:
    failed = _check(request, wanted)
    while watch:
        _wait_for_change(request)
        failed = _check(request, wanted)
    return failed


def _check(request: Request, wanted: OutputFormat) -> bool:
    """Check everything once and say so; True when a finding is an error."""
    examined, findings = examine_all(request)
    if wanted == "json":
        output.write_json(_report(examined, findings))
    elif wanted == "sarif":
        output.write_json(formats.sarif(findings, excerpts(findings)))
    elif wanted == "github":
        for line in formats.github(findings):
            output.write(line)
    else:
        show(output.out, findings)
        show_summary(output.out, examined, findings)
        output.write(told(examined, findings))
    return any(finding.severity == "error" for finding in findings)


def _show_row(request: Request, line: int) -> None:
    """The row of a line as the model sees it."""
    if not request.model:
        message = "--show needs a model: its tokenizer and template decide what is trained"
        raise UserError(message, "plume check FILE --model DIR --show 17")
    text = open_text_side(Path(request.model))
    last = None
    for example in (example for batch in request.batches() for example in batch.examples):
        if (example.source.line or 0) > line:
            break
        last = example
    if last is None:
        raise UserError(f"{request.files[0]}: no row stands on line {line}", "name the line where a row begins")
    show_row(last, text.tokenizer, text.template, output.out)


def _fix(request: Request, out: Path, *, json: bool) -> None:
    if len(request.files) != 1:
        raise UserError("--fix corrects one file at a time", "plume check qa.jsonl --fix qa.fixed.jsonl")
    done = fix(request.path(request.files[0]), out, request.reading, request.selection)
    if json:
        output.write_json({"file": str(out), "rows": done.rows, "dropped": done.dropped, "changes": done.changes})
        return
    for code, count in sorted(done.changes.items()):
        output.write(f"{code}  {count:>6}  {CATALOGUE[code].title}")
    output.write(f"{out}: {done.rows} rows; {done.dropped} left out into {out}.dropped.jsonl")
    output.note(f"every change is in {out}.journal.jsonl; check the copy: plume check {out}")


def _wait_for_change(request: Request) -> None:
    """Return when a file that was checked is written again."""
    names = [*request.files, *([request.eval_data] if request.eval_data else []), str(SETTINGS)]
    names += [name + SUFFIX for name in names]
    before = [_stamp(name) for name in names]
    output.note("watching; Ctrl-C ends")
    while before == [_stamp(name) for name in names]:
        time.sleep(_WATCH_SECONDS)


def _stamp(name: str) -> float:
    try:
        return Path(name).stat().st_mtime
    except OSError:
        return 0.0


def _report(examined: Sequence[Examined], findings: Sequence[Finding]) -> dict[str, Any]:
    counted = Counter(finding.severity for finding in findings)
    codes: Counter[str] = sum((one.counts for one in examined), Counter())
    return {
        "files": [one.file for one in examined],
        "examples": sum(one.count for one in examined),
        "findings": [formats.as_json(finding) for finding in findings],
        "summary": {
            "errors": counted["error"],
            "warnings": counted["warning"],
            "infos": counted["info"],
            "codes": dict(sorted((Counter(finding.code for finding in findings) | codes).items())),
        },
    }
