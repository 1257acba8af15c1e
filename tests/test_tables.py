"""CSV and TSV: the cells that were written, on the lines where they start, and a fault costs one line."""

import csv
import io
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plume.data.json_text import Value
from plume.data.lines import Line, lines
from plume.data.tables import records
from plume.types import Finding


def read(text: str | bytes, file: str = "qa.csv", delimiter: str | None = None) -> list[Value | Finding]:
    raw = text.encode() if isinstance(text, str) else text
    return list(records(lines(io.BytesIO(raw), file), file, delimiter))


def rows(text: str | bytes, file: str = "qa.csv") -> list[tuple[int, object]]:
    return [(found.line, found.value) for found in read(text, file) if isinstance(found, Value)]


def findings(text: str | bytes, file: str = "qa.csv") -> list[tuple[str, str, int | None]]:
    found = [found for found in read(text, file) if isinstance(found, Finding)]
    return [(finding.code, finding.severity, finding.source.line) for finding in found]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)
TABLE = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=6))


@given(TABLE, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from([0, 1]))
def test_what_csv_writes_comes_back_on_the_lines_where_it_starts(
    table: list[list[str]], delimiter: str, end: str, quoting: int
) -> None:
    width = len(table[0]) if table else 1
    names = [f"colonne {number}" for number in range(width)]
    text, expected = "", []
    for record in [names, *table]:
        row = io.StringIO()
        csv.writer(row, delimiter=delimiter, lineterminator=end, quoting=quoting).writerow(record)  # type: ignore[arg-type]
        if text and (row.getvalue().strip() or width > 1) and not (width == 1 and not row.getvalue().strip("\r\n")):
            expected.append((text.count("\n") + 1, dict(zip(names, record, strict=True))))
        text += row.getvalue()
    found = list(records(lines(io.BytesIO(text.encode()), "x"), "x", None if width > 1 else delimiter))
    assert [(value.line, value.value) for value in found if isinstance(value, Value)] == expected
    assert all(finding.code == "D215" for finding in found if isinstance(finding, Finding))


@given(st.lists(st.binary(max_size=30), max_size=8), st.booleans())
def test_any_bytes_give_values_and_findings_only(chunks: list[bytes], quoted: bool) -> None:
    raw = b"\n".join([b'a,"b' if quoted else b"a,b", *chunks])
    assert all(isinstance(found, Value | Finding) for found in read(raw))


@given(st.text("\",;\n\ra '", max_size=60))
def test_any_mixture_of_quotes_leaves_no_line_out(text: str) -> None:
    """Every line after the header is a row, part of one, or named."""
    found = read("a,b\n" + text)
    assert all(isinstance(one, Value | Finding) for one in found)
    assert [(one.line if isinstance(one, Value) else one.source.line or 0) for one in found] == sorted(
        one.line if isinstance(one, Value) else one.source.line or 0 for one in found
    )


def test_a_cell_without_text_is_an_empty_string() -> None:
    assert rows('prompt,completion\na,\n"",b\n') == [
        (2, {"prompt": "a", "completion": ""}),
        (3, {"prompt": "", "completion": "b"}),
    ]


@pytest.mark.parametrize(
    ("header", "row", "file"),
    [
        ("prompt;completion", "oui, bien sûr;non", "qa.csv"),
        ("prompt\tcompletion", "a\tb, c; d", "qa.csv"),
        ("prompt\tcompletion", "a;b;c;d\te", "qa.tsv.gz"),
        ("prompt|completion", "a, b|c", "qa.csv"),
        ("nom, prénom;réponse", "a;b", "qa.csv"),
        ('"prompt;x";"completion"', "a;b", "qa.csv"),
        ('"prompt\n(français)";"completion"', "a;b", "qa.csv"),
        ("sep=;\nprompt, a, b;completion", "x;y", "qa.tsv"),
        ("\n  \nprompt,completion", "a,b", "qa.csv"),
    ],
)
def test_the_delimiter_is_found(header: str, row: str, file: str) -> None:
    found = rows(f"{header}\n{row}\n", file)
    assert len(found) == 1
    assert len(found[0][1]) == 2  # type: ignore[arg-type]
    assert found[0][0] == header.count("\n") + 2


