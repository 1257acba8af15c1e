"""Parquet files and saved datasets: plain values by row, and a finding instead of a traceback when damaged."""

import datetime
import decimal
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plume.data.columnar import dataset_directory, is_dataset_directory, parquet
from plume.data.json_text import Value
from plume.errors import UserError
from plume.types import Finding

SAVED = Path(__file__).parent / "saved_dataset"  # written by datasets 5.2: five rows, three of them in train


def rows(found: Iterator[Value | Finding]) -> list[tuple[int, Any]]:
    return [(one.line, one.value) for one in found if isinstance(one, Value)]


def codes(found: Iterator[Value | Finding]) -> list[tuple[str, str, int | None]]:
    return [(one.code, one.severity, one.source.line) for one in found if isinstance(one, Finding)]


def written(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def saved(folder: Path, *shards: pa.Table, indices: list[int] | None = None) -> Path:
    """A dataset directory as `save_to_disk` lays it out."""
    folder.mkdir(parents=True)
    state: dict[str, Any] = {"_data_files": [], "_split": None}
    tables = [(f"data-{number:05}-of-{len(shards):05}.arrow", table) for number, table in enumerate(shards)]
    if indices is not None:
        tables.append(("indices.arrow", pa.table({"indices": pa.array(indices, pa.uint64())})))
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    for name, table in tables:
        with pa.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(table)
        if name.startswith("data-"):
            state["_data_files"].append({"filename": name})
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    return folder


def test_rows_keep_their_types_and_dates_become_text(tmp_path: Path) -> None:
    row = {
        "text": "été",
        "none": None,
        "number": 3,
        "part": 0.5,
        "true": True,
        "messages": [{"role": "user", "content": "Où ?"}],
        "bytes": "né".encode(),
        "day": datetime.date(2026, 11, 3),
        "price": decimal.Decimal("1.50"),
    }
    table = pa.Table.from_pylist([row])
    table = table.append_column("code", pa.array(["red"]).dictionary_encode())
    table = table.append_column("map", pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())))
    expected = row | {"bytes": "né", "day": "2026-11-03", "price": "1.50", "code": "red", "map": {"a": 1}}
    assert list(parquet(written(tmp_path / "qa.parquet", table))) == [Value(expected, 1, "table")]


def test_rows_are_numbered_through_all_batches(tmp_path: Path) -> None:
    path = written(tmp_path / "qa.parquet", pa.table({"n": range(1, 5001)}), row_group_size=1700)
    assert all(line == value["n"] for line, value in rows(parquet(path)))
    assert len(rows(parquet(path))) == 5000


def test_text_that_is_not_utf8_is_a_finding_for_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff", b"c"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    for column in (raw, text):
        path = written(tmp_path / "qa.parquet", pa.table({"prompt": column}))
        assert rows(parquet(path)) == [(1, {"prompt": "a"}), (3, {"prompt": "c"})]
        assert codes(parquet(path)) == [("D107", "error", 2)]


def test_a_column_of_pictures_is_left_out_with_one_warning(tmp_path: Path) -> None:
    pictures = [{"bytes": b"\xff\xd8", "path": "x.jpg"}] * 3
    path = written(tmp_path / "qa.parquet", pa.table({"prompt": ["a", "b", "c"], "image": pictures}))
    assert codes(parquet(path)) == [("D107", "warning", None)]
    assert [value for _, value in rows(parquet(path))] == [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}]


