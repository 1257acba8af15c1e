"""The doctor names the fault of every broken file of the corpus, where it is, and nothing else; clean files pass."""

from __future__ import annotations

import json

import pytest

from corpus.figures import DATA, Case, false_alarms, figures, manifest, missing

CASES = manifest()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_what_is_wrong_is_said_and_nothing_else(case: Case) -> None:
    findings = case.findings()
    assert missing(case, findings) == [], case.why
    assert false_alarms(case, findings) == [], case.why


def test_figures_count_what_was_named() -> None:
    clean = next(case for case in CASES if not case.expected)
    broken = next(case for case in CASES if case.expected)
    mistaken = Case(clean.file, broken.expected, "a clean file said to be broken")
    accused = Case(broken.file, (), "a broken file said to be clean")
    assert figures([broken, clean, mistaken, accused]) == {"faults": 2, "named": 1, "clean": 2, "false_alarms": 1}


def test_every_stored_file_has_its_place_in_the_manifest() -> None:
    stored = {file.relative_to(DATA).as_posix() for file in DATA.rglob("*") if file.is_file()} - {"manifest.json"}
    used = {name for case in CASES for name in (case.file, case.eval_data) if name}
    assert stored == used
    assert len({case.file for case in CASES}) == len(CASES)


def test_corpus_is_large_and_sorted_by_fault() -> None:
    broken = [case for case in CASES if case.expected]
    assert len(broken) >= 170
    assert len(CASES) - len(broken) >= 36
    assert all(case.file.startswith(f"{case.expected[0].code}/") for case in broken)


def test_no_attribute_of_the_checkout_changed_a_byte() -> None:
    """Line ends and encodings are faults here: Git must leave them as they are (`tests/corpus/** -text`)."""
    assert (DATA / "clean/crlf.jsonl").read_bytes().count(b"\r\n") == 16
    assert (DATA / "D107/utf-16-le.jsonl").read_bytes().startswith(b"\xff\xfe{\0")
    assert b"\r" not in (DATA / "clean/pairs-en.jsonl").read_bytes()
    assert all(json.loads(line) for line in (DATA / "clean/pairs-en.jsonl").read_bytes().splitlines())
