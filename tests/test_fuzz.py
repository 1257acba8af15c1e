"""Bytes that nobody meant to be data: every reader answers, soon, about places that exist. See `hostile.py`."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import MONSTERS, SUFFIXES, Monster, survives
from plume.checks.scripts import examine_script
from plume.data.read import read
from plume.types import Example, Finding

WORDS = (
    '{"prompt": "', '"completion": "', '"}', '"messages": [', '{"role": "user", "content": "q"}', "\n", "\r", "\0",
    "[", "]", "{", "}", ",", ";", "\t", '"', "\\", "\\ud800", "\ud800", "\ufeff", "1e999", "-Infinity", "null", " ",
    "é", "\u2028", "sep=;\n", "prompt,completion\n", '{"cells": [{"cell_type": "code", "source": ["', "%%time",
    "def f(", "x = 1\n",
)  # fmt: skip
LOOSE = st.lists(st.sampled_from(WORDS), max_size=30).map(lambda words: "".join(words).encode("utf-8", "surrogatepass"))
RAW = st.binary(max_size=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_bytes_are_answered(folder: Path, suffix: str) -> None:
    path = folder / f"any{suffix}"

    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(st.one_of(LOOSE, RAW), st.booleans(), st.integers(1, 40))
    def answered(data: bytes, packed: bool, cut: int) -> None:
        path.write_bytes(gzip.compress(data)[:-cut] if packed else data)
        survives(path)

    answered()


@pytest.mark.parametrize("monster", MONSTERS, ids=lambda monster: monster.name)
def test_monsters_are_answered(tmp_path: Path, monster: Monster) -> None:
    survives(monster.write(tmp_path, monster.small))


def findings(path: Path) -> list[Finding]:
    return [item for item in read(path) if isinstance(item, Finding)]


def test_damaged_archive_without_a_first_character_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "q", "completion": "a"}\n')[:12])
    assert [(found.code, found.source.line) for found in findings(path)] == [("D101", 1)]


def test_key_that_stands_a_hundred_thousand_times_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "completion": {' + '"a": 1, ' * 100_000 + '"b": 1}}\n')
    assert [found.code for found in findings(path)].count("D111") == 1


@pytest.mark.parametrize("role", ['"' + "x" * 5000 + '"', "[" * 900 + "]" * 900, "7"])
def test_strange_role_is_named_in_short(tmp_path: Path, role: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"messages": [{{"role": {role}, "content": "x"}}]}}\n')
    (found,) = findings(path)
    assert found.code == "D110"
    assert len(found.message) < 200


def test_table_in_another_encoding_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,completion\n" + b"caf\xe9,cr\xe8me\n" * 10_000)
    tracemalloc.start()
    count = sum(isinstance(item, Finding) and item.code == "D107" for item in read(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 4 * 2**20


def test_table_that_cannot_be_decoded_at_all_ends_with_its_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfd,\xff\n" * 20_000)
    assert [(found.code, found.source.line) for found in findings(path)] == [("D107", 1)]


def test_undecodable_lines_in_an_open_cell_end_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'prompt,completion\n"open,a\n' + b"\xe9\n" * 5000 + b"q,a\n")
    items = list(read(path))
    assert [item.source.line for item in items if isinstance(item, Example)] == [5003]
    assert [item.source.line for item in items if isinstance(item, Finding) and item.code == "D101"] == [2]


def test_notebook_with_an_integer_of_many_digits_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    code = {"cell_type": "code", "source": ["print(undefined_name)"]}
    path.write_text(json.dumps({"cells": [code]})[:-1] + ', "n": 1' + "0" * 5000 + "}")
    (found,) = examine_script(str(path))
    assert "undefined_name" in found.message


def test_name_used_before_an_assignment_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("for one in range(3):\n    pass\nprint(value)\nvalue = max(\n    1,\n    2,\n)\n")
    (found,) = examine_script(str(path))
    assert (found.source.line, found.related[0].line) == (3, 4)
    assert found.message.endswith("on line 4")


def test_script_that_is_too_long_is_not_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("\n" * 1_000_000)
    tracemalloc.start()
    (found,) = examine_script(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "too much code" in found.message
    assert peak < 100 * 2**20
