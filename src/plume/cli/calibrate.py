"""`plume calibrate`: how sure a model may be of its decisions, learnt on answers it has not seen."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import track

from plume.checks.run import examine
from plume.checks.selection import Selection
from plume.cli import options, output
from plume.data.records import Reading
from plume.errors import DataError

EXAMPLES = "Examples: plume calibrate runs/mood validation.jsonl · plume calibrate ./model validation.jsonl --json"


def calibrate(
    model: options.Model,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Questions with the right labels, not trained on.")],
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    json: options.Json = False,
) -> None:
    """Learn the temperature at which a model is as sure of its decisions as it is right.

    The answers of the file are the labels it chooses from. The temperature is written to decisions.json beside the
    model; /v1/decisions of `plume serve` uses it from then on.
    """
    examined = examine(data, Reading(False, prompt_column, completion_column, None), Selection(select=("D1",)))
    if examined.errors or not examined.examples:
        raise DataError(f"{data} cannot be read", examined.errors, f"`plume check {data}` lists all")
    from plume.generation import decide
    from plume.models.bundle import load
    from plume.models.catalog import find_directory

    labels = decide.labels_of(examined.examples, data)
    directory = find_directory(model)
    scored = decide.score_answers(load(model), examined.examples, labels)
    turns = sum(1 for example in examined.examples for turn in example.turns() if turn.history)
    rows = list(
        track(scored, "scoring", total=turns, console=output.err, transient=True, disable=not sys.stderr.isatty())
    )
    found = decide.calibration(rows, labels, data)
    file = decide.write_calibration(directory, found)
    if json:
        output.write_json({**asdict(found), "file": str(file)})
        return
    output.write(f"temperature {found.temperature:.3f}, learnt on {found.examples} answers ({len(labels)} labels)")
    output.write(f"log loss {found.log_loss_before:.4f} before, {found.log_loss_after:.4f} with it")
    output.note(f"written to {file}")
