"""Files become examples with their lines, or findings with theirs; no bytes whatever make reading fail."""

from __future__ import annotations

import json
import os
import sqlite3
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from plume.checks.catalogue import CATALOGUE
from plume.data.read import read
from plume.data.records import Reading
from plume.errors import UserError
from plume.types import Example, Finding, Message

GOOD = '{"prompt": "q", "completion": "r"}\n'
QUICK = settings(deadline=None, max_examples=60)

INTERNAL = "".join(map(chr, range(0xFDD0, 0xFDF0)))  # code points that are no characters, refused by name
words = st.text(st.characters(codec="utf-8", exclude_characters=INTERNAL), min_size=1, max_size=12).filter(str.strip)
pairs = st.lists(st.tuples(words, words), min_size=1, max_size=6)
line_of_text = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0\ufeff"), min_size=1, max_size=8).filter(
    lambda text: bool(text.strip())
)
documents = st.lists(st.lists(line_of_text, min_size=1, max_size=3), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def read_file(
    folder: Path, content: str | bytes, name: str = "rows.jsonl", *, split_documents: bool = False
) -> tuple[list[Example], list[Finding]]:
    file = folder / name
    file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    found = list(read(file, Reading(split_documents=split_documents)))
    assert all(item.source.file == str(file) for item in found)
    examples = [item for item in found if isinstance(item, Example)]
    return examples, [item for item in found if isinstance(item, Finding)]


def rows_of(examples: Sequence[Example]) -> list[tuple[int | None, str, str]]:
    shown = []
    for row in examples:
        prompt, completion = row.messages
        assert (prompt.role, completion.role) == ("user", "assistant")
        shown.append((row.source.line, prompt.content, completion.content))
    return shown


def texts_of(examples: Sequence[Example]) -> list[tuple[int | None, str]]:
    assert all(row.is_text and row.messages[0].role == "assistant" for row in examples)
    return [(row.source.line, row.messages[0].content) for row in examples]


def only(findings: Sequence[Finding]) -> Finding:
    assert [finding.code for finding in findings] == [findings[0].code], findings
    return findings[0]


def as_json(prompt: str, completion: str, *, ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=ascii, indent=indent)


# --- rows come back as they were written ---------------------------------------------------------


@QUICK
@given(pairs, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_json_lines_come_back_equal_with_their_lines(
    folder: Path, written: list[tuple[str, str]], ascii: bool, newline: str, last_newline: bool
) -> None:
    content = newline.join(as_json(*pair, ascii=ascii) for pair in written) + newline * last_newline
    examples, findings = read_file(folder, content)
    assert rows_of(examples) == [(line, *pair) for line, pair in enumerate(written, 1)]
    assert findings == []


@QUICK
@given(st.lists(st.tuples(words, words, st.integers(0, 3)), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_blank_lines_between_rows_count_as_lines_and_nothing_else(
    folder: Path, written: list[tuple[str, str, int]], newline: str
) -> None:
    lines: list[str] = []
    expected = []
    for prompt, completion, blanks in written:
        lines += [" " * (blanks % 2)] * blanks
        lines.append(as_json(prompt, completion))
        expected.append((len(lines), prompt, completion))
    examples, findings = read_file(folder, newline.join(lines))
    assert rows_of(examples) == expected
    assert findings == []


@QUICK
@given(pairs, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_array_comes_back_equal_with_the_line_where_each_element_starts(
    folder: Path, written: list[tuple[str, str]], newline: str, indented: bool
) -> None:
    elements = [as_json(*pair, indent=4 if indented else None).split("\n") for pair in written]
    lines = ["["]
    expected = []
    for number, (element, pair) in enumerate(zip(elements, written, strict=True), 1):
        expected.append((len(lines) + 1, *pair))
        lines += [*element[:-1], element[-1] + "," * (number < len(elements))]
    examples, findings = read_file(folder, newline.join([*lines, "]"]), "rows.json")
    assert rows_of(examples) == expected
    assert findings == []


@QUICK
@given(pairs, st.sampled_from([None, 0, 2]))
def test_array_as_json_writes_it_comes_back_equal_whatever_the_indent(
    folder: Path, written: list[tuple[str, str]], indent: int | None
) -> None:
    values = [{"prompt": prompt, "completion": completion} for prompt, completion in written]
    examples, _ = read_file(folder, json.dumps(values, indent=indent), "rows.json")
    assert [row[1:] for row in rows_of(examples)] == written
    lines = [1 if indent is None else 2 + 4 * number for number in range(len(written))]
    assert [row[0] for row in rows_of(examples)] == lines


@QUICK
@given(pairs, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "  "]))
@case([("a", "b"), ("c", "d")], "\n", "  ")
def test_pretty_printed_objects_one_after_another_are_rows(
    folder: Path, written: list[tuple[str, str]], newline: str, margin: str
) -> None:
    lines = [margin + line for pair in written for line in as_json(*pair, indent=2).split("\n")]
    examples, findings = read_file(folder, newline.join(lines))
    assert rows_of(examples) == [(1 + 4 * number, *pair) for number, pair in enumerate(written)]
    assert [(finding.code, finding.severity, finding.source.line) for finding in findings] == [("D102", "warning", 1)]


def test_array_in_a_jsonl_file_is_read_and_said(folder: Path) -> None:
    examples, findings = read_file(folder, f"[{as_json('a', 'b')},\n{as_json('c', 'd')}]\n")
    assert rows_of(examples) == [(1, "a", "b"), (2, "c", "d")]
    assert (only(findings).code, findings[0].severity, findings[0].source.line) == ("D102", "warning", 1)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.ndjson", "ROWS.JSONL", "rows", "rows.data"])
def test_json_rows_are_recognised_under_any_name_but_a_text_file_s(folder: Path, name: str) -> None:
    examples, findings = read_file(folder, GOOD, name)
    assert rows_of(examples) == [(1, "q", "r")]
    assert findings == []


def test_conversation_keeps_its_roles_and_order(folder: Path) -> None:
    turns = [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    examples, findings = read_file(folder, f"{json.dumps(row)}\n")
    assert [(message.role, message.content) for message in examples[0].messages] == turns
    assert [turn.reply.content for turn in examples[0].turns()] == ["b", "d"]
    assert examples[0].source.line == 1
    assert findings == []


def test_byte_order_mark_is_skipped_and_said(folder: Path) -> None:
    examples, findings = read_file(folder, b"\xef\xbb\xbf" + GOOD.encode("utf-8"))
    assert rows_of(examples) == [(1, "q", "r")]
    assert (only(findings).code, findings[0].severity) == ("D107", "warning")


# --- plain text ----------------------------------------------------------------------------------


@QUICK
@given(documents, st.sampled_from(["\n", "\r\n"]))
def test_text_is_one_document_from_line_one_exactly_as_written(
    folder: Path, written: list[list[str]], newline: str
) -> None:
    content = (newline * 2).join(newline.join(lines) for lines in written) + newline
    examples, findings = read_file(folder, content, "book.txt")
    assert texts_of(examples) == [(1, content)]
    assert findings == []


@QUICK
@given(documents, st.sampled_from(["\n", "\r\n"]), st.integers(0, 2), st.integers(1, 3), st.sampled_from(["", " \t"]))
def test_text_splits_into_documents_at_blank_lines_with_the_line_of_each(
    folder: Path, written: list[list[str]], newline: str, before: int, between: int, blank: str
) -> None:
    lines = [blank] * before
    expected = []
    for document in written:
        expected.append((len(lines) + 1, "\n".join(document)))
        lines += [*document, *[blank] * between]
    examples, findings = read_file(folder, newline.join(lines), "book.txt", split_documents=True)
    assert texts_of(examples) == expected
    assert findings == []


@pytest.mark.parametrize("name", ["book.txt", "book.md", "book", "book.rst"])
def test_anything_that_is_not_json_is_text(folder: Path, name: str) -> None:
    examples, findings = read_file(folder, "Once upon a time.\n", name)
    assert texts_of(examples) == [(1, "Once upon a time.\n")]
    assert findings == []


@pytest.mark.parametrize(
    ("content", "name"), [("", "a.txt"), ("", "a.jsonl"), (" \n\n", "a.txt"), (" \r\n", "a.jsonl")]
)
def test_file_with_nothing_in_it_is_an_error_of_the_whole_file(folder: Path, content: str, name: str) -> None:
    examples, findings = read_file(folder, content, name)
    assert examples == []
    assert (only(findings).code, findings[0].severity, findings[0].source.line) == ("D215", "error", None)


# --- D101: broken JSON, with its place and its cause ---------------------------------------------

BROKEN = [
    ("single quotes", "{'prompt': 'a', 'completion': 'b'}", 2, "single quotes"),
    ("trailing comma in the object", '{"prompt": "a", "completion": "b",}', 34, "comma"),
    ("trailing comma after the object", '{"prompt": "a", "completion": "b"},', 35, "comma"),
    ("comment after the object", '{"prompt": "a", "completion": "b"} // hm', 36, "comment"),
    ("comment alone", "# rows", 1, "comment"),
    ("comment inside", '{"prompt": "a", /* hm */ "completion": "b"}', 17, "comment"),
    ("NaN", '{"prompt": "a", "completion": NaN}', 31, "NaN"),
    ("NaN after the word NaN", '{"prompt": "is NaN bad?", "completion": NaN}', 41, "NaN"),
    ("negative infinity", '{"prompt": "a", "completion": -Infinity}', 31, "-Infinity"),
    ("unescaped quote", '{"prompt": "say "hi" now", "completion": "b"}', 18, "quote"),
    ("unescaped quote before a mark", '{"prompt": "say "?" now", "completion": "b"}', 18, "quote"),
    ("truncated in a string", '{"prompt": "a", "comple', 17, "cut short"),
    ("truncated before a value", '{"prompt": "a", "completion":', 30, "cut short"),
    ("truncated before the end", '{"prompt": "a", "completion": "b"', 34, "cut short"),
    ("raw tab", '{"prompt": "a\tb", "completion": "c"}', 14, "tab"),
    ("unknown escape", '{"prompt": "C:\\dir", "completion": "c"}', 15, "backslash"),
    (
        "two objects on a line",
        '{"prompt": "a", "completion": "b"} {"prompt": "c", "completion": "d"}',
        36,
        "two objects",
    ),
    ("text", "Once upon a time", 1, "not JSON"),
]


@pytest.mark.parametrize("after", ["", "\n", f"\n{GOOD}", f"\n\n{GOOD}"], ids=["cut", "last", "row", "blank"])
@pytest.mark.parametrize(("line", "column", "cause"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_line_is_named_with_its_place_and_cause_and_costs_itself_alone(
    folder: Path, line: str, column: int, cause: str, after: str
) -> None:
    examples, findings = read_file(folder, GOOD + line + after)
    finding = only(findings)
    assert (finding.code, finding.severity) == ("D101", "error")
    assert cause in f"{finding.message} {finding.hint}"
    assert finding.source.line == 2
    # Of a trailing comma the parser names the comma or the bracket after it, by version of Python.
    assert finding.source.column in ((column, column + 1) if ",}" in line else (column,))
    assert len(examples) == 1 + after.count("prompt")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("margin", ["", "  "])
def test_raw_line_break_in_a_string_is_one_finding_at_the_line_where_it_stands(
    folder: Path, newline: str, margin: str
) -> None:
    lines = [GOOD.strip(), margin + '{"prompt": "a", "completion": "first', 'second"}', GOOD.strip(), ""]
    examples, findings = read_file(folder, newline.join(lines))
    finding = only(findings)
    assert (finding.code, finding.source.line) == ("D101", 2)
    assert "line break" in finding.message
    assert "\\n" in finding.hint
    assert [row.source.line for row in examples] == [1, 4]


SPREAD = [
    ("raw line break", ['"prompt": "a",', '"completion": "b', 'c"'], 3, "line break"),
    ("raw tab", ['"prompt": "a",', '"completion": "b\tc"'], 3, "tab"),
    ("NaN", ['"prompt": "a",', '"completion": NaN'], 3, "NaN"),
    ("trailing comma", ['"prompt": "a",', '"completion": "b",'], (3, 4), "comma"),
    ("single quotes", ['"prompt": "a",', "\"completion\": 'b'"], 3, "single quotes"),
    ("comment", ['"prompt": "a", // hm', '"completion": "b"'], 2, "comment"),
    ("unescaped quote", ['"prompt": "a",', '"completion": "say "hi""'], 3, "quote"),
]


@pytest.mark.parametrize(("inside", "line", "cause"), [row[1:] for row in SPREAD], ids=[row[0] for row in SPREAD])
def test_broken_object_over_several_lines_is_one_finding_at_the_line_of_the_fault(
    folder: Path, inside: list[str], line: int | tuple[int, int], cause: str
) -> None:
    examples, findings = read_file(folder, "\n".join(["{", *[f"  {part}" for part in inside], "}", GOOD]))
    finding = only(findings)
    assert (finding.code, finding.severity) == ("D101", "error")
    assert cause in f"{finding.message} {finding.hint}"
    assert finding.source.line in (line if isinstance(line, tuple) else (line,))
    assert rows_of(examples) == [(3 + len(inside), "q", "r")]


ARRAYS = [
    ("trailing comma", f"[\n{GOOD},\n]", 4, "comma"),
    ("trailing comma in an element", f'[\n{GOOD},{{"prompt": "a", "completion": "b",}}]', 3, "comma"),
    ("missing comma", f"[\n{GOOD}\n{GOOD}]", 4, "comma"),
    ("not closed", f"[\n{GOOD},", 3, "cut short"),
    ("cut in an element", f'[\n{GOOD},{{"prompt": "a", "compl', 3, "cut short"),
    ("raw line break", f'[\n{GOOD},{{"prompt": "a\nb", "completion": "c"}}]', 3, "line break"),
    ("NaN", f'[\n{GOOD},{{"prompt": "a",\n"completion": NaN}}]', 4, "NaN"),
    ("text after it", f"[\n{GOOD}]\n{GOOD}", 4, "after the end"),
]


@pytest.mark.parametrize(("content", "line", "cause"), [row[1:] for row in ARRAYS], ids=[row[0] for row in ARRAYS])
def test_broken_array_is_named_with_its_line_and_what_came_before_is_read(
    folder: Path, content: str, line: int, cause: str
) -> None:
    examples, findings = read_file(folder, content, "rows.json")
    finding = only(findings)
    assert (finding.code, finding.severity, finding.source.line) == ("D101", "error", line)
    assert cause in finding.message
    assert rows_of(examples) == [(2, "q", "r")]


@pytest.mark.parametrize("depth", [100_000, 3_000])
@pytest.mark.parametrize("around", ["{}", "[{}]"], ids=["line", "array"])
def test_json_too_deep_to_read_is_a_finding(folder: Path, depth: int, around: str) -> None:
    row = f'{{"prompt": "a", "completion": {"[" * depth}{"]" * depth}}}'
    examples, findings = read_file(folder, around.format(row), "rows.json")
    assert examples == []
    assert (only(findings).code, findings[0].severity, findings[0].source.line) == ("D101", "error", 1)


# --- D103 to D111: rows that are JSON and yet wrong ----------------------------------------------

WRONG_ROWS: list[tuple[str, Any, str, str]] = [
    ("missing completion", {"prompt": "a"}, "D103", '"completion" is missing'),
    ("misspelt prompt", {"promt": "a", "completion": "b"}, "D103", 'did you mean "prompt"'),
    ("misspelt completion", {"prompt": "a", "completoin": "b"}, "D103", 'did you mean "completion"'),
    ("misspelt messages", {"mesages": [{"role": "user", "content": "a"}]}, "D103", 'did you mean "messages"'),
    ("capitals", {"Promt": "a", "completion": "b"}, "D103", 'did you mean "prompt"'),
    ("number", {"prompt": 5, "completion": "b"}, "D104", "a number"),
    ("number as completion", {"prompt": "a", "completion": 5}, "D104", "a number"),
    ("boolean", {"prompt": "a", "completion": True}, "D104", "a boolean"),
    ("null", {"prompt": None, "completion": "b"}, "D104", "null"),
    ("null as completion", {"prompt": "a", "completion": None}, "D104", "null"),
    ("object as prompt", {"prompt": {"a": 1}, "completion": "b"}, "D104", "an object"),
    ("array as prompt", {"prompt": ["a"], "completion": "b"}, "D104", "an array"),
    ("row is an array", ["a", "b"], "D104", "an array"),
    ("row is a string", "a", "D104", "a string"),
    ("messages is a string", {"messages": "a"}, "D104", "a string"),
    ("a turn is a string", {"messages": ["a"]}, "D104", "messages[0]"),
    ("empty prompt", {"prompt": "", "completion": "b"}, "D105", '"prompt" is empty'),
    ("blank completion", {"prompt": "a", "completion": " \n"}, "D105", '"completion" is empty'),
    ("both forms", {"prompt": "a", "completion": "b", "messages": []}, "D106", "both"),
    ("half a surrogate pair", {"prompt": "\ud83d", "completion": "b"}, "D107", '"prompt"'),
    ("half a surrogate pair in an object", {"prompt": "a", "completion": {"b": "\ud83d"}}, "D107", '"completion"'),
]


@pytest.mark.parametrize(("row", "code", "said"), [row[1:] for row in WRONG_ROWS], ids=[row[0] for row in WRONG_ROWS])
def test_wrong_row_is_an_error_on_its_line(folder: Path, row: Any, code: str, said: str) -> None:
    examples, findings = read_file(folder, f"{GOOD}{json.dumps(row)}\n{GOOD}")
    errors = [finding for finding in findings if finding.severity == "error"]
    assert {finding.code for finding in errors} == {code}
    assert {finding.source.line for finding in errors} == {2}
    assert any(said in f"{finding.message} {finding.hint}" for finding in errors)
    assert [row.source.line for row in examples] == [1, 3]


CHATS = [
    ("no turn", "", "no assistant"),
    ("no reply", "u", "no assistant"),
    ("reply first", "au", "messages[0]"),
    ("two questions", "uua", "messages[1]"),
    ("two replies", "uaa", "messages[2]"),
    ("ends on a question", "uau", "without a reply"),
    ("system in the middle", "uasua", "messages[2]"),
    ("unknown role", "ub", "messages[1]"),
]


@pytest.mark.parametrize(("turns", "said"), [row[1:] for row in CHATS], ids=[row[0] for row in CHATS])
def test_chat_turns_out_of_order_are_an_error(folder: Path, turns: str, said: str) -> None:
    roles = {"u": "user", "a": "assistant", "s": "system", "b": "bot"}
    messages = [{"role": roles[turn], "content": f"text {turn}"} for turn in turns]
    good = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]})
    examples, findings = read_file(folder, f"{good}\n{json.dumps({'messages': messages})}\n")
    finding = only(findings)
    assert (finding.code, finding.severity, finding.source.line) == ("D110", "error", 2)
    assert said in finding.message
    assert len(examples) == 1


def test_misspelt_role_is_told_the_nearest(folder: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}]
    _, findings = read_file(folder, json.dumps({"messages": messages}))
    assert only(findings).code == "D110"
    assert 'did you mean "assistant"?' in findings[0].hint


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ('{"b": 1,  "a": [true, null]}', '{"a":[true,null],"b":1}'),
        ('["é", "\\u00e9"]', '["é","é"]'),
        ("{}", "{}"),
        ("[ ]", "[]"),
    ],
)
def test_structured_completion_becomes_canonical_json(folder: Path, completion: str, text: str) -> None:
    examples, findings = read_file(folder, f'{{"prompt": "a", "completion": {completion}}}\n')
    assert rows_of(examples) == [(1, "a", text)]
    assert (only(findings).code, findings[0].severity, findings[0].source.line) == ("D104", "warning", 1)


