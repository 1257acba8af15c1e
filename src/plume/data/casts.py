"""Columns get types. A value that has none of it is an error with its line, never silently missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plume.data.sources import ROW, Table
from plume.errors import UserError

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 10
_TRUE = ("true", "yes", "oui", "vrai", "1")
_FALSE = ("false", "no", "non", "faux", "0")
_ARTICLES = {"integer": "an integer", "number": "a number", "boolean": "a boolean", "date": "a date (2026-11-21)"}


def cast_columns(table: Table, wanted: dict[str, str]) -> tuple[Table, dict[str, Any]]:
    """The table with the types wanted: names of `TYPES`, or formats of dates. Raises UserError."""

    schema = table.schema()
    casts = {name: _cast(name, schema[name], kind, table.source.decimal) for name, kind in wanted.items()}
    bad = {name: _is_bad(name, made) for name, made in casts.items()}
    counts = table.frame.select([wrong.sum().alias(name) for name, wrong in bad.items()]).collect(engine="streaming")
    for name, count in counts.row(0, named=True).items():
        if count:
            raise _wrong_values(table, name, wanted[name], bad[name], count)
    frame = table.frame.with_columns([made.alias(name) for name, made in casts.items()])
    return Table(frame, table.rows, table.source), {}


def _is_bad(name: str, made: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.col(name).is_not_null() & made.is_null()


def _wrong_values(table: Table, name: str, kind: str, bad: pl.Expr, count: int) -> UserError:
    import polars as pl

    # The filter stands behind the row number, so that it names the row in the source.
    rows = table.frame.filter(bad).select(pl.col(ROW), pl.col(name)).head(_SHOWN).collect(engine="streaming").rows()
    places = table.source.places([row for row, _ in rows])
    shown = [f"\n  {place}: {value!r}" for place, (_, value) in zip(places, rows, strict=True)]
    more = f"\n  … and {count - len(rows)} more" if count > len(rows) else ""
    what = _ARTICLES.get(kind, f"a date of the format {kind}" if "%" in kind else f"a {kind}")
    said = f"1 value is not {what}" if count == 1 else f"{count} values are not {what}"
    hint = "correct the values, or name those that mean nothing in `null_values` of the input"
    if kind in ("integer", "number") and any(isinstance(value, str) and "," in value for _, value in rows):
        hint = 'for a decimal comma, add to `input`:  decimal: ","'
    return UserError(f"column {name!r}: {said}{''.join(shown)}{more}", hint)


def _cast(name: str, kind: pl.DataType, wanted: str, decimal: str) -> pl.Expr:
    """The expression for a column; null where a value has not the type."""
    import polars as pl

    column = pl.col(name)
    if kind == pl.String:
        return _from_text(column.str.strip_chars(), wanted, decimal)
    if wanted == "text" and not kind.is_nested():
        return column.cast(pl.String)
    if kind == pl.Boolean and wanted in ("boolean", "integer", "number"):
        return column.cast({"boolean": pl.Boolean, "integer": pl.Int64, "number": pl.Float64}[wanted])
    if kind.is_numeric():
        if wanted == "number":
            return _finite(column.cast(pl.Float64))
        if wanted == "integer":
            return pl.when(column == column.cast(pl.Int64, strict=False)).then(column.cast(pl.Int64, strict=False))
        if wanted == "boolean":
            return pl.when(column.is_in([0, 1])).then(column == 1)
    if kind.is_temporal() and wanted in ("date", "datetime") and kind != pl.Time and kind != pl.Duration:
        return column.cast(pl.Date if wanted == "date" else pl.Datetime("us"))
    if kind == pl.Null:
        return column.cast(pl.String).pipe(_from_text, wanted, decimal)
    raise UserError(f"column {name!r} holds {kind}, which cannot become {wanted}", "leave it out, or derive from it")


def _from_text(text: pl.Expr, wanted: str, decimal: str) -> pl.Expr:
    import polars as pl

    if wanted in ("integer", "number") and decimal == ",":
        text = text.str.replace_all("[ \u00a0\u202f]", "").str.replace(",", ".", literal=True)
    if wanted == "integer":
        return text.cast(pl.Int64, strict=False)
    if wanted == "number":
        return _finite(text.cast(pl.Float64, strict=False))
    if wanted == "boolean":
        folded = text.str.to_lowercase()
        return pl.when(folded.is_in(_TRUE)).then(pl.lit(True)).when(folded.is_in(_FALSE)).then(pl.lit(False))
    if wanted == "date":
        return text.str.to_date("%Y-%m-%d", strict=False)
    if wanted == "datetime":
        return text.str.replace("T", " ").str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    if "%" in wanted and any(mark in wanted for mark in ("%H", "%I", "%T", "%R")):
        return text.str.to_datetime(wanted, strict=False, time_unit="us")
    return text.str.to_date(wanted, strict=False) if "%" in wanted else text


def _finite(number: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.when(number.is_finite()).then(number)
