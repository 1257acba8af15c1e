"""The steps of a preparation: each turns a table into a table and tells what it learnt from it."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from plume.data.casts import cast_columns
from plume.data.redact_step import redact_columns
from plume.data.sources import ROW, Table
from plume.data.step_settings import Build, Constant, Duplicates, MinMax, Redact, Standard, Step, template_parts
from plume.errors import UserError

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 10
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_CLOCK = re.compile(r"\bnow\s*\(|\b(?:current_(?:date|time|timestamp)|localtime|localtimestamp)\b", re.IGNORECASE)
# Nodes of a polars expression that look at other rows.
_OTHER_ROWS = {"Agg", "Over", "Window", "Rolling", "Len", "SubPlan", "Explode", "Sort", "SortBy", "Filter", "Slice"}
Learnt = dict[str, Any]


def apply(step: Step, table: Table) -> tuple[Table, Learnt]:
    """The table after a step, and the parameters that the step took from the data. Raises UserError."""
    steps: dict[str, Callable[[Table, Any], tuple[Table, Learnt]]] = {
        "rename": _rename,
        "types": cast_columns,
        "missing": _missing,
        "derive": _derive,
        "duplicates": _duplicates,
        "scale": _scale,
        "select": _select,
        "build": _build,
        "redact": _redact,
    }
    if step.name not in ("derive", "duplicates", "build", "redact"):  # these name columns in other ways
        _require(table, step.setting)
    return steps[step.name](table, step.setting)


def _require(table: Table, names: Iterable[str]) -> None:
    known = table.schema()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"the columns are: {', '.join(known)}"
            raise UserError(f"column {name!r} does not exist", hint)


def _values(table: Table, wanted: dict[str, pl.Expr]) -> dict[str, Any]:
    """Single values of a table, computed in one pass."""
    frame = table.frame.select([one.alias(name) for name, one in wanted.items()])
    return frame.collect(engine="streaming").row(0, named=True)


def _with(table: Table, frame: pl.LazyFrame, rows: int | None = None) -> Table:
    return Table(frame, table.rows if rows is None else rows, table.source)


def _rename(table: Table, names: dict[str, str]) -> tuple[Table, Learnt]:
    after = [names.get(name, name) for name in table.schema()]
    twice = [name for name in after if after.count(name) > 1 or name == ROW]
    if twice:
        raise UserError(f"two columns would be called {twice[0]!r}", "choose another name")
    return _with(table, table.frame.rename(names)), {}


def _select(table: Table, names: list[str]) -> tuple[Table, Learnt]:
    return _with(table, table.frame.select(ROW, *dict.fromkeys(names))), {}


def _missing(table: Table, wanted: dict[str, str | Constant]) -> tuple[Table, Learnt]:
    import polars as pl

    schema = table.schema()
    floats = [pl.col(name).fill_nan(None) for name in wanted if schema[name].is_float()]
    table = _with(table, table.frame.with_columns(floats))
    dropped = [name for name, how in wanted.items() if how == "drop"]
    seen = _values(
        table,
        {f"missing {name}": pl.col(name).null_count() for name in wanted}
        | {f"median {name}": _median(table, name) for name, how in wanted.items() if how == "median"}
        | {"rows": pl.all_horizontal([pl.col(name).is_not_null() for name in dropped]).sum() if dropped else pl.len()},
    )
    learnt: Learnt = {name: {"missing": seen[f"missing {name}"]} for name in wanted}
    fills = []
    for name, how in wanted.items():
        if how != "drop":
            value = _fill_value(table, name, how, seen)
            learnt[name]["filled_with"] = value
            fills.append(pl.col(name).fill_null(pl.lit(value, schema[name])))
    frame = table.frame.with_columns(fills)
    if dropped:
        frame = frame.filter(pl.all_horizontal([pl.col(name).is_not_null() for name in dropped]))
    return _with(table, frame, seen["rows"]), learnt


def _median(table: Table, name: str) -> pl.Expr:
    """Of a column of integers the lower of the two middle values, so that it stays one of integers."""
    import polars as pl

    _require_number(table, name)
    kind = table.schema()[name]
    if kind.is_integer():
        return pl.col(name).quantile(0.5, "lower").cast(kind)
    return pl.col(name).median()


def _fill_value(table: Table, name: str, how: str | Constant, seen: dict[str, Any]) -> Any:

    kind = table.schema()[name]
    if isinstance(how, Constant):
        if not _fits(how.constant, kind):
            hint = "give it a type first: `types`"
            raise UserError(f"column {name!r} holds {kind}: {how.constant!r} does not fit", hint)
        return how.constant
    if how == "median":
        value = seen[f"median {name}"]
    else:
        counts = table.frame.select(name).drop_nulls().group_by(name).len()
        ranked = counts.sort(["len", name], descending=[True, False]).head(1).collect(engine="streaming")
        value = ranked.item(0, 0) if ranked.height else None
    if value is None:
        raise UserError(f"column {name!r} holds no value at all: it has no {how}", "fill it with a constant")
    return value


def _fits(value: str | bool | float, kind: pl.DataType) -> bool:
    import polars as pl

    if isinstance(value, str | bool):
        return kind == (pl.String if isinstance(value, str) else pl.Boolean)
    return kind.is_float() or (kind.is_integer() and isinstance(value, int))


def _require_number(table: Table, name: str) -> None:
    kind = table.schema()[name]
    if not kind.is_numeric():
        hint = f"give it a type in an earlier step:  types: {{{name}: number}}"
        raise UserError(f"column {name!r} holds {kind}, not numbers", hint)


def _derive(table: Table, wanted: dict[str, str]) -> tuple[Table, Learnt]:
    import polars as pl

    for name, text in wanted.items():
        expression = _expression(name, text)
        _require(table, dict.fromkeys(expression.meta.root_names()))
        if name == ROW:
            raise UserError(f"no column can be called {name!r}", "choose another name")
        try:
            table = _with(table, table.frame.with_columns(expression.alias(name)))
            table.schema()
        except pl.exceptions.PolarsError as error:
            raise UserError(f"column {name!r} = {text}: {first_line(error)}", "a CAST may be missing") from None
    _require_finite(table, list(wanted))
    return table, {name: {"missing": count} for name, count in _null_counts(table, list(wanted)).items()}


def _expression(name: str, text: str) -> pl.Expr:
    """SQL that looks at one row and at nothing that changes from run to run."""
    import polars as pl

    try:
        expression = pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"column {name!r} = {text}: {first_line(error)}", "write SQL, such as UPPER(nom)") from None
    if _CLOCK.search(_QUOTED.sub("", text)):
        raise UserError(f"column {name!r} = {text}: the time of the day differs at each run", "write the date itself")
    if _nodes(json.loads(expression.meta.serialize(format="json"))) & _OTHER_ROWS:
        hint = "for means and extremes use `missing` or `scale`, which record what they learn"
        raise UserError(f"column {name!r} = {text}: it looks at other rows", hint)
    return expression


def _nodes(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        return set(tree).union(*map(_nodes, tree.values()))
    if isinstance(tree, list):
        return set().union(*map(_nodes, tree))
    return {tree} if tree == "Len" else set()


def _null_counts(table: Table, names: list[str]) -> dict[str, int]:
    import polars as pl

    return _values(table, {name: pl.col(name).null_count() for name in names})


def _require_finite(table: Table, names: Iterable[str]) -> None:
    """JSON holds neither NaN nor infinity."""
    import polars as pl

    schema = table.schema()
    for name in names:
        if schema[name].is_float():
            wrong = table.frame.filter(~pl.col(name).is_finite()).select(ROW).head(_SHOWN).collect(engine="streaming")
            if wrong.height:
                places = ", ".join(table.source.places(wrong.to_series().to_list()))
                raise UserError(f"column {name!r} is no finite number: {places}", "a division by zero, perhaps")


def _duplicates(table: Table, how: Duplicates) -> tuple[Table, Learnt]:
    """One row of each group stays, in place. Memory: the groups' keys, and one byte a row."""
    import numpy as np
    import polars as pl

    _require(table, how.subset or [])
    subset = list(dict.fromkeys(how.subset or table.schema()))
    chosen = pl.col(ROW).min() if how.keep == "first" else pl.col(ROW).max()
    groups = table.frame.group_by(list(map(pl.col, subset))).agg(chosen)
    numbers = groups.select(ROW).collect(engine="streaming").to_series().to_numpy()
    stays = np.zeros(int(numbers.max()) + 1, dtype=bool)
    stays[numbers] = True

    def staying(rows: pl.Series) -> pl.Series:
        found = rows.to_numpy()
        return pl.Series(stays[np.minimum(found, len(stays) - 1)] & (found < len(stays)))

    kept = pl.col(ROW).map_batches(staying, return_dtype=pl.Boolean, is_elementwise=True)
    return _with(table, table.frame.filter(kept), len(numbers)), {"duplicates": table.rows - len(numbers)}


