"""`plume data prepare`: a replayable recipe turns a table into questions and answers, and keeps a journal.

Every step runs on polars' lazy engine in streaming mode: a file may be larger than memory. The order of the rows
never changes, sums are exact, and nothing depends on the time, so the same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plume.data.sources import ROW, Input, Table, opened
from plume.data.step_settings import Build, Constant, Duplicates, MinMax, Redact, Standard, Step
from plume.data.steps import apply, first_line
from plume.errors import UserError
from plume.files import write_atomic
from plume.recipe import unknown_key

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1
_ROW_GROUP = 100_000
_MODELS: dict[str, type[BaseModel]] = {
    "input": Input,
    "duplicates": Duplicates,
    "build": Build,
    "redact": Redact,
    "Constant": Constant,
    "Standard": Standard,
    "MinMax": MinMax,
}


class Preparation(BaseModel):
    """A recipe of `plume data prepare`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Input
    steps: list[Step] = []
    output: str | None = Field(default=None, min_length=1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preparation that is done: the file, its journal, the rows read and written."""

    output: Path
    journal: Path
    rows_in: int
    rows_out: int
    steps: tuple[dict[str, Any], ...]


def prepare(recipe_file: Path, output: Path | None = None, redact: Redact | None = None) -> Prepared:
    """Run a recipe, and `redact` as a step after its last. `output` wins over the recipe's own; the journal is written
    beside it.

    Raises UserError, naming the step and the column, before anything is written.
    """
    if importlib.util.find_spec("polars") is None:
        raise UserError("preparing data needs polars", "pip install 'plume-lm[data]'")
    import polars as pl

    recipe, digest = load_preparation(recipe_file)
    target = _target(recipe, recipe_file, output)
    where = "input"
    try:
        with opened(recipe.input, target.parent) as table:
            rows_in, source, steps = table.rows, table.source, []
            for number, step in enumerate([*recipe.steps, *([Step(redact=redact)] if redact else [])], 1):
                where = f"step {number} ({step.name})"
                before = table.rows
                table, learnt = _applied(step, table, where)
                counts = {"rows_in": before, "rows_out": table.rows}
                setting = step.model_dump(exclude_unset=True)
                steps.append({"step": number, **setting, **counts, **({"learnt": learnt} if learnt else {})})
            where = "output"
            _write(table, target)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{recipe_file}: {where}: {first_line(error)}", "look at the values of this step") from None
    journal = {
        "format": FORMAT,
        "recipe": {"file": str(recipe_file), "sha256": digest},
        "input": {"name": source.name, "sha256": source.sha256, "rows": rows_in, "blank_rows": source.blank_rows},
        "steps": steps,
        "output": {"sha256": _sha256(target), "rows": table.rows, "columns": _types(table)},
        "versions": {"plume-lm": metadata.version("plume-lm"), "polars": pl.__version__},
    }
    beside = target.with_name(f"{target.name}.journal.json")
    write_atomic(beside, json.dumps(journal, ensure_ascii=False, indent=1, default=str) + "\n")
    return Prepared(target, beside, rows_in, table.rows, tuple(steps))


def load_preparation(path: Path) -> tuple[Preparation, str]:
    """A recipe and its sha256. Raises UserError naming the key at fault and the nearest known one."""
    try:
        raw = path.read_bytes()
        values = yaml.safe_load(raw.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe", "name a YAML file with `input`, `steps` and `output`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", "name a YAML file in UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}", "look at the line named") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys", "write `input:`, `steps:` and `output:`")
    try:
        return Preparation.model_validate(values), hashlib.sha256(raw).hexdigest()
    except ValidationError as error:
        raise _explain(error, path) from None


def _explain(error: ValidationError, path: Path) -> UserError:
    # A slip in a key's name is told before the key that is missing for it.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    *above, key = first["loc"] or ("",)
    origin = str(path)
    parent: type[BaseModel] = Preparation
    for part in above:
        if isinstance(part, int):
            origin, parent = f"{origin}: step {part + 1}", Step
        elif part in _MODELS:
            parent = _MODELS[part]
    if first["type"] == "extra_forbidden":
        return unknown_key(str(key), list(parent.model_fields), origin)
    if first["type"] == "missing":
        return UserError(f"{origin}: the key {key!r} is missing", f"known keys: {', '.join(parent.model_fields)}")
    place = ".".join(str(part) for part in first["loc"] if part != "steps" and not isinstance(part, int))
    message = first["msg"].removeprefix("Value error, ")
    return UserError(f"{origin}: {place + ': ' if place else ''}{message[0].lower()}{message[1:]}")


def _target(recipe: Preparation, recipe_file: Path, output: Path | None) -> Path:
    if output is None and recipe.output is None:
        raise UserError(f"{recipe_file}: no output is named", "add `output: FILE.jsonl`, or give --output FILE")
    target = output or Path(str(recipe.output))
    if target.suffix.lower() not in (".jsonl", ".ndjson", ".parquet"):
        raise UserError(f"{target}: the name ends in {target.suffix!r}", "name a .jsonl or a .parquet file")
    for used in (recipe_file, Path(recipe.input.file or recipe_file)):
        if target.exists() and used.exists() and target.samefile(used):
            raise UserError(f"{target} is read by the recipe: it is not written over", "name another output")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent} is no directory", "make it first")
    return target


def _applied(step: Step, table: Table, where: str) -> tuple[Table, dict[str, Any]]:
    try:
        after, learnt = apply(step, table)
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None
    if not after.rows:
        raise UserError(f"{where}: no row is left of {table.rows}", "look at what the step drops")
    return after, learnt


def _write(table: Table, target: Path) -> None:
    frame = table.frame.drop(ROW)
    if target.suffix.lower() == ".parquet":
        with _atomic(target) as beside:
            frame.sink_parquet(beside, row_group_size=_ROW_GROUP, engine="streaming")
        return
    for name, kind in table.schema().items():
        if not _is_json(kind):
            raise UserError(f"output: column {name!r} holds {kind}, which JSON cannot hold", "give it another type")
    with _atomic(target) as beside:
        frame.sink_ndjson(beside, engine="streaming")


def _is_json(kind: pl.DataType) -> bool:
    import polars as pl

    if isinstance(kind, pl.List | pl.Array):
        return _is_json(kind.inner)  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return all(_is_json(field.dtype) for field in kind.fields)  # type: ignore[arg-type]
    plain = (pl.String, pl.Boolean, pl.Null, pl.Date, pl.Datetime)
    return kind in plain or kind.is_integer() or kind.is_float()


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A path to stream to; on success the file becomes `path`, else it vanishes."""
    beside = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _types(table: Table) -> dict[str, str]:
    return {name: str(kind) for name, kind in table.schema().items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
