"""What is held out teaches nothing it is asked: wordings whose answers stay, whole answers, or ends of texts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from plume.data.keys import question_key
from plume.data.split import Split, split
from plume.similar import normalise
from plume.types import Example, Message, Source

QUICK = settings(deadline=None, max_examples=150)

prompts = st.sampled_from(
    ["Who keeps it?", "who keeps it", "WHO  keeps it ?", "How high?", "how high", "When?", "Où ?"]
)
answers = st.sampled_from(["Ada", "Bo", "30 m", "at six", "ici"])
pairs = st.lists(st.tuples(prompts, answers), min_size=1, max_size=40)
varied = st.lists(
    st.tuples(st.integers(0, 60).map(lambda number: f"question {number}"), answers), min_size=1, max_size=60
)
chats = st.lists(st.lists(st.tuples(prompts, answers), min_size=1, max_size=3), min_size=1, max_size=20)
sizes = st.floats(0.01, 0.99)
seeds = st.integers(0, 5)


def rows_of(written: Sequence[tuple[str, str]]) -> list[Example]:
    return chats_of([[pair] for pair in written])


def chats_of(written: Sequence[Sequence[tuple[str, str]]]) -> list[Example]:
    examples = []
    for line, turns in enumerate(written, 1):
        messages = [part for ask, reply in turns for part in (Message("user", ask), Message("assistant", reply))]
        examples.append(Example(tuple(messages), Source("rows.jsonl", line)))
    return examples


def texts_of(*documents: str) -> list[Example]:
    return [Example((Message("assistant", text),), Source("book.txt", 10 * n + 1)) for n, text in enumerate(documents)]


def replies(examples: Sequence[Example]) -> set[str]:
    return {turn.reply.content for example in examples for turn in example.turns()}


def keys(examples: Sequence[Example]) -> set[str]:
    return {question_key(example.messages[:-1]) for example in examples}


def whole(parts: Split, examples: Sequence[Example]) -> None:
    """Every row is in exactly one part, training rows stand in the order of the file, and something is trained."""
    assert Counter(parts.train) + Counter(parts.held_out) == Counter(examples)
    assert [row for row in examples if row in set(parts.train)] == list(parts.train)
    assert parts.train
    assert parts.reason
    if not parts.held_out:
        assert "recall" in parts.reason


# --- phrasings -----------------------------------------------------------------------------------


@QUICK
@given(st.one_of(pairs.map(rows_of), varied.map(rows_of), chats.map(chats_of)), sizes, seeds)
def test_no_prompt_held_out_is_trained_and_every_answer_held_out_is_taught(
    examples: list[Example], test_size: float, seed: int
) -> None:
    parts = split(examples, test_size=test_size, seed=seed)
    whole(parts, examples)
    assert not keys(parts.held_out) & keys(parts.train)
    assert replies(parts.held_out) <= replies(parts.train)


@QUICK
@given(varied.map(rows_of), sizes, seeds)
def test_normalised_single_questions_held_out_are_asked_nowhere_in_training(
    examples: list[Example], test_size: float, seed: int
) -> None:
    parts = split(examples, test_size=test_size, seed=seed)
    trained = {normalise(example.messages[0].content) for example in parts.train}
    assert not {normalise(example.messages[0].content) for example in parts.held_out} & trained


@QUICK
@given(st.one_of(varied.map(rows_of), chats.map(chats_of)), sizes, seeds)
def test_row_whose_answer_occurs_once_always_stays(examples: list[Example], test_size: float, seed: int) -> None:
    counted = Counter(reply for example in examples for reply in replies([example]))
    parts = split(examples, test_size=test_size, seed=seed)
    once = [example for example in examples if any(counted[reply] == 1 for reply in replies([example]))]
    assert set(once) <= set(parts.train)


@QUICK
@given(varied.map(rows_of), sizes, seeds)
def test_no_more_is_held_out_than_was_asked_for(examples: list[Example], test_size: float, seed: int) -> None:
    assert len(split(examples, test_size=test_size, seed=seed).held_out) <= round(len(examples) * test_size)


@QUICK
@given(st.one_of(pairs.map(rows_of), varied.map(rows_of), chats.map(chats_of)), sizes, seeds, st.booleans())
def test_one_seed_gives_one_split(examples: list[Example], test_size: float, seed: int, by_answer: bool) -> None:
    first, second = (
        split(examples, test_size=test_size, split_by="answer" if by_answer else "phrasing", seed=seed) for _ in "ab"
    )
    assert [*first.held_out] == [*second.held_out]


def test_another_seed_gives_another_split() -> None:
    examples = rows_of([(f"question {number}", f"answer {number % 10}") for number in range(100)])
    assert len({tuple(split(examples, test_size=0.1, seed=seed).held_out) for seed in range(5)}) > 1


def test_file_with_several_phrasings_of_each_answer_holds_out_the_fraction_asked_for() -> None:
    examples = rows_of([(f"question {number}", f"answer {number % 10}") for number in range(100)])
    parts = split(examples, test_size=0.1)
    whole(parts, examples)
    assert len(parts.held_out) == 10
    assert "10 of 100" in parts.reason


def test_two_wordings_that_normalise_alike_go_together() -> None:
    pairs = [(f"question {number}", f"answer {number % 5}") for number in range(40)]
    alike = [(f"QUESTION  {number} ?", f"answer {number % 5}") for number in range(40)]
    examples = rows_of([*pairs, *alike])
    for seed in range(5):
        parts = split(examples, test_size=0.2, seed=seed)
        assert len(parts.held_out) == 16
        assert not keys(parts.held_out) & keys(parts.train)


@pytest.mark.parametrize("split_by", ["phrasing", "answer"])
def test_size_zero_holds_nothing_out(split_by: str) -> None:
    examples = rows_of([(f"question {number}", "yes") for number in range(50)])
    parts = split(examples, test_size=0, split_by="answer" if split_by == "answer" else "phrasing")
    assert parts == Split(examples, (), parts.reason)
    assert "recall" in parts.reason


@pytest.mark.parametrize(
    "examples",
    [
        rows_of([("a", "b")]),
        rows_of([(f"question {number}", f"answer {number}") for number in range(50)]),
        rows_of([("one question", f"answer {number}") for number in range(50)]),
        rows_of([(f"question {number}", "yes") for number in range(4)]),
    ],
    ids=["one row", "every answer once", "one question", "four rows"],
)
def test_too_few_rows_are_all_trained_and_the_reason_says_recall(examples: list[Example]) -> None:
    parts = split(examples, test_size=0.1)
    assert parts == Split(examples, (), parts.reason)
    assert "recall" in parts.reason


# --- answers -------------------------------------------------------------------------------------


@QUICK
@given(st.one_of(pairs.map(rows_of), varied.map(rows_of), chats.map(chats_of)), sizes, seeds)
def test_by_answer_no_answer_and_no_prompt_held_out_is_trained(
    examples: list[Example], test_size: float, seed: int
) -> None:
    parts = split(examples, test_size=test_size, split_by="answer", seed=seed)
    whole(parts, examples)
    assert not replies(parts.held_out) & replies(parts.train)
    assert not keys(parts.held_out) & keys(parts.train)


def test_by_answer_a_chat_that_shares_one_of_its_answers_with_another_is_not_parted_from_it() -> None:
    short = [[(f"question {number}", "yes")] for number in range(10)]
    long = [[(f"question {number}", "yes"), (f"and {number}?", "no")] for number in range(10, 20)]
    other = [[(f"question {number}", f"answer {number}")] for number in range(20, 40)]
    examples = chats_of([*short, *long, *other])
    for seed in range(10):
        parts = split(examples, test_size=0.3, split_by="answer", seed=seed)
        assert not replies(parts.held_out) & replies(parts.train)


@pytest.mark.parametrize("test_size", [0.5, 0.75, 0.9, 0.99])
def test_by_answer_something_is_always_left_to_train_on(test_size: float) -> None:
    examples = rows_of([(f"question {number}", f"answer {number}") for number in range(4)])
    whole(split(examples, test_size=test_size, split_by="answer"), examples)


# --- text ----------------------------------------------------------------------------------------


@QUICK
@given(st.text(min_size=1, max_size=200), sizes)
def test_end_of_a_single_text_is_held_out_and_no_character_is_lost(text: str, test_size: float) -> None:
    assume(text.strip())
    parts = split(texts_of(text), test_size=test_size)
    pieces = [example.messages[0].content for example in (*parts.train, *parts.held_out)]
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces)
    if parts.held_out:
        assert len(pieces[1]) == pytest.approx(len(text) * test_size, abs=1)
        assert parts.held_out[0].source == Source("book.txt", 1 + pieces[0].count("\n"))
    else:
        assert parts.train == texts_of(text)


def test_single_text_is_cut_at_the_end_with_the_line_of_the_cut() -> None:
    text = "".join(f"line {number}\n" for number in range(1, 101))
    parts = split(texts_of(text), test_size=0.1)
    (head,), (tail,) = parts.train, parts.held_out
    assert head.messages[0].content + tail.messages[0].content == text
    assert head.source.line == 1
    line = tail.source.line
    assert line is not None
    assert text.split("\n")[line - 1].endswith(tail.messages[0].content.split("\n")[0])
    assert "10%" in parts.reason


def test_text_too_short_to_cut_is_trained_whole() -> None:
    parts = split(texts_of("ab"), test_size=0.1)
    assert (parts.train, parts.held_out) == (texts_of("ab"), ())


@QUICK
@given(st.integers(2, 40), sizes, seeds)
def test_several_texts_are_held_out_whole_and_one_at_least_is_trained(count: int, test_size: float, seed: int) -> None:
    examples = texts_of(*(f"document {number}" for number in range(count)))
    parts = split(examples, test_size=test_size, seed=seed)
    whole(parts, examples)
    assert len(parts.held_out) == pytest.approx(max(1, count * test_size), abs=1)


def test_order_of_the_rows_in_the_file_decides_nothing_about_leaks() -> None:
    written = [(f"question {number // 2}", f"answer {number % 8}") for number in range(80)]
    for seed in range(5):
        random.Random(seed).shuffle(written)
        parts = split(rows_of(written), test_size=0.2, seed=seed)
        assert not keys(parts.held_out) & keys(parts.train)
        assert replies(parts.held_out) <= replies(parts.train)
