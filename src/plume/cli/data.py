"""`plume data`: two data sets that differ by an attribute, and tables made into questions and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from plume.cli import options, output
from plume.errors import PlumeError

DERIVE_EXAMPLES = (
    "Examples: plume data derive qa.jsonl --drop-attribute age --output-dir age · "
    "plume data derive qa.jsonl --drop-attribute ville --values Lyon,Nice --output-dir ville"
)
PREPARE_EXAMPLES = "Examples: plume data prepare recipe.yaml · plume data prepare recipe.yaml --output qa.parquet"
_SHOWN = 20
_KINDS = {
    "key": "the key itself",
    "pattern": "matched by a pattern",
    "listed": "a listed value",
    "own_value": "the value removed from this row",
    "other_value": "a value removed from another row",
}


def derive(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of questions and answers.")],
    drop_attribute: Annotated[str, typer.Option(metavar="NAME", help="What to remove; alone, the field NAME.")],
    output_dir: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty directory for the pair.")],
    field: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A key of JSON answers, at any depth, or a column.")
    ] = None,
    pattern: Annotated[
        list[str] | None, typer.Option(metavar="REGEX", help="Text to remove from questions and answers.")
    ] = None,
    values: Annotated[
        str | None, typer.Option(metavar="FILE|A,B,C", help="Words to remove, whatever their case and accents.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Make the same data set with and without an attribute, and check that the attribute is gone.

    Exit code 0 when it is, 1 when something of it is left (both files are written), 2 for a mistake in the request.
    """
    from plume.data.derive import Attribute, read_values
    from plume.data.derive import derive as make

    listed = read_values(values) if values is not None else ()
    attribute = Attribute(drop_attribute, tuple(field or ()), tuple(pattern or ()), listed)
    derived = make(file, attribute, output_dir)
    if json:
        output.write_json(asdict(derived))
    else:
        without = derived.rows - derived.dropped
        output.write(f"{output_dir / 'with.jsonl'}: {_rows(derived.rows)}")
        output.write(f"{output_dir / 'without.jsonl'}: {_rows(without)}, {derived.changed} changed")
        if derived.dropped:
            output.write(f"{output_dir / 'dropped.jsonl'}: {_rows(derived.dropped)} about {drop_attribute} alone")
        for leak in derived.leaks[:_SHOWN]:
            place = f"{output_dir / 'without.jsonl'}:{leak.line} ({file}:{leak.source_line})"
            output.write(f"left: {place} {leak.where}: {leak.quote!r} is {_KINDS[leak.kind]}")
        if len(derived.leaks) > _SHOWN:
            output.write(f"… and {len(derived.leaks) - _SHOWN} more in {output_dir / 'derive.json'}")
    if derived.leaks:
        places = f"{len(derived.leaks)} place{'s' * (len(derived.leaks) != 1)}"
        raise PlumeError(
            f"something of {drop_attribute} is left in {places}",
            "remove it with a further --field, --pattern or --values, or judge each place to be about something else",
        )
    if not json:
        output.write(f"{drop_attribute} is gone: no key, no match and no removed value is left")


def prepare(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file: input, steps, output.")],
    output_file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="A .jsonl or .parquet file; wins over the recipe.")
    ] = None,
    redact: Annotated[
        str | None,
        typer.Option(metavar="all|KIND,…", help="Take personal data out of every text, after the last step."),
    ] = None,
    redact_names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names to take out, too, one a line.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Turn a table (CSV, JSON lines, Parquet, SQL) into questions and answers, as a recipe says.

    Running a recipe again gives the same bytes. What it learnt from the data stands in FILE.journal.json.
    """
    from plume.data.prepare import prepare as run
    from plume.data.step_settings import Redact

    last = None
    if redact is not None or redact_names is not None:
        names = None if redact_names is None else str(redact_names)
        last = Redact(kinds=(redact or "name").split(","), names=names)
    prepared = run(recipe, output_file, last)
    if json:
        output.write_json(asdict(prepared))
        return
    for step in prepared.steps:
        output.write(_step(step))
    output.write(f"{prepared.output}: {_rows(prepared.rows_out)} of {prepared.rows_in}; journal {prepared.journal}")


def _step(step: dict[str, Any]) -> str:
    name = list(step)[1]
    lost = step["rows_in"] - step["rows_out"]
    return f"step {step['step']} {name}: {_rows(step['rows_out'])}" + (f", {lost} dropped" if lost else "")


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def application(guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The sub-application; `guarded` turns expected errors into messages and exit codes."""
    app = typer.Typer(
        help="Make data sets: with and without an attribute, or from a table.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    app.command("derive", epilog=DERIVE_EXAMPLES)(guarded(derive))
    app.command("prepare", epilog=PREPARE_EXAMPLES)(guarded(prepare))
    return app