@QUICK
@given(st.recursive(st.none() | st.booleans() | st.integers() | words, lambda inner: st.dictionaries(words, inner)))
def test_canonical_json_says_the_same_value(folder: Path, value: Any) -> None:
    examples, _ = read_file(folder, json.dumps({"prompt": "a", "completion": {"value": value}}))
    text = examples[0].messages[1].content
    assert json.loads(text) == {"value": value}
    assert text == json.dumps({"value": value}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_unknown_extra_field_is_a_warning_said_once(folder: Path) -> None:
    row = '{"prompt": "a", "completion": "b", "id": 7}\n'
    examples, findings = read_file(folder, GOOD + row * 3)
    assert len(examples) == 4
    finding = only(findings)
    assert (finding.code, finding.severity, finding.source.line) == ("D103", "warning", 2)
    assert '"id"' in finding.message


def test_duplicate_key_is_a_warning_and_the_last_value_counts(folder: Path) -> None:
    examples, findings = read_file(folder, f'{GOOD}{{"prompt": "a", "prompt": "b", "completion": "c"}}\n')
    assert rows_of(examples)[1:] == [(2, "b", "c")]
    assert (only(findings).code, findings[0].severity, findings[0].source.line) == ("D111", "warning", 2)
    assert '"prompt"' in findings[0].message


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "row",
    [
        f'{{"prompt": "a", "completion": {HUGE}}}',
        f'{{"prompt": "a", "completion": {{"n": {HUGE}}}}}',
        '{"prompt": "a", "completion": {"n": 1e999}}',
        '{"prompt": "a", "completion": "b", "score": 1e999}',
        f'{{"prompt": "a", "completion": "b", "score": {HUGE}}}',
    ],
    ids=["integer", "integer inside", "infinity inside", "unused infinity", "unused integer"],
)
@pytest.mark.parametrize("around", ["{}\n", "[{}]"], ids=["line", "array"])
def test_number_out_of_range_is_a_finding(folder: Path, row: str, around: str) -> None:
    _, findings = read_file(folder, around.format(row))
    assert {finding.code for finding in findings} & {"D101", "D104", "D111"}
    assert {finding.source.line for finding in findings} == {1}


