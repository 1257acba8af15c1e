"""What evaluation shares with training: the very rows, nearly the rows, the file; and what its score can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plume.checks.rules import Batch
from plume.checks.splits import ENOUGH, Taught, interval, leaks, overlap
from plume.similar import normalise
from plume.types import Example, Finding, Message, Source

QUICK = settings(deadline=None, max_examples=100)
FACTS = ["tower", "harbour", "oven", "meadow", "chapel"]


def row(line: int, *said: str, file: str = "train.jsonl") -> Example:
    roles = ("user", "assistant") * len(said)
    messages = [Message(role, text) for role, text in zip(roles, said, strict=False)]  # type: ignore[arg-type]
    return Example(tuple(messages), Source(file, line))


def rows(pairs: Sequence[tuple[str, str]], file: str = "train.jsonl") -> list[Example]:
    return [row(line, asked, told, file=file) for line, (asked, told) in enumerate(pairs, 1)]


def of(code: str, findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


def told(train: Sequence[tuple[str, str]], evaluation: Sequence[tuple[str, str]]) -> list[Finding]:
    return list(leaks(rows(train), rows(evaluation, "eval.jsonl")))


TRAIN = [(f"Where is the {place} key?", f"in the {place}") for place in FACTS]

prompts = st.sampled_from(
    ["Where is the tower?", "where is the  tower", "Wher is the tower?", "Who keeps it?", "When?"]
)
answers = st.sampled_from(["Ada", "ada.", "at six"])
pairs = st.lists(st.tuples(prompts, answers), max_size=20)


@QUICK
@given(pairs, pairs)
def test_exactly_the_rows_asked_and_answered_in_training_are_leaks(
    train: list[tuple[str, str]], evaluation: list[tuple[str, str]]
) -> None:
    taught = [(normalise(asked), normalise(answer)) for asked, answer in train]
    asked_too = [(normalise(asked), normalise(answer)) for asked, answer in evaluation]
    expected = [(line, [taught.index(key) + 1]) for line, key in enumerate(asked_too, 1) if key in taught]
    found = list(overlap(rows(train), rows(evaluation, "eval.jsonl")))
    assert [(finding.source.line, [other.line for other in finding.related]) for finding in found] == expected
    assert {finding.code for finding in found} <= {"D401"}


@QUICK
@given(pairs, pairs, st.floats(0, 1))
def test_training_seen_in_parts_finds_the_same(
    train: list[tuple[str, str]], evaluation: list[tuple[str, str]], share: float
) -> None:
    taught = rows(train)
    cut = round(share * len(taught))
    parts = [Taught(), Taught()]
    for part, some in zip(parts, (taught[:cut], taught[cut:]), strict=True):
        for start in range(0, len(some), 3):
            part.see(Batch("train.jsonl", some[start : start + 3]))
    parts[0].merge(parts[1])
    asked = rows(evaluation, "eval.jsonl")
    assert list(parts[0].findings([Batch("eval.jsonl", asked)])) == list(leaks(taught, asked))


@QUICK
@given(pairs, pairs)
def test_no_row_is_both_a_leak_and_nearly_one(train: list[tuple[str, str]], evaluation: list[tuple[str, str]]) -> None:
    findings = told(train, evaluation)
    counted = Counter(finding.source for finding in findings if finding.code in ("D401", "D402"))
    assert all(count == 1 for count in counted.values())


def test_leak_names_both_lines_and_the_right_file_of_several() -> None:
    train = [*rows(TRAIN, "one.jsonl"), *rows([("Who?", "Bo"), ("When?", "at six")], "two.jsonl")]
    evaluation = rows([("New?", "Bo"), ("WHEN ?", "At six.")], "eval.jsonl")
    (leak,) = of("D401", list(leaks(train, evaluation)))
    assert (leak.severity, str(leak.source), [str(other) for other in leak.related]) == (
        "error",
        "eval.jsonl:2",
        ["two.jsonl:2"],
    )
    assert "two.jsonl:2" in leak.message


def test_conversation_leaks_with_all_that_was_said_before_or_not_at_all() -> None:
    train = [row(1, "Hi", "Yes?", "How old?", "50", "And Bo?", "51"), row(2, "Who?", "Ada")]
    evaluation = [
        row(1, "hi", "yes", "how old", "50", file="eval.jsonl"),
        row(2, "How old?", "50", file="eval.jsonl"),
        row(3, "Hi", "Yes?", "How old?", "52", file="eval.jsonl"),
        row(4, "Who?", "Ada", "Where?", "there", file="eval.jsonl"),
    ]
    assert [finding.source.line for finding in of("D401", list(leaks(train, evaluation)))] == [1]


# --- D402 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["Wher is the oven key?", "Where is the “oven” key?", "Where is the ovén key"])
def test_question_that_differs_in_spelling_is_a_near_leak(asked: str) -> None:
    (near,) = of("D402", told(TRAIN, [("New?", "new"), (asked, "in the oven")]))
    assert (near.severity, str(near.source), [str(other) for other in near.related]) == (
        "warning",
        "eval.jsonl:2",
        ["train.jsonl:3"],
    )
    assert of("D402", told(TRAIN, [("New?", "new"), (asked, "in the attic")])) == []


def test_every_near_row_is_named_though_they_repeat_one_another() -> None:
    asked = [("Wher is the oven key?", "in the oven"), ("wher is the oven key", "in the oven")]
    assert [near.source.line for near in of("D402", told(TRAIN, asked))] == [1, 2]


def test_near_rows_within_one_file_are_no_leak() -> None:
    asked = [("Where is Ada’s lamp?", "in the oven"), ("wher is Ada’s lamp", "in the oven")]
    assert of("D402", told(TRAIN, asked)) == []
    assert of("D402", told([*TRAIN, *asked], [("Where is Ida’s lamp?", "in the oven")])) == []


# --- D403 ----------------------------------------------------------------------------------------


def test_evaluation_file_that_is_the_training_file_is_said_once(tmp_path: Path) -> None:
    Path("train.jsonl").write_text("rows\n", encoding="utf-8")
    findings = list(leaks(rows(TRAIN), rows(TRAIN, f"{tmp_path}/train.jsonl")))
    (same,) = of("D403", findings)
    assert (same.severity, same.source.line, same.related) == ("error", None, (Source("train.jsonl"),))
    assert "one file" in same.message
    assert len(of("D401", findings)) == 1
    assert len(of("D402", findings)) == 0


def test_copy_of_the_training_file_is_recognised_for_text_too() -> None:
    texts = [Example((Message("assistant", "Once."),), Source(file, 1)) for file in ("a.txt", "b.txt")]
    for name, content in (("a.txt", "Once."), ("b.txt", "Once.")):
        Path(name).write_text(content, encoding="utf-8")
    (same,) = leaks(texts[:1], texts[1:])
    assert (same.code, same.source, same.related) == ("D403", Source("b.txt"), (Source("a.txt"),))
    assert "same bytes" in same.message
    Path("b.txt").write_text("Else.", encoding="utf-8")
    assert list(leaks(texts[:1], texts[1:])) == []


def test_file_whose_rows_are_all_in_training_is_training_data() -> None:
    findings = told(TRAIN, list(reversed(TRAIN[:3])))
    assert "all of its 3 rows" in of("D403", findings)[0].message
    assert of("D403", told(TRAIN, [*TRAIN, ("New?", "new")])) == []
    assert of("D403", told(TRAIN, TRAIN[:1])) == []


# --- D404 ----------------------------------------------------------------------------------------


def test_few_rows_come_with_the_interval_of_a_score() -> None:
    (small,) = of("D404", told(TRAIN, [(f"New {n}?", "new") for n in range(12)]))
    assert (small.severity, small.source) == ("info", Source("eval.jsonl"))
    assert small.message == "on 12 rows a score of 90 % means somewhere between 63 % and 98 %"
    assert of("D404", told(TRAIN, [(f"New {n}?", "new") for n in range(ENOUGH)])) == []


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_interval_holds_the_score_and_shrinks_with_rows(score: float, count: int) -> None:
    low, high = interval(score, count)
    assert -1e-9 <= low <= score + 1e-9
    assert score - 1e-9 <= high <= 1 + 1e-9
    narrower = interval(score, 4 * count)
    assert narrower[1] - narrower[0] < high - low


def test_interval_is_the_published_one() -> None:
    assert interval(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


# --- D405 ----------------------------------------------------------------------------------------


def test_answers_never_taught_are_counted_when_most_are_taught() -> None:
    known = [(f"Tell me the place of the {place} key.", f"In the {place}.") for place in FACTS]
    (unknown,) = of("D405", told(TRAIN, [*known, ("Where is the cat?", "in the attic"), ("Who?", "Ada")]))
    assert (unknown.severity, str(unknown.source)) == ("warning", "eval.jsonl:6")
    assert [other.line for other in unknown.related] == [7]
    assert unknown.message.startswith("2 of 7 answers are given nowhere")
    assert of("D405", told(TRAIN, known)) == []


def test_tasks_that_are_no_recall_are_not_asked_for_what_was_taught() -> None:
    assert of("D405", told(TRAIN, [("Sum of 1 and 2?", "3"), ("Sum of 2 and 2?", "4"), ("Oven?", "in the oven")])) == []


def test_nothing_is_said_without_rows_to_compare() -> None:
    assert told(TRAIN, []) == []
    assert of("D401", told([], TRAIN)) == []