def test_faulty_columns_and_missing_rows_are_named(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    assert codes(parquet(written(tmp_path / "twice.parquet", twice))) == [("D103", "error", None)]
    assert codes(parquet(written(tmp_path / "none.parquet", pa.table({"a": pa.array([], pa.string())})))) == [
        ("D215", "error", None)
    ]


def test_a_directory_written_by_datasets_is_read() -> None:
    assert is_dataset_directory(SAVED)
    assert is_dataset_directory(SAVED / "train")
    assert not is_dataset_directory(SAVED.parent)
    assert [value["n"] for _, value in rows(dataset_directory(SAVED))] == [4, 0, 2]
    found = list(dataset_directory(SAVED / "validation"))
    assert found[3] == Value(
        {
            "messages": [
                {"role": "user", "content": "Où est le phare ?"},
                {"role": "assistant", "content": "Au bout du môle."},
            ],
            "n": 3,
            "tag": None,
        },
        4,
        "table",
    )


def test_shards_and_large_batches_are_read_in_order(tmp_path: Path) -> None:
    folder = saved(tmp_path / "data", pa.table({"n": range(2500)}), pa.table({"n": range(2500, 2600)}))
    assert [(line, value["n"]) for line, value in rows(dataset_directory(folder))] == [
        (number + 1, number) for number in range(2600)
    ]


def test_an_index_table_chooses_the_rows(tmp_path: Path) -> None:
    shards = pa.table({"t": ["a", "b", "c"]}), pa.table({"t": ["d", "e"]})
    folder = saved(tmp_path / "data", *shards, indices=[4, 0, 3, 3])
    assert [value["t"] for _, value in rows(dataset_directory(folder))] == ["e", "a", "d", "d"]
    folder = saved(tmp_path / "wrong", *shards, indices=[1, 9])
    assert codes(dataset_directory(folder)) == [("D101", "error", None)]


def test_splits_without_train_must_be_named(tmp_path: Path) -> None:
    shutil.copytree(SAVED, tmp_path / "data")
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["test", "validation"]}', encoding="utf-8")
    with pytest.raises(UserError, match="test, validation"):
        list(dataset_directory(tmp_path / "data"))
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["validation"]}', encoding="utf-8")
    assert len(rows(dataset_directory(tmp_path / "data"))) == 5


@pytest.mark.parametrize(
    "state",
    ["", "[]", '{"_data_files": [3]}', '{"_data_files": [{"filename": "../a.arrow"}]}', '{"_data_files": "x"}'],
)
def test_a_damaged_state_is_a_finding(tmp_path: Path, state: str) -> None:
    folder = saved(tmp_path / "data", pa.table({"t": ["a"]}))
    (folder / "state.json").write_text(state, encoding="utf-8")
    found = list(dataset_directory(folder))
    assert [one.severity for one in found if isinstance(one, Finding)] == ["error"]
    assert rows(iter(found)) == []


def test_files_that_lack_or_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "qa.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert codes(parquet(tmp_path / "qa.parquet")) == [("D101", "error", None)]
    with pytest.raises(UserError, match="No such file"):
        list(parquet(tmp_path / "none.parquet"))
    folder = saved(tmp_path / "data", pa.table({"t": ["a"]}))
    next(folder.glob("data-*")).unlink()
    assert codes(dataset_directory(folder)) == [("D101", "error", None)]


@pytest.mark.parametrize("form", ["parquet", "dataset"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4000), changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=3))
def test_damage_never_raises(tmp_path: Path, form: str, cut: int, changes: list[tuple[int, int]]) -> None:
    table = pa.table({"prompt": [f"où {n}" for n in range(40)], "tags": [["a", "b"]] * 40})
    read: Callable[[Path], Iterator[Value | Finding]] = parquet if form == "parquet" else dataset_directory
    if form == "parquet":
        path = file = written(tmp_path / "qa.parquet", table, compression="none")
    else:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        path = saved(tmp_path / "data", table)
        file = next(path.glob("data-*"))
    content = bytearray(file.read_bytes())
    for position, byte in changes:
        content[position % len(content)] = byte
    file.write_bytes(content[: max(0, len(content) - max(0, cut - 2000))])
    found = list(read(path))
    assert all(isinstance(one, Value | Finding) for one in found)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for read in (parquet, dataset_directory):
        with pytest.raises(UserError) as error:
            list(read(tmp_path))
        assert "plume-lm[tables]" in str(error.value.hint)