# --- bytes that are not UTF-8 --------------------------------------------------------------------

ENCODINGS = [
    ("Latin-1", "utf-8", GOOD.encode("utf-8") + '{"prompt": "é", "completion": "b"}'.encode("latin-1"), 2, "Latin-1"),
    ("UTF-16", "utf-16", GOOD.encode("utf-16"), 1, "UTF-16"),
    ("UTF-16 without mark", "utf-16-le", GOOD.encode("utf-16-le"), 1, "UTF-16"),
    ("UTF-16 without mark, big end first", "utf-16-be", GOOD.encode("utf-16-be"), 1, "UTF-16"),
    ("UTF-32", "utf-32", GOOD.encode("utf-32"), 1, "UTF-32"),
    ("binary", "", bytes(range(256)), 1, "binary"),
    ("zero bytes", "", GOOD.encode("utf-8") + b"\0\0\0", 2, "binary"),
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt"])
@pytest.mark.parametrize(("raw", "line", "said"), [row[2:] for row in ENCODINGS], ids=[row[0] for row in ENCODINGS])
def test_bytes_that_are_not_utf8_are_one_error_that_names_them(
    folder: Path, raw: bytes, line: int, said: str, name: str
) -> None:
    examples, findings = read_file(folder, raw, name)
    finding = only(findings)
    assert (finding.code, finding.severity, finding.source.line) == ("D107", "error", line)
    assert said in finding.message
    assert finding.hint
    assert [example.source.line for example in examples] == ([1] if line == 2 and name == "rows.jsonl" else [])


# --- whatever the bytes --------------------------------------------------------------------------

FRAGMENTS = [
    '{"prompt": ', '"completion": ', '"messages": ', '"a"', "'a'", "{", "}", "[", "]", ",", ":", '"', "\\", "\\ud800",
    '"\\u0000"', "\n", "\r\n", "\r", " ", "\t", "NaN", "-Infinity", "1e999", "-0", "true", "null", "// x", "#", "\0",
    "\ufeff", "é", "\u2028", "\x85", '[{"role": "user", "content": "a"}', '{"role": "assistant", "content": "b"}]',
    '{"prompt": "a", "completion": "b"}', '{"prompt": "a", "completion": {"n": 1e999}}',
]  # fmt: skip


def sound(folder: Path, raw: bytes, name: str, split_documents: bool) -> None:
    examples, findings = read_file(folder, raw, name, split_documents=split_documents)
    lines = raw.count(b"\n") + 1
    places = [*(row.source for row in examples), *(finding.source for finding in findings)]
    assert all(place.line is None or 1 <= place.line <= lines for place in places)
    assert all(place.column is None or place.column >= 1 for place in places)
    assert all(finding.code in CATALOGUE and finding.message and finding.hint for finding in findings)
    assert examples or any(finding.severity == "error" for finding in findings)
    for row in examples:
        assert row.messages[-1].role == "assistant"
        assert all(isinstance(message, Message) and message.content.strip() for message in row.messages)
        assert all(message.content.encode("utf-8") for message in row.messages)


@QUICK
@given(st.binary(max_size=80), st.sampled_from(["a.jsonl", "a.json", "a.txt", "a"]), st.booleans())
def test_any_bytes_give_examples_or_errors_and_never_fail(
    folder: Path, raw: bytes, name: str, split_documents: bool
) -> None:
    sound(folder, raw, name, split_documents)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=16), st.sampled_from(["a.jsonl", "a.json", "a"]))
