"""What `plume check` looks at: data, scripts and runs, each by itself, then what they have to do with one another."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from plume.checks.directory import directory_findings, open_text_side
from plume.checks.parallel import examining
from plume.checks.rules import Batch
from plume.checks.run import SCRIPTS, Examined, batches
from plume.checks.scripts import examine_script
from plume.checks.selection import Selection, kept
from plume.checks.settings import sampling_findings
from plume.checks.splits import Taught
from plume.checks.tokens import token_findings
from plume.cli import output
from plume.cli.costs import lines
from plume.data.lines import is_file
from plume.data.records import Reading, shown
from plume.recipe import load_recipe, parse_recipe
from plume.types import Finding, Source

STDIN = "-"
_BATCH_SIZE = 8  # what padding waste is counted for when no recipe says otherwise


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be checked, and how."""

    files: tuple[str, ...]
    eval_data: str | None
    model: str | None
    recipe: Path | None
    reading: Reading
    selection: Selection
    stdin: Path | None = None  # what `-` was copied to, since it is read more than once

    def path(self, name: str) -> str:
        """Where the file that is called `name` lies."""
        return str(self.stdin) if name == STDIN and self.stdin else name

    @property
    def data(self) -> tuple[str, ...]:
        """The files that have rows, which scripts and runs have not."""
        return tuple(name for name in self.files if not _is_script(name) and not _is_run(name))

    def batches(self) -> Iterator[Batch]:
        """All rows of all files that can be read."""
        for name in self.data:
            yield from batches(self.path(name), self.reading, name=shown(name))


def examine_all(request: Request) -> tuple[list[Examined], list[Finding]]:
    """Every file by itself, then what they share with the evaluation rows, model and recipe."""
    examined = [_examine(name, request) for name in request.files]
    findings = [finding for one in examined for finding in one.findings]
    if request.eval_data:
        asked = _examine(request.eval_data, request)
        if asked.count:  # few questions may be asked
            asked = replace(asked, findings=tuple(found for found in asked.findings if found.code != "D215"))
        examined.append(asked)
        findings += asked.findings
        findings += _leaks(request, request.eval_data)
    if request.model:
        findings += _tokens(request, request.model)
    if request.recipe:
        findings += _preflight(request, request.recipe)
    return examined, findings


def _examine(name: str, request: Request) -> Examined:
    """Data, a training script or a run, whichever the name is."""
    if _is_script(name):
        return _seen(name, examine_script(name), request.selection)
    if _is_run(name):
        from plume.evaluation.diagnose import diagnose
        from plume.runs import Run

        return _seen(name, diagnose(Run.open(Path(name))), request.selection)
    work = examining(request.path(name), request.reading, request.selection, name=shown(name))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=output.err, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task(f"checking {escape(Path(shown(name)).name)}", total=None)
        while True:
            try:
                read = next(work)
            except StopIteration as end:
                done: Examined = end.value
                return done
            progress.update(task, completed=read.done, total=read.total)


def _is_script(name: str) -> bool:
    return Path(name).suffix.lower() in SCRIPTS


def _is_run(name: str) -> bool:
    return is_file(Path(name) / "run.json")


def _seen(name: str, found: Iterable[Finding], selection: Selection) -> Examined:
    findings = tuple(kept(found, selection))
    return Examined(name, 0, findings, Counter(finding.code for finding in findings))


def _leaks(request: Request, eval_data: str) -> list[Finding]:
    taught = Taught()
    for batch in request.batches():
        taught.see(batch)
    asked = batches(eval_data, request.reading, name=shown(eval_data))
    return kept(taught.findings(asked), request.selection)


def _tokens(request: Request, model: str) -> list[Finding]:
    """D3, and what the model's directory says of itself."""
    text = open_text_side(Path(model))
    examples = [example for batch in request.batches() for example in batch.examples]
    found = [*directory_findings(text, examples), *sampling_findings(text.settings, Source(model))]
    found += token_findings(
        examples,
        text.tokenizer,
        text.template,
        max_length=text.context_length,
        max_new_tokens=int(text.settings.get("max_new_tokens") or text.context_length or 256),
        batch_size=_BATCH_SIZE,
        sampling=text.settings,
    )
    return kept(found, request.selection)


def _preflight(request: Request, file: Path) -> list[Finding]:
    """What the run would cost, said on stderr, and D5."""
    from plume.training.preflight import preflight
    from plume.training.prepare import prepare

    given: dict[str, object] = {"model": request.model, "eval_data": request.eval_data}
    reading = request.reading
    given |= {"prompt_column": reading.prompt_column, "completion_column": reading.completion_column}
    given |= {"query": reading.query, "split_documents": reading.split_documents}
    for name in request.data[:1]:
        given["data"] = request.path(name)
    base = load_recipe(file).model_dump()
    recipe = parse_recipe({**base, **{key: value for key, value in given.items() if value}}, str(file))
    expected = preflight(prepare(recipe, force=True))
    for line in lines(expected):
        output.note(line)
    spooled = str(request.stdin)
    found = (
        replace(finding, source=replace(finding.source, file=STDIN)) if finding.source.file == spooled else finding
        for finding in expected.findings
    )
    return kept(found, request.selection)