def _scale(table: Table, wanted: dict[str, str | Standard | MinMax]) -> tuple[Table, Learnt]:
    import polars as pl

    for name in wanted:
        _require_number(table, name)
    _require_finite(table, wanted)
    learnt: Learnt = {}
    scaled = []
    for name, how in wanted.items():
        known = _learn_scale(table, name, how) if isinstance(how, str) else how
        learnt[name] = known.model_dump()
        shift, width = (known.mean, known.std) if isinstance(known, Standard) else (known.min, known.max - known.min)
        scaled.append((pl.col(name).cast(pl.Float64) - shift) / width)
    return _with(table, table.frame.with_columns(scaled)), learnt


def _learn_scale(table: Table, name: str, how: str) -> Standard | MinMax:
    """Mean and population standard deviation, or extremes."""
    import polars as pl

    number = pl.col(name).cast(pl.Float64)
    extremes = _values(table, {"min": number.min(), "max": number.max(), "count": number.count()})
    if extremes["min"] is None or extremes["min"] == extremes["max"]:
        raise UserError(f"column {name!r} has no two values that differ: there is no scale", "leave it as it is")
    if how == "min-max":
        return MinMax(min=extremes["min"], max=extremes["max"])
    mean = _exact_sum(table, number) / extremes["count"]
    return Standard(mean=mean, std=math.sqrt(_exact_sum(table, (number - mean) ** 2) / extremes["count"]))