@case(['{"prompt": "a", "completion": {"n": 1e999}}'], "a.jsonl")
@case(['{"prompt": ', '"a"', ",", '"completion": ', "[", '"', '\\ud800"', "]", "}"], "a.jsonl")
def test_any_pieces_of_json_give_examples_or_errors_and_never_fail(folder: Path, pieces: list[str], name: str) -> None:
    sound(folder, "".join(pieces).encode("utf-8"), name, False)


def test_every_one_of_many_broken_lines_is_named(folder: Path) -> None:
    rows = [f"{{'prompt': 'q{number}', 'completion': 'r'}}" for number in range(400)]
    _, findings = read_file(folder, "\n".join(rows))
    assert [finding.source.line for finding in findings] == list(range(1, 401))


# --- files that cannot be opened -----------------------------------------------------------------


def test_missing_file_is_told_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(GOOD, encoding="utf-8")
    with pytest.raises(UserError, match="no such file") as caught:
        list(read(tmp_path / "trian.jsonl"))
    assert "train.jsonl" in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["", "train.jsonl/rows.jsonl", "x" * 300, "no/such/folder/rows.jsonl"])
def test_path_that_cannot_be_opened_is_a_mistake_of_the_request(tmp_path: Path, path: str) -> None:
    (tmp_path / "train.jsonl").write_text(GOOD, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        list(read(tmp_path / path))
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_file_of_another_person_is_a_mistake_of_the_request(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(GOOD, encoding="utf-8")
    file.chmod(0)
    try:
        file.read_bytes()
    except PermissionError:
        with pytest.raises(UserError, match="permission denied"):
            list(read(file))
    else:
        pytest.skip("this user may read everything")


# --- names, forms, sizes -------------------------------------------------------------------------


def lines_of(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


NAMES = [
    ({"question": "q", "answer": "r"}, "q"),
    ({"Question": "q", "Réponse": "r"}, "q"),
    ({"instruction": "q", "input": "", "output": "r"}, "q"),
    ({"instruction": "q", "input": "i", "output": "r"}, "q\n\ni"),
    ({"query": "q", "response": "r"}, "q"),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]}, "q"),
]