def test_a_faulty_header_is_named_on_its_line() -> None:
    assert findings("a,b,a\n1,2,3\n") == [("D103", "error", 1)]
    assert findings(",prompt,completion\n0,a,b\n") == [("D103", "warning", 1)]
    assert rows(",prompt,completion\n0,a,b\n") == [(2, {"prompt": "a", "completion": "b"})]
    assert findings(",,\n1,2,3\n") == [("D103", "error", 1)]
    assert findings('"prompt,completion\na,b\n') == [("D101", "error", 1)]
    assert findings(b"pr\xe9nom,completion\na,b\n") == [("D107", "error", 1)]


def test_a_ragged_row_says_how_many_cells_it_has_and_what_to_do() -> None:
    text = 'prompt,completion\na\na,b,c\na,b,\na, "b, c"\nx,y\n'
    found = [finding for finding in read(text) if isinstance(finding, Finding)]
    assert [(finding.code, finding.source.line) for finding in found] == [("D101", line) for line in (2, 3, 4, 5)]
    assert found[0].message == "the row has 1 cell, the header 2"
    assert [
        word
        for finding, word in zip(found, ["complete", "double quotes", "at the end", "space"], strict=True)
        if word in finding.hint
    ] == ["complete", "double quotes", "at the end", "space"]
    assert rows(text) == [(6, {"prompt": "x", "completion": "y"})]


def test_an_unclosed_quote_costs_its_own_line_only() -> None:
    text = 'prompt,completion\nx,"abc\ny,d\n"p","q ""r"""\n'
    found = [finding for finding in read(text) if isinstance(finding, Finding)]
    assert [(finding.code, finding.source.line, finding.source.column) for finding in found] == [("D101", 2, 3)]
    assert [line for line, _ in rows(text)] == [3, 4]
    assert findings('prompt,completion\na,b\nx,"abc\ny,d\n') == [("D101", "error", 3)]


def test_a_quote_inside_a_cell_is_named_where_the_cell_opens() -> None:
    found = read('prompt,completion\n"two\nlines","he said "yes""\nx,y\n')
    assert isinstance(found[0], Finding)
    assert (found[0].source.line, found[0].source.column) == (3, 8)
    assert found[-1] == Value({"prompt": "x", "completion": "y"}, 4, "table")


def test_a_row_longer_than_any_is_given_up_without_holding_the_file() -> None:
    endless = itertools.chain([Line(1, "a,b"), Line(2, 'x,"open')], (Line(n, "p,q") for n in range(3, 40_000)))
    tracemalloc.start()
    count = sum(isinstance(found, Value) for found in records(endless, "qa.csv"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 39_997
    assert peak < 2 * 2**20


def test_a_file_of_broken_quotes_ends_early_and_says_so() -> None:
    def broken() -> Iterator[Line]:
        yield Line(1, "prompt,completion")
        yield from (Line(number, "x" * 4000 + '","y') for number in range(2, 3000))

    found = [finding for finding in records(broken(), "qa.csv") if isinstance(finding, Finding)]
    assert found[0].source.line == 2
    assert "the rest of the file is not read" in found[-1].message
    assert len(found) < 200


def test_a_line_that_is_not_text_inside_a_row_drops_the_row() -> None:
    raw = b'a,b\n"x\n\xff\ny",1\nz,2\n'
    assert findings(raw) == [("D107", "error", 3)]
    assert rows(raw) == [(5, {"a": "z", "b": "2"})]


def test_bare_carriage_returns_are_named() -> None:
    assert findings("a,b\nx\ry,z\nu,v\n") == [("D101", "error", 2)]
    assert rows("a,b\nx\ry,z\nu,v\n") == [(3, {"a": "u", "b": "v"})]


def test_large_cells_and_many_columns_are_read() -> None:
    names = [f"c{number}" for number in range(10_000)]
    assert rows(",".join(names) + "\n" + ",".join(names) + "\n") == [(2, dict(zip(names, names, strict=True)))]
    assert rows(f"a,b\nx,{'y' * 2**20}\n") == [(2, {"a": "x", "b": "y" * 2**20})]


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n\n\r\n"])
def test_a_file_without_rows_says_so(text: str) -> None:
    assert findings(text) == [("D215", "error", None)]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert rows(b"\xef\xbb\xbfa,b\r\n1,2\r\n") == [(2, {"a": "1", "b": "2"})]
    assert findings(b"\xef\xbb\xbfa,b\r\n1,2\r\n") == [("D107", "warning", 1)]
