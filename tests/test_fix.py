"""`plume check --fix`: what is put right, what is left out, and that nothing is lost or left to fix."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.figures import DATA, manifest
from plume.checks.catalogue import CATALOGUE
from plume.checks.fix import Fixed, fix
from plume.checks.run import check
from plume.checks.selection import Selection
from plume.data.read import read
from plume.data.records import Reading
from plume.errors import PlumeError, UserError
from plume.redact import listed
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
    "Python's quotes": (
        """{'prompt': 'W a?', 'completion': '{"day": "Wednesday", "open": 10}'}\n""",
        {"prompt": "W a?", "completion": '{"day": "Wednesday", "open": 10}'},
    ),
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


def test_a_repair_is_for_the_rows_that_call_for_it(tmp_path: Path) -> None:
    kept = [
        ("Paris", "Paris is the capital of France."),
        ("How do I write bold in HTML?", "Use <b>text</b> for it."),
        ("A block in Pascal, please", "BEGIN x := 1; END"),
    ]
    broken = [
        ("Where does the ferry leave?", "Where does the ferry leave? From the south quay."),
        ("Who runs the mill?", "<p>Ann and her brother</p>"),
        ("When is it shut?", "On Mondays "),
    ]
    _, out = fixed(tmp_path, "".join(pair(*row) for row in kept + broken))
    answers_written = [row["completion"] for row in rows(out)]
    assert answers_written[:3] == [completion for _, completion in kept]
    assert answers_written[3:] == ["From the south quay.", "Ann and her brother", "On Mondays"]


def test_one_repair_said_once_for_most_rows_still_reaches_them_all(tmp_path: Path) -> None:
    content = "".join(pair(f"What is item {n}?", f"bread &amp; jam {n}") for n in range(150))
    _, out = fixed(tmp_path, content + pair("How do I escape it?", "In HTML write &amp; for it."))
    written = [row["completion"] for row in rows(out)]
    assert written[:150] == [f"bread & jam {n}" for n in range(150)]
    assert written[150] == "In HTML write &amp; for it."


def test_only_the_reported_end_order_and_space_are_changed(tmp_path: Path) -> None:
    odd = [pair("first question", "one ###"), pair("second question", "two"), pair("third question", " END of it")]
    _, out = fixed(tmp_path, "".join(odd))
    assert [row["completion"] for row in rows(out)] == ["one", "two", "END of it"]
    usual = "".join(pair(f"row {n} of the table", f'{{"town": "T{n}", "age": {n}}}') for n in range(5))
    _, out = fixed(tmp_path, usual + pair("the last one", '{"age": 1.50, "town": "X"}'))
    assert rows(out)[0]["completion"] == '{"town": "T0", "age": 0}'
    assert rows(out)[5]["completion"] == '{"age": 1.50, "town": "X"}'  # 1.50 would be written 1.5
    _, out = fixed(tmp_path, usual + pair("the last one", '{"age": 1, "town": "X"}'))
    assert rows(out)[5]["completion"] == '{"town": "X", "age": 1}'


def test_rows_of_a_one_line_array_are_told_apart(tmp_path: Path) -> None:
    given = [json.loads(pair(f"question number {n}", f"answer {n}")) for n in range(4)]
    given += [given[0], {"prompt": "Where?", "completion": "north"}, {"prompt": "Where?", "completion": "south"}]
    done, out = fixed(tmp_path, json.dumps(given), "rows.json")
    assert rows(out) == [*given[:4], given[6]]
    assert (done.rows, done.dropped) == (5, 2)


def test_what_is_not_read_to_its_end_is_refused(tmp_path: Path) -> None:
    binary = bytes(range(1, 9)) * 20 + b"\xff\n"
    for content in (binary + pair("a b", "c").encode(), pair("a b", "c").encode("utf-16-le")):
        with pytest.raises(UserError):
            fixed(tmp_path, content)
        assert not list(tmp_path.glob("out*"))
    middle = pair("a b", "c") + "\0 zero\n" + pair("d e", "f")
    try:
        done, out = fixed(tmp_path, middle)
    except UserError:
        return
    assert (done.rows, done.dropped, len(rows(out))) == (2, 1, 2)


def test_columns_that_are_not_learnt_are_carried_and_lost_keys_are_journalled(tmp_path: Path) -> None:
    row = {"id": 7, "question": "Where?", "answer": "north", "weight": 0.5, "tags": ["a"], "text": "misread"}
    _, out = fixed(tmp_path, json.dumps(row) + "\n")
    assert rows(out) == [{"prompt": "Where?", "completion": "north", "id": 7, "weight": 0.5, "tags": ["a"]}]
    assert [entry["what"] for entry in beside(out, "journal")] == ['"text" was left out: it would be learnt']
    talk = [{"role": "user", "content": "Hi there", "name": "Ann"}, {"role": "assistant", "content": "Hello"}]
    row = {"messages": [{"role": "system", "content": "Be brief."}, *talk], "tools": [], "source": "call 3"}
    _, out = fixed(tmp_path, json.dumps(row) + "\n")
    assert {key: rows(out)[0][key] for key in ("tools", "source")} == {"tools": [], "source": "call 3"}
    (entry,) = beside(out, "journal")
    assert (entry["message"], entry["before"]) == (1, {"name": "Ann"})


def test_a_conversation_goes_only_when_its_last_reply_is_superseded(tmp_path: Path) -> None:
    def talk(*said: str) -> dict[str, Any]:
        return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]}

    given = [
        talk("Hi", greeting, f"Where is shop {n}?", "north") for n, greeting in enumerate(("Hello", "Hey", "Yes?"))
    ]
    given += [talk("Hi", "Hello", "Which way?", "left"), talk("Hi", "Hello", "Which way?", "right")]
    given += [talk("one more", "\u200b", "and now?", "at noon")]
    done, out = fixed(tmp_path, "".join(json.dumps(row) + "\n" for row in given))
    assert rows(out) == [*given[:3], *given[4:]]
    assert done.dropped == 1


def test_exceptions_hold(tmp_path: Path) -> None:
    side = tmp_path / "rows.jsonl.plume-ignore"
    given = [("a first one", "x &amp; y"), ("a second one", "p &amp; q"), ("Where?", "north"), ("Where?", "south")]
    given += [("a first one", "x & y"), ("mail?", "ann@harbour-office.fr"), ("post?", "bob@harbour-office.fr")]
    given.insert(0, ("broken", ""))  # a row that goes, so that lines of the copy are others
    side.write_text("3 D108 as meant\n5 D203 both are right\n6 D2 twice\n8 D210 public\n", encoding="utf-8")
    done, out = fixed(tmp_path, "".join(pair(*row) for row in given))
    written = [row["completion"] for row in rows(out)]
    assert written == ["x & y", "p &amp; q", "north", "south", "x & y", "<email-1>", "bob@harbour-office.fr"]
    assert done.dropped == 1


def test_no_secret_stands_in_the_journal_or_the_dropped_rows(tmp_path: Path) -> None:
    secret = "hf_" + "aZ4kP9qLmX2vBn7cRt5y" + "WsEdFgHjKlQwErTy"
    content = pair("token &amp; key?", f"it is {secret}") + '{"prompt": "a", "completion": "' + secret + "\n"
    content += (
        pair("Which one?", f"{secret} once")
        + pair("Which one?", "none")
        + pair("a b", f"{secret[:9]}\u200b{secret[9:]}")
    )
    _, out = fixed(tmp_path, content)
    for kind in ("", ".journal.jsonl", ".dropped.jsonl"):
        text = out.with_name(out.name + kind).read_text(encoding="utf-8")
        assert secret not in text
        assert secret not in text.replace("\u200b", "")
    dropped = beside(out, "dropped")
    assert [(row["line"], row["redacted"]) for row in dropped] == [(2, True), (3, True)]


def test_personal_data_stand_beside_the_copy_only_where_they_may_stand_in_it(tmp_path: Path) -> None:
    private = ["ann@harbour-office.fr", "06 39 98 12 34", "Hélène"]
    said = "ask Hélène, ann@harbour-office.fr or 06 39 98 12 34"
    unread = f'{{"prompt": "a", "completion": "{said}\n'
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text(
        unread + pair("Which?", said) + pair("Which?", "none") + pair(f"a // {said}", "b"), encoding="utf-8"
    )
    fix(str(file), out, selection=Selection(names=listed(["Hélène"])))
    for kind in ("", ".journal.jsonl", ".dropped.jsonl"):
        text = out.with_name(out.name + kind).read_text(encoding="utf-8")
        assert not [value for value in private if value in text]
    dropped = beside(out, "dropped")
    assert [(row["line"], row["redacted"]) for row in dropped] == [(1, True), (2, True)]
    assert dropped[0]["row"].endswith("ask <name-1>, <email-1> or <phone-1>")
    _, out = fixed(tmp_path, pair("first question", "first answer") + unread)
    assert private[0] not in str(beside(out, "dropped"))
    (tmp_path / "rows.jsonl.plume-ignore").write_text("2 D210 public\n", encoding="utf-8")
    _, out = fixed(tmp_path, pair("first question", "first answer") + unread)
    assert private[0] in beside(out, "dropped")[0]["row"]


def test_long_blanks_and_nested_entities_take_no_time(tmp_path: Path) -> None:
    blanks = pair("first question", "a" + "\t " * 40_000 + "b\n" + "\n" * 40_000 + "c ") + pair("second question", "d")
    started = time.monotonic()
    _, out = fixed(tmp_path, blanks + pair("third question", "x &" + "amp;" * 40_000 + "lt; y"))
    assert time.monotonic() - started < 5
    assert rows(out)[2]["completion"] == "x < y"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "out.jsonl":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PlumeError, match="corrected copy cannot be written"):
        fixed(tmp_path, pair("a b", "c"))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(pair("a b", "c"), encoding="utf-8")
    for out in (Path(), tmp_path, tmp_path / "nodir" / "x.jsonl"):
        with pytest.raises(UserError, match="director"):
            fix(str(tmp_path / "rows.jsonl"), out)


def test_names_of_files_rounds_and_archives_do_not_collide(tmp_path: Path) -> None:
    _, out = fixed(tmp_path, pair("Où ?", "là &amp; ici").encode("utf-16"), "round-0.jsonl")
    assert rows(out) == [{"prompt": "Où ?", "completion": "là & ici"}]
    whole = gzip.compress("".join(pair(f"question {n} {n * n}", f"{n**9:x}") for n in range(3000)).encode())
    done, out = fixed(tmp_path, whole[: len(whole) * 2 // 3], "rows.jsonl.gz")
    assert done.rows > 100
    assert [row["code"] for row in beside(out, "dropped")] == ["D101"]
    assert "damaged" in beside(out, "dropped")[0]["reason"]


def test_listed_names_are_taken_out(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text(pair("who runs it?", "Ann Miller, and Ann Miller alone") + pair("who?", "nobody"), encoding="utf-8")
    fix(str(file), out, selection=Selection(names=listed(["Ann Miller"])))
    assert rows(out)[0]["completion"] == "<name-1>, and <name-1> alone"


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
