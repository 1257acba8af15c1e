"""`plume check --fix`: what is put right, what is left out, and that nothing is lost or left to fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.figures import DATA, manifest
from plume.checks.catalogue import CATALOGUE
from plume.checks.fix import Fixed, fix
from plume.checks.run import check
from plume.data.read import read
from plume.data.records import Reading
from plume.errors import UserError
from plume.types import Example


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def beside(out: Path, kind: str) -> list[dict[str, Any]]:
    return rows(out.with_name(f"{out.name}.{kind}.jsonl"))


def fixed(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> tuple[Fixed, Path]:
    file, out = folder / name, folder / "out.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    for old in folder.glob("out*"):
        old.unlink()
    return fix(str(file), out), out


def pair(prompt: str, completion: Any) -> str:
    return json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n"


def test_the_last_answer_is_kept_and_the_others_are_dropped_with_their_line(tmp_path: Path) -> None:
    content = pair("Where?", "north") + pair("Who?", "Ann") + pair("where ?", "south") + pair("Where?", "north")
    done, out = fixed(tmp_path, content + pair("Where?", "east"))
    assert rows(out) == [{"prompt": "Who?", "completion": "Ann"}, {"prompt": "Where?", "completion": "east"}]
    assert [(row["line"], row["code"]) for row in beside(out, "dropped")] == [(1, "D203"), (3, "D203"), (4, "D203")]
    assert beside(out, "dropped")[1]["row"] == {"prompt": "where ?", "completion": "south"}
    assert (done.rows, done.dropped, done.changes["D203"]) == (2, 3, 3)


REPAIRED = {
    "raw line break": ('{"prompt": "a b", "completion": "one\ntwo"}\n', {"prompt": "a b", "completion": "one\ntwo"}),
    "trailing comma": ('{"prompt": "a b", "completion": "one",}\n', {"prompt": "a b", "completion": "one"}),
    "single quotes": ("{'prompt': 'a b', 'completion': 'one'}\n", {"prompt": "a b", "completion": "one"}),
    "unescaped quote": (
        '{"prompt": "a b", "completion": "the "one" we know"}\n',
        {"prompt": "a b", "completion": 'the "one" we know'},
    ),
    "comment": ('{"prompt": "a b", "completion": "one"} // mine\n', {"prompt": "a b", "completion": "one"}),
    "spread": ('{\n "prompt": "a b",\n "completion": "one"\n}\n', {"prompt": "a b", "completion": "one"}),
    "object": ('{"prompt": "a b", "completion": {"b": 1, "a": 2}}\n', {"prompt": "a b", "completion": '{"a":2,"b":1}'}),
    "number": ('{"prompt": "a b", "completion": 12.5}\n', {"prompt": "a b", "completion": "12.5"}),
    "other names": ('{"question": "a b", "answer": "one"}\n', {"prompt": "a b", "completion": "one"}),
    "mojibake": (pair("a b", "l’été".encode().decode("cp1252")), {"prompt": "a b", "completion": "l’été"}),
    "decomposed": (pair("a b", "e\u0301te\u0301"), {"prompt": "a b", "completion": "été"}),
    "zero width": (pair("a\u200b b", "one"), {"prompt": "a b", "completion": "one"}),
    "entity": (pair("a b", "one &amp; two"), {"prompt": "a b", "completion": "one & two"}),
    "e-mail": (pair("a b", "write to ann@harbour-office.fr"), {"prompt": "a b", "completion": "write to <email-1>"}),
}


@pytest.mark.parametrize(("content", "row"), REPAIRED.values(), ids=REPAIRED)
def test_what_can_only_mean_one_thing_is_put_right(tmp_path: Path, content: str, row: dict[str, str]) -> None:
    _, out = fixed(tmp_path, pair("first question", "first answer") + content)
    assert rows(out)[1] == row


UNCLEAR = {
    "truncated": '{"prompt": "a", "completion": "on\n',
    "NaN": '{"prompt": "a", "completion": NaN}\n',
    "bad escape": '{"prompt": "a", "completion": "C:\\qnew"}\n',
    "empty": pair("a", "  "),
    "null": '{"prompt": "a", "completion": null}\n',
    "misspelt": '{"promt": "a", "completion": "b"}\n',
    "half a pair": '{"prompt": "a", "completion": "\\ud83d"}\n',
}


@pytest.mark.parametrize("content", UNCLEAR.values(), ids=UNCLEAR)
def test_what_is_unclear_is_left_out_and_kept_beside(tmp_path: Path, content: str) -> None:
    good = pair("first question", "first answer")
    _, out = fixed(tmp_path, good + content + pair("second question", "second answer"))
    assert [row["prompt"] for row in rows(out)] == ["first question", "second question"]
    (dropped,) = beside(out, "dropped")
    assert dropped["line"] == 2
    assert dropped["reason"]
    kept = dropped["row"]
    assert (json.loads(content) if isinstance(kept, dict) else content.strip()) == kept


def test_bytes_of_windows_1252_and_utf_16_are_read_as_what_they_are(tmp_path: Path) -> None:
    content = pair("Où est-ce ?", "là-bas")
    for encoding in ("cp1252", "utf-16"):
        _, out = fixed(tmp_path, content.encode(encoding))
        assert rows(out) == [json.loads(content)]


def test_the_journal_says_what_changed_but_no_secret(tmp_path: Path) -> None:
    secret = "hf_" + "aZ4kP9qLmX2vBn7cRt5y" + "WsEdFgHjKlQwErTy"
    _, out = fixed(tmp_path, pair("What is it &amp; where?", "here") + pair("token?", f"it is {secret}"))
    journal = beside(out, "journal")
    change = next(row for row in journal if row["code"] == "D108")
    assert (change["line"], change["before"], change["after"]) == (1, "What is it &amp; where?", "What is it & where?")
    assert any(row["code"] == "D211" for row in journal)
    assert secret not in out.with_name("out.jsonl.journal.jsonl").read_text(encoding="utf-8")
    assert secret not in out.read_text(encoding="utf-8")


def test_nothing_is_overwritten_and_nothing_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(pair("a", "b"), encoding="utf-8")
    (tmp_path / "out.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="exists already"):
        fix(str(tmp_path / "rows.jsonl"), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "mine"
    (tmp_path / "bad.jsonl").write_text("nothing here\n", encoding="utf-8")
    with pytest.raises(UserError, match="no row could be kept"):
        fix(str(tmp_path / "bad.jsonl"), tmp_path / "other.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "out.jsonl", "rows.jsonl"]


def test_plain_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("once upon a time", encoding="utf-8")
    with pytest.raises(UserError, match="plain text"):
        fix(str(tmp_path / "book.txt"), tmp_path / "out.jsonl")


FAULTY = [case for case in manifest() if not case.file.endswith((".txt", ".md"))]


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.file)
def test_fixed_again_nothing_changes_and_no_row_is_lost(case: Any, tmp_path: Path) -> None:
    source, out = DATA / case.file, tmp_path / "out.jsonl"
    try:
        done = fix(str(source), out)
    except UserError:
        return  # named and refused: an array broken in the middle, a file without a row
    again = fix(str(out), tmp_path / "again.jsonl")
    assert again.changes == {}
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()
    assert len(rows(out)) == done.rows
    assert len(beside(out, "dropped")) == done.dropped
    examples = [item for item in read(source) if isinstance(item, Example)]
    assert done.rows + done.dropped >= len(examples)
    if not case.expected:
        assert done.dropped == 0


def test_codes_that_drop_or_rewrite_are_gone_after_fixing(tmp_path: Path) -> None:
    gone = {"D101", "D102", "D104", "D105", "D106", "D108", "D111", "D201", "D202", "D203", "D204", "D206", "D208"}
    gone |= {"D210", "D211"}
    assert all(CATALOGUE[code].fixable for code in gone)
    left = []
    for number, case in enumerate(FAULTY):
        codes = {expected.code for expected in case.expected}
        if not codes & gone:
            continue
        out = tmp_path / f"{number}.jsonl"
        try:
            fix(str(DATA / case.file), out)
        except UserError:
            continue
        left += [(case.file, found.code) for found in check(out) if found.code in gone]
    assert left == []


words = st.text(st.characters(codec="utf-8", exclude_characters="\ufdd0"), min_size=1, max_size=20)
answers = st.one_of(words, st.none(), st.integers(), st.dictionaries(words, words, max_size=2))
anything = st.dictionaries(st.sampled_from(["prompt", "completion", "question"]), answers, max_size=3)


@settings(deadline=None, max_examples=150)
@given(st.lists(anything, min_size=1, max_size=8))
def test_any_rows_are_kept_or_dropped_and_fixing_ends(
    tmp_path_factory: pytest.TempPathFactory, given: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("fix")
    content = "".join(json.dumps(row) + "\n" for row in given)
    try:
        done, out = fixed(folder, content)
    except UserError:
        return
    assert done.rows + done.dropped == len(given)
    again = fix(str(out), folder / "again.jsonl", Reading())
    assert again.changes == {}