@pytest.mark.parametrize(("row", "prompt"), NAMES)
def test_names_in_use_are_recognised(folder: Path, row: dict[str, Any], prompt: str) -> None:
    examples, findings = read_file(folder, lines_of(row, row))
    assert findings == []
    assert rows_of(examples) == [(1, prompt, "r"), (2, prompt, "r")]


def test_an_odd_first_row_decides_nothing(folder: Path) -> None:
    odd, row = {"prompt": "a", "completion": "b"}, {"question": "q", "answer": "r"}
    examples, findings = read_file(folder, lines_of(odd, row, row))
    assert rows_of(examples) == [(1, "a", "b"), (2, "q", "r"), (3, "q", "r")]
    finding = only(findings)
    assert (finding.code, finding.severity, finding.source.line) == ("D106", "warning", 1)


def test_columns_are_as_named(folder: Path) -> None:
    file = folder / "named.jsonl"
    file.write_text(lines_of({"prompt": "p", "completion": "c", "ask": "q", "say": "r"}), encoding="utf-8")
    examples = list(read(file, Reading(prompt_column="ask", completion_column="say")))
    assert isinstance(examples[-1], Example)
    assert [message.content for message in examples[-1].messages] == ["q", "r"]
    with pytest.raises(UserError, match="no row has a column") as raised:
        list(read(file, Reading(prompt_column="asc")))
    assert 'did you mean "ask"' in (raised.value.hint or "")


