"""Parquet files and dataset directories written by `save_to_disk`, a batch of rows at a time.

A dataset directory holds `state.json`, which lists its Arrow stream files, beside `dataset_info.json`; a
directory of splits holds `dataset_dict.json` and one such directory a split.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plume.data.json_text import Value
from plume.data.tables import Batch, typed
from plume.errors import UserError
from plume.types import Finding, Source

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1000  # of a batch
_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def parquet(path: str | os.PathLike[str]) -> Iterator[Value | Finding]:
    """The rows of a Parquet file; a value's line is its row, from 1. Raises UserError when it cannot be opened."""
    file = os.fspath(path)
    _arrow(file)
    import pyarrow.parquet as pq

    with _opened(Path(file)) as source:
        yield from _guarded(_parquet_rows(source, file, pq), file, "Parquet file")


def is_dataset_directory(path: str | os.PathLike[str]) -> bool:
    """Was the directory written by `save_to_disk` of the datasets library?"""
    folder = Path(path)
    return (folder / _SPLITS).is_file() or ((folder / _STATE).is_file() and (folder / _INFO).is_file())


def dataset_directory(path: str | os.PathLike[str]) -> Iterator[Value | Finding]:
    """The rows of a dataset directory, of its split `train` when it has several; a value's line is its row.

    Raises UserError when it cannot be opened, or has splits but none called train.
    """
    file = os.fspath(path)
    _arrow(file)
    yield from _guarded(_dataset_rows(Path(file), file), file, "dataset")


def _arrow(file: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        message = f"{file} needs the library that reads Parquet and Arrow files"
        raise UserError(message, "pip install 'plume-lm[tables]'") from None


def _opened(path: Path) -> Any:
    import pyarrow as pa

    try:
        return pa.OSFile(os.fspath(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({os.strerror(error.errno or 0)})", "check the path") from None


def _guarded(rows: Iterator[Value | Finding], file: str, what: str) -> Iterator[Value | Finding]:
    """The rows as far as they can be read, and a finding at the next where they cannot."""
    import pyarrow as pa

    line = 0
    try:
        for row in rows:
            line = row.line if isinstance(row, Value) else row.source.line or line
            yield row
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        message = f"the {what} is damaged and cannot be read {f'beyond row {line}' if line else 'at all'} ({reason})"
        yield Finding("D101", "error", Source(file, line + 1 if line else None), message, "write it anew")


def _parquet_rows(source: Any, file: str, pq: Any) -> Iterator[Value | Finding]:
    with pq.ParquetFile(source, buffer_size=2**20, pre_buffer=False) as table:
        schema = table.schema_arrow
        yield from typed(schema.names, (_batch(rows, schema) for rows in table.iter_batches(_ROWS)), file)


def _dataset_rows(folder: Path, file: str) -> Iterator[Value | Finding]:
    if (folder / _SPLITS).is_file():
        folder = _split(folder, file)
    state = _object(folder / _STATE)
    data = _named(folder, state.get("_data_files"))
    indices = _named(folder, state.get("_indices_data_files"))
    if not data:
        yield Finding("D215", "error", Source(file), "the dataset holds no row", "nothing can be learnt from no row")
        return
    schema = _schema(data[0])
    batches = _picked(data, indices) if indices else itertools.chain.from_iterable(map(_batches, data))
    yield from typed(schema.names, (_batch(rows, schema) for rows in batches), file)


def _split(folder: Path, file: str) -> Path:
    splits = _object(folder / _SPLITS).get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) and Path(name).name == name for name in splits):
        raise ValueError(f"{_SPLITS} does not list the splits")
    if "train" in splits or len(splits) == 1:
        return folder / ("train" if "train" in splits else splits[0])
    raise UserError(f"{file} has the splits {', '.join(splits) or '(none)'}", f"name one: {folder / 'SPLIT'}")


def _object(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def _named(folder: Path, entries: Any) -> list[Path]:
    """The files that the state lists; they lie in the directory itself."""
    names = [
        entry.get("filename") if isinstance(entry, dict) else None
        for entry in (entries if isinstance(entries, list) else ())
    ]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{_STATE} does not list files of the directory")
    return [folder / str(name) for name in names]


def _schema(path: Path) -> pa.Schema:
    import pyarrow as pa

    with pa.memory_map(os.fspath(path)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow stream file, at most `_ROWS` at a time, mapped and not copied."""
    import pyarrow as pa

    with pa.memory_map(os.fspath(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            for start in range(0, batch.num_rows, _ROWS):
                yield batch.slice(start, _ROWS)


def _picked(data: Sequence[Path], indices: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """The rows in the order that the dataset's index tables give."""
    import pyarrow as pa

    pieces = [batch for path in data for batch in _batches(path)]
    ends = list(itertools.accumulate(batch.num_rows for batch in pieces))
    for wanted in itertools.chain.from_iterable(map(_batches, indices)):
        rows = []
        for index in wanted.column(0).to_pylist():
            piece = bisect.bisect_right(ends, index) if index >= 0 else len(ends)
            if piece == len(ends):
                raise ValueError(f"its index names row {index}, and there are {ends[-1] if ends else 0}")
            rows.append(pieces[piece].slice(index - ends[piece] + pieces[piece].num_rows, 1))
        yield pa.Table.from_batches(rows).combine_chunks().to_batches()[0]


def _batch(rows: pa.RecordBatch, schema: pa.Schema) -> Batch:
    """The columns as lists. Dates and decimals become text; text that is not UTF-8 stays bytes."""
    import pyarrow as pa

    if rows.schema.names != schema.names:
        raise ValueError("its parts have different columns")
    columns, settled = [], set()
    for position, column in enumerate(rows.columns):
        kind = _as_text(column.type)
        if kind != column.type:
            column = column.cast(kind)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise
            column = column.cast(_as_bytes(kind))
            column.validate(full=True)
        columns.append(_cells(column))
        if _is_plain(column.type):
            settled.add(position)
    return Batch(columns, settled)


def _cells(column: pa.Array) -> list[Any]:
    from pyarrow import types

    if types.is_string(column.type) or types.is_large_string(column.type):
        return list(column.to_numpy(zero_copy_only=False).tolist())  # ten times as fast as one scalar after another
    return list(column.to_pylist(maps_as_pydicts="lossy"))


def _as_text(kind: pa.DataType) -> pa.DataType:
    """The type with text for dates, times and decimals, and the values themselves for dictionary codes."""
    from pyarrow import string, types

    if types.is_dictionary(kind):
        return _as_text(kind.value_type)
    if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind) or types.is_decimal(kind):
        return string()
    return _mapped(kind, _as_text)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes for text."""
    from pyarrow import binary, large_binary, types

    if types.is_large_string(kind):
        return large_binary()
    return binary() if types.is_string(kind) or types.is_string_view(kind) else _mapped(kind, _as_bytes)


def _mapped(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type with the types of its parts changed."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(change(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(change(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(change(field.type)) for field in kind])
    return kind


def _is_plain(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    plain = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_null)
    return any(is_one(kind) for is_one in (*plain, types.is_float32, types.is_float64))