def _exact_sum(table: Table, column: pl.Expr) -> float:
    """A sum that depends neither on the order of the additions nor on the number of threads."""
    batches = table.frame.select(column.alias("x")).drop_nulls().collect_batches(engine="streaming")
    return math.fsum(value for batch in batches for value in batch.to_series().to_list())


def _build(table: Table, build: Build) -> tuple[Table, Learnt]:
    import polars as pl

    columns = {
        name: template if isinstance(template, list) else [one for _, one in template_parts(template) if one]
        for name, template in (("prompt", build.prompt), ("completion", build.completion))
    }
    for name, used in columns.items():
        _require(table, used)
        if isinstance(getattr(build, name), str):
            _require_text(table, name, used)
    if isinstance(build.completion, list):
        _require_finite(table, build.completion)
        answer = pl.struct(sorted(dict.fromkeys(build.completion))).struct.json_encode()
    else:
        answer = _filled(build.completion)
    others = [name for name in table.schema() if name not in columns]
    made = (_filled(build.prompt).alias("prompt"), answer.alias("completion"))
    return _with(table, table.frame.select(ROW, *made, *others)), {}


def _redact(table: Table, how: Redact) -> tuple[Table, Learnt]:
    _require(table, how.columns or [])
    return redact_columns(table, how)


def _require_text(table: Table, name: str, used: list[str]) -> None:
    """A template needs a plain value in every row."""
    import polars as pl

    schema = table.schema()
    for column in used:
        if schema[column].is_nested():
            raise UserError(f"{name}: column {column!r} holds {schema[column]}, not text", "use single values")
        empty = table.frame.filter(pl.col(column).is_null()).select(ROW).head(_SHOWN).collect(engine="streaming")
        if empty.height:
            places = ", ".join(table.source.places(empty.to_series().to_list()))
            raise UserError(f"{name}: column {column!r} has no value: {places}", "drop or fill them with `missing`")
    _require_finite(table, used)


def _filled(template: str) -> pl.Expr:
    import polars as pl

    pieces: list[pl.Expr] = []
    for literal, column in template_parts(template):
        pieces += [pl.lit(literal)] if literal else []
        pieces += [pl.col(column).cast(pl.String)] if column else []
    return pl.concat_str(pieces)


def first_line(error: Exception) -> str:
    """The part of a library's message that a person can use."""
    return str(error).split("\n", 1)[0]