def test_rows_of_text_are_documents(folder: Path) -> None:
    examples, findings = read_file(folder, lines_of({"text": "one"}, {"text": "two"}))
    assert findings == []
    assert texts_of(examples) == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("opening", ['{"prompt": "a", "completion": "', '[{"prompt": "a", "completion": "'])
def test_a_row_longer_than_any_row_is_an_error_and_is_not_held(folder: Path, opening: str) -> None:
    tracemalloc.start()
    file = folder / "long.json"
    with file.open("w", encoding="utf-8") as writer:
        writer.write(opening)
        for _ in range(100):
            writer.write("x" * 2**20)
        writer.write('"}\n' + GOOD)
    findings = [item for item in read(file) if isinstance(item, Finding)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert only(findings).code == "D101"
    assert "longer than" in only(findings).message
    assert peak < 90 * 2**20


def test_a_finding_before_the_first_row_does_not_hide_the_columns(folder: Path) -> None:
    examples, findings = read_file(folder, "\ufeffquestion,answer\nWhere?,here\n", "excel.csv")
    assert rows_of(examples) == [(2, "Where?", "here")]
    assert only(findings).code == "D107"


def test_a_zero_byte_costs_its_line_only(folder: Path) -> None:
    examples, findings = read_file(folder, GOOD + '{"prompt": "a\0", "completion": "b"}\n' + GOOD)
    assert rows_of(examples) == [(1, "q", "r"), (3, "q", "r")]
    assert (only(findings).code, only(findings).source.line) == ("D107", 2)


def test_named_columns_are_read_beside_messages(folder: Path) -> None:
    file = folder / "both.jsonl"
    file.write_text(lines_of({"prompt": "p", "completion": "c", "messages": []}), encoding="utf-8")
    examples = [
        item
        for item in read(file, Reading(prompt_column="prompt", completion_column="completion"))
        if isinstance(item, Example)
    ]
    assert rows_of(examples) == [(1, "p", "c")]


def test_a_pipe_is_refused_with_what_to_do(folder: Path) -> None:
    pipe = folder / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is a pipe") as raised:
        list(read(pipe))
    assert "plume check -" in (raised.value.hint or "")


def test_the_password_of_a_database_is_never_named(folder: Path) -> None:
    url = f"sqlite:///{folder}/none.db?password=hunter2secret"
    sqlite3.connect(folder / "none.db").close()
    with pytest.raises(UserError) as raised:
        list(read(url, Reading(query="select * from faq")))
    assert "hunter2" not in raised.value.message + (raised.value.hint or "")
