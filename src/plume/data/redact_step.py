"""The step that takes personal data out of a table. Each row is a conversation of its own: its columns share marks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plume.data.sources import Table
from plume.data.step_settings import Redact
from plume.errors import UserError
from plume.redact import Redaction, Redactor, redaction

if TYPE_CHECKING:
    import polars as pl

_COUNTS = "⟨marks⟩"


def redact_columns(table: Table, how: Redact) -> tuple[Table, dict[str, Any]]:
    """Every text of the columns, also those in lists and structs, with marks; the journal counts marks, and holds none
    of what was taken out."""
    import polars as pl

    schema = table.schema()
    chosen = list(dict.fromkeys(how.columns or (name for name, kind in schema.items() if _holds_text(kind))))
    for name in chosen:
        if not _holds_text(schema[name]):
            raise UserError(f"column {name!r} holds {schema[name]}, not text", "name columns of text")
    if not chosen:
        raise UserError("there is no column of text to redact", "leave the step out")
    wanted = redaction(how.kinds, None if how.names is None else Path(how.names))
    kinds = {name: schema[name] for name in chosen}
    shape = pl.Struct({**kinds, _COUNTS: pl.List(pl.String)})

    def marked(rows: pl.Series) -> pl.Series:
        return pl.Series([_row(row, wanted) for row in rows.to_list()], dtype=shape)

    made = pl.struct(chosen).map_batches(marked, return_dtype=shape, is_elementwise=True)
    counts: Counter[str] = Counter()
    for batch in table.frame.select(made.struct.field(_COUNTS)).collect_batches(engine="streaming"):
        counts.update(word for words in batch.to_series().to_list() for word in words)
    frame = table.frame.with_columns(made.alias(_COUNTS)).with_columns(
        pl.col(_COUNTS).struct.field(name).alias(name) for name in chosen
    )
    return Table(frame.drop(_COUNTS), table.rows, table.source), {
        "columns": chosen,
        "marks": dict(sorted(counts.items())),
    }


def _row(row: dict[str, Any], wanted: Redaction) -> dict[str, Any]:
    redactor = Redactor(wanted)
    marked = {name: redactor.value(value) for name, value in row.items()}
    words = [mark.strip("[]").partition("_")[0] for mark, value in redactor.values.items() if mark != value]
    return {**marked, _COUNTS: words}


def _holds_text(kind: pl.DataType) -> bool:
    import polars as pl

    if isinstance(kind, pl.List | pl.Array):
        return _holds_text(kind.inner)  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return any(_holds_text(field.dtype) for field in kind.fields)  # type: ignore[arg-type]
    return kind == pl.String
