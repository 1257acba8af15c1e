"""`plume eval`: how good a model is on a file of questions it should answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from plume.checks.run import examine
from plume.checks.selection import Selection
from plume.checks.splits import overlap
from plume.cli import options, output
from plume.cli.formats import as_json
from plume.data.records import Reading
from plume.errors import DataError, UserError
from plume.runs import Run, run_of
from plume.types import Example, Finding, Scored

if TYPE_CHECKING:
    from plume.models.bundle import Bundle

EXAMPLES = "Examples: plume eval runs/qa test.jsonl · plume eval ./model test.jsonl --schema answer.schema.json --json"
_WORST = 5
_BASELINE_ROWS = 128


def evaluate(
    model: options.Model,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Rows with the answers expected, or text.")],
    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON Schema every answer should satisfy.")
    ] = None,
    split_documents: options.SplitDocuments = False,
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    query: options.Query = None,
    quantization: options.Quantization = None,
    json: options.Json = False,
) -> None:
    """Ask every question of a file and compare the answers given with the answers expected.

    Scores: exact_match, token_f1, json_valid (rows whose answer is JSON), schema_valid (with --schema),
    stop_rate, perplexity, bits_per_byte; beside them the baseline: the model before training.
    Exit code 0 whatever the scores; a run directory keeps the result as eval/NAME.json.
    """
    examples = _examples(data, Reading(split_documents, prompt_column, completion_column, query))
    from plume.evaluation.report import write_report
    from plume.evaluation.results import result
    from plume.evaluation.run import evaluate as run_evaluation
    from plume.evaluation.run import read_schema
    from plume.generation.engine import Engine
    from plume.models.bundle import load

    wanted = read_schema(schema) if schema else None
    bundle = load(model, quantization)
    run = run_of(Path(model))
    findings = _leaks(run, examples)
    output.show_findings(findings)
    rows = _progress(run_evaluation(Engine(bundle), examples, schema=wanted), _turns(examples), "answering")
    baseline, name = _baseline(run, bundle, examples, wanted)
    value = result(model, data, rows, baseline, name)
    value["findings"] = [as_json(finding) for finding in findings]
    if run:
        run.write_eval(_name(data), value)
        if run.info()["status"] == "finished":
            write_report(run)
    if json:
        output.write_json(value)
    else:
        _show(value)


def _examples(data: str, reading: Reading) -> Sequence[Example]:
    """Every row. Raises DataError when one cannot be asked, or there is none."""
    examined = examine(data, reading, Selection(select=("D1", "D215")))
    broken = [finding for finding in examined.errors if finding.code not in ("D203", "D215")]
    if broken or not examined.examples:
        raise DataError(f"{data} cannot be evaluated", broken or examined.errors, f"`plume check {data}` lists all")
    return examined.examples


def _name(data: str) -> str:
    """The file's stem, unless training already keeps its own scores under that name."""
    stem = Path(data).stem
    return f"{stem}-file" if stem in ("held_out", "recall") else stem


def _turns(examples: Sequence[Example]) -> int:
    return sum(1 for example in examples for _ in example.turns())


def _progress(rows: Any, total: int, what: str) -> list[Scored]:
    return list(track(rows, what, total=total, console=output.err, transient=True, disable=not sys.stderr.isatty()))


def _leaks(run: Run | None, examples: Sequence[Example]) -> list[Finding]:
    """D401 against the data the run was trained on, as far as it is still there."""
    if run is None:
        return []
    from plume.training.sources import fingerprints, reading

    recipe = run.recipe()
    try:
        trained = examine(recipe.data, reading(recipe), Selection(select=("D401",))).examples
    except UserError:
        output.note(f"note: the training data {recipe.data} is gone, so overlap with it cannot be checked")
        return []
    if fingerprints(recipe)[recipe.data] != run.info()["data"].get(recipe.data):
        output.note(f"note: {recipe.data} is no longer what was trained on, so overlap with it cannot be checked")
        return []
    held_out = set(run.info()["held_out"])
    return list(overlap([example for example in trained if str(example.source) not in held_out], examples))


def _baseline(
    run: Run | None, trained: Bundle, examples: Sequence[Example], schema: Any
) -> tuple[list[Scored] | None, str]:
    """The same questions to the model as it was before training; unknown without a run."""
    if run is None:
        return None, ""
    from plume.evaluation.run import evaluate as run_evaluation
    from plume.generation.engine import Engine
    from plume.training.making import baseline
    from plume.training.measure import spread

    try:
        bundle, name = baseline(run.recipe(), trained)
    except UserError as error:
        output.note(f"note: no baseline: {error.message}")
        return None, ""
    asked = tuple(spread(examples, _BASELINE_ROWS))
    rows = run_evaluation(Engine(bundle), asked, schema=schema, max_new_tokens=trained.max_new_tokens)
    return _progress(rows, _turns(asked), "baseline"), name


def _show(value: dict[str, Any]) -> None:
    baseline = value["baseline"]
    table = Table(box=None, pad_edge=False)
    table.add_column("score")
    table.add_column("model", justify="right")
    if baseline:
        table.add_column(f"baseline ({baseline['name']}, {baseline['rows']} rows)", justify="right")
    for name, score in value["scores"].items():
        if score is not None:
            table.add_row(name, f"{score:.4f}", *([_number(baseline["scores"][name])] if baseline else []))
    output.out.print(table, markup=False)
    wrong = [row for row in value["rows"] if row["exact_match"] is False]
    for row in wrong[:_WORST]:
        output.write(f"\n{row['file']}:{row['line']}  {row['prompt']}")
        output.write(f"  expected  {row['reference']}")
        output.write(f"  answered  {row['answer']}")
    if len(wrong) > _WORST:
        output.write(f"\n… and {len(wrong) - _WORST} more rows not matched exactly (--json lists all)")


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
