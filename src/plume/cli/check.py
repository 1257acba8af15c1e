"""`plume check`: every mistake in data files, training scripts and runs, before it costs anything."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from plume.checks.catalogue import CATALOGUE
from plume.checks.directory import open_text_side
from plume.checks.fix import fix
from plume.checks.run import Examined
from plume.checks.selection import SETTINGS, SUFFIX, Selection, selection
from plume.cli import formats, options, output
from plume.cli.examine import STDIN, Request, examine_all
from plume.cli.excerpt import excerpts
from plume.cli.explain import show_all
from plume.cli.findings import show, show_summary, tally, told
from plume.cli.mask import show_row
from plume.data.lines import spooled_stdin
from plume.data.read import read
from plume.data.records import Reading, layout_of, plain, shown
from plume.data.sql import is_url
from plume.errors import PlumeError, UserError
from plume.types import Example, Finding

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
    reading = Reading(split_documents, prompt_column, completion_column, query, force_format)
    choose = functools.partial(selection, select or (), ignore or (), names)
    request = Request(tuple(dict.fromkeys(files)), eval_data, model, recipe, reading, choose())
    _refuse_ignored(request, output_format, fix=bool(fix_to), show=show_line is not None, watch=watch, json=json)
    with _with_stdin(request) as request:
        if show_line is not None:
            _show_row(request, show_line)
        elif fix_to:
            _fix(request, fix_to, json=json)
        elif watch:
            _watch(request, choose, "json" if json else output_format)
        elif _check(request, "json" if json else output_format):
            raise typer.Exit(1)


@contextlib.contextmanager
def _with_stdin(request: Request) -> Iterator[Request]:
    """The request with standard input, if it is asked for, as a file that is gone afterwards."""
    if STDIN not in request.files:
        yield request
        return
    copy = spooled_stdin()
    try:
        yield replace(request, stdin=copy)
    finally:
        copy.unlink()


def _refuse_ignored(
    request: Request, output_format: OutputFormat, *, fix: bool, show: bool, watch: bool, json: bool
) -> None:
    """Raise UserError when something was asked for that would not be done."""
    if request.eval_data == STDIN:
        raise UserError("--eval-data cannot be -: only DATA is read from standard input", "name a file")
    rows = {"--eval-data": request.eval_data, "--show": show}
    for option in (option for option, given in rows.items() if given and not request.data):
        raise UserError(f"{option} needs a data file; {shown(request.files[0])} holds no rows", "name the data as well")
    if request.reading.query and not any(map(is_url, (*request.files, request.eval_data or ""))):
        message = f"--query asks a database, and {request.files[0]} is a file"
        raise UserError(message, "plume check 'sqlite:///faq.db' --query 'SELECT question, answer FROM faq'")
    if show and not request.model:
        message = "--show needs a model: its tokenizer and template decide what is trained"
        raise UserError(message, "plume check FILE --model DIR --show 17")
    others: Mapping[str, object] = {
        "--eval-data": request.eval_data,
        "--recipe": request.recipe,
        "--watch": watch,
        "--output-format": output_format != "text",
    }
    if fix:
        _refuse_together("--fix", {"--show": show, "--model": request.model, **others})
    if show:
        _refuse_together("--show", {"--json": json, **others})
    if json and output_format != "json":
        _refuse_together("--json", {f"--output-format {output_format}": output_format != "text"})


def _refuse_together(one: str, others: Mapping[str, object]) -> None:
    for other in (other for other, given in others.items() if given):
        raise UserError(f"{one} and {other} cannot be given together", f"leave out {other}, or check in two commands")


def _watch(request: Request, choose: Callable[[], Selection], wanted: OutputFormat) -> None:
    """Check whenever a file that was checked, or what excepts its findings, is written again, until Ctrl-C."""
    while True:
        before = _stamps(request)  # of what is about to be read, so that no change is missed
        try:
            _check(replace(request, selection=choose()), wanted)
        except PlumeError as error:
            output.show_error(error.message, error.hint)
        except (FileNotFoundError, PermissionError) as error:
            output.show_error(f"{error.filename}: {error.strerror}")
        output.note("watching; Ctrl-C ends")
        while before == _stamps(request):
            time.sleep(_WATCH_SECONDS)


def _stamps(request: Request) -> list[tuple[int, int] | None]:
    """When each file was written, and its size; None where there is none."""
    names = [*request.files, *([request.eval_data] if request.eval_data else []), str(SETTINGS)]
    names += [name + SUFFIX for name in names] + [str(request.recipe)] * bool(request.recipe)
    return [_stamp(Path(name)) for name in names]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


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
    name = request.data[0]
    if len(request.files) > 1:
        output.note(f"--show: the row is that of {shown(name)}, the first file")
    example = _row_at(request.path(name), shown(name), request.reading, line)
    text = open_text_side(Path(request.model or ""))
    show_row(example, text.tokenizer, text.template, output.out)


def _row_at(path: str, name: str, reading: Reading, line: int) -> Example:
    """The row that begins at or spans a line. Raises UserError when there is none."""
    row: Example | None = None
    unreadable, further = False, False
    for item in read(path, reading, name=name):
        further = (item.source.line or 0) > line
        if further:
            break
        if isinstance(item, Example):
            row = item
        elif item.severity == "error" and item.source.line == line:
            unreadable = True
    begins = row is not None and row.source.line == line
    if row is None or (unreadable and not begins) or not (begins or further or line <= _last_line(path, reading)):
        raise UserError(f"{name}: no row stands on line {line}", "name the line where a row begins")
    return row


def _last_line(path: str, reading: Reading) -> int:
    """The number of physical lines; 0 where rows are not lines of text."""
    if layout_of(path, reading) in ("parquet", "dataset", "sql"):
        return 0
    with plain(path) as stream:
        return sum(1 for _ in stream)


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


def _report(examined: Sequence[Examined], findings: Sequence[Finding]) -> dict[str, Any]:
    severities: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for (code, severity), number in tally(examined, findings).items():
        codes[code] += number
        severities[severity] += number
    return {
        "files": [shown(one.file) for one in examined],
        "examples": sum(one.count for one in examined),
        "findings": [formats.as_json(finding) for finding in findings],
        "summary": {
            "errors": severities["error"],
            "warnings": severities["warning"],
            "infos": severities["info"],
            "codes": dict(sorted(codes.items())),
        },
    }
