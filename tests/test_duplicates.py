"""Repeats, near-repeats and contradictions: each found where it stands, in parts as in the whole, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from plume.checks.duplicates import Contradictions, NearRepeats, Repeats
from plume.checks.rules import SURVEYS, Batch, Survey
from plume.similar import alike, fold, fold_all, normalise, normalise_all
from plume.types import Example, Finding, Message, Source

QUICK = settings(deadline=None, max_examples=60)
REAL = Path(__file__).parents[2] / "shared" / "data" / "engineer_qa.jsonl"


def rows_of(pairs: Sequence[tuple[str, str]], first: int = 1) -> list[Example]:
    return [
        Example((Message("user", asked), Message("assistant", told)), Source("rows.jsonl", line))
        for line, (asked, told) in enumerate(pairs, first)
    ]


def chat(line: int, *said: str) -> Example:
    roles = ("user", "assistant") * len(said)
    messages = [Message(role, text) for role, text in zip(roles, said, strict=False)]  # type: ignore[arg-type]
    return Example(tuple(messages), Source("rows.jsonl", line))


def surveyed(
    kind: type[Survey], examples: Sequence[Example], cuts: Sequence[int] = (), batch: int = 3
) -> list[Finding]:
    """Findings of one survey, the rows seen in parts that begin at the cuts."""
    parts = []
    for low, high in zip([0, *cuts], [*cuts, len(examples)], strict=True):
        part = kind()
        for start in range(low, high, batch):
            part.see(Batch("rows.jsonl", examples[start : min(start + batch, high)]))
        parts.append(part)
    for part in parts[1:]:
        parts[0].merge(part)
    return list(parts[0].findings())


def lines(findings: Sequence[Finding]) -> list[tuple[int | None, list[int | None]]]:
    return [(finding.source.line, [other.line for other in finding.related]) for finding in findings]


def near(*pairs: tuple[str, str]) -> list[tuple[int | None, list[int | None]]]:
    return lines(surveyed(NearRepeats, rows_of(pairs)))


prompts = st.sampled_from(
    ["Where is the tower?", "where is the  tower", "Wher is the tower?", "Where is the tower", "Where is Ada?",
     "Where is Ida?", "Who keeps it?", "Who kept it?", "Qui garde la clé ?", "Qui garde la cle ?", "In 1999?",
     "In 1998?"]
)  # fmt: skip
answers = st.sampled_from(["Ada", "ada.", "the tower", '{"a": 1, "b": 2}', '{"b": "2", "a": 1}'])
pairs = st.lists(st.tuples(prompts, answers), min_size=1, max_size=30)


@pytest.mark.parametrize("kind", [Repeats, NearRepeats, Contradictions])
@QUICK
@given(written=pairs, share=st.floats(0, 1), batch=st.integers(1, 7))
def test_parts_of_a_file_find_what_the_whole_finds(
    kind: type[Survey], written: list[tuple[str, str]], share: float, batch: int
) -> None:
    examples = rows_of(written)
    cut = round(share * len(examples))
    assert surveyed(kind, examples, [cut], batch) == surveyed(kind, examples, batch=100)


@pytest.mark.parametrize("kind", [Repeats, NearRepeats, Contradictions])
def test_surveys_are_registered_and_find_nothing_in_no_rows_or_in_text(kind: type[Survey]) -> None:
    assert [kind] in SURVEYS.values()
    assert surveyed(kind, []) == []
    assert surveyed(kind, [Example((Message("assistant", "Once upon a time."),), Source("book.txt", 1))]) == []


# --- D201 ----------------------------------------------------------------------------------------


@QUICK
@given(pairs)
def test_every_later_repeat_names_the_first_row(written: list[tuple[str, str]]) -> None:
    expected = [(n + 1, [written.index(pair) + 1]) for n, pair in enumerate(written) if pair in written[:n]]
    assert lines(surveyed(Repeats, rows_of(written))) == expected


def test_repeat_says_which_line_it_repeats() -> None:
    (finding,) = surveyed(Repeats, rows_of([("q", "a"), ("r", "a"), ("q", "a")]))
    assert (finding.code, finding.severity, str(finding.source)) == ("D201", "warning", "rows.jsonl:3")
    assert finding.message == "the row repeats line 1 word for word"


def test_repeated_text_is_a_repeat() -> None:
    texts = [Example((Message("assistant", "Once."),), Source("book.txt", line)) for line in (1, 3)]
    assert lines(surveyed(Repeats, texts)) == [(3, [1])]


# --- D203 ----------------------------------------------------------------------------------------


@QUICK
@given(pairs)
def test_every_new_answer_to_a_known_question_names_the_earlier_ones(written: list[tuple[str, str]]) -> None:
    known: dict[str, dict[str, int]] = {}
    expected = []
    for line, (asked, told) in enumerate(written, 1):
        earlier = known.setdefault(normalise(asked), {})
        if earlier and told not in earlier:
            expected.append((line, list(earlier.values())[:5]))
        earlier.setdefault(told, line)
    assert lines(surveyed(Contradictions, rows_of(written))) == expected


@pytest.mark.parametrize(
    ("one", "other", "form"),
    [
        ("At six.", "at  six", True),
        ('{"age": 50, "name": "Bo"}', '{"name": "Bo", "age": "50"}', True),
        ('["a", "b"]', '["b", "a"]', False),
        ('{"a": 1, "b": 2}', '{"a": 2, "b": 1}', False),
        ("-5", "5", False),
        ("true", '{"a": ', False),
    ],
)
def test_contradiction_says_when_answers_differ_in_form_only(one: str, other: str, form: bool) -> None:
    (finding,) = surveyed(Contradictions, rows_of([("How old?", one), ("how old", other)]))
    assert (finding.code, finding.severity) == ("D203", "error")
    assert ("differ only in form" in finding.message) is form
    assert ("one form" in finding.hint) is form


def test_answers_in_nfc_and_nfd_are_one() -> None:
    assert surveyed(Contradictions, rows_of([("Quand ?", "l’e\u0301te\u0301"), ("quand", "l’été")])) == []


def test_every_reply_counts_with_its_history() -> None:
    rows = [chat(1, "Hi", "Yes?", "How old?", "50"), chat(2, "Hi", "Yes?", "How old?", "51"), chat(3, "How old?", "9")]
    assert lines(surveyed(Contradictions, rows)) == [(2, [1])]


# --- D202 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is the tower?", "where is the  tower"),
        ("Où est « la tour » ?", "ou est la tour"),
        ("Où est l’été ?", "Où est l'e\u0301te\u0301?"),
        ("Where is the tower?", "Wher is the tower?"),
        ("Hwo old is Ada?", "How old is Ada?"),
        ("What si the age of Bo?", "What is the age of Bo?"),
        ("What is the capitol of France?", "What is the capital of France?"),
        ("What is the heigth of the tower?", "What is the height of the tower?"),
        ("Tell me wher the tower is", "Tell me where the towr is"),
        ("Send me an e-mail now", "send me an email, now"),
        ("Quelle est la hauteur du phare ?", "Quelle est la hauter du phare ?"),
    ],
)
def test_prompts_that_differ_in_spelling_are_near_repeats(one: str, other: str) -> None:
    assert near((one, "30 m"), (other, "30 m")) == [(2, [1])]
    assert near((one, "30 m"), (other, "31 m")) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who is Renald these days?", "Who is Ronald these days?"),
        ("Renald works where today?", "Ronald works where today?"),
        ("How far is it in 1998?", "How far is it in 1999?"),
        ("What is 1.5 plus three?", "What is 15 plus three?"),
        ("What is -5 plus three?", "What is 5 plus three?"),
        ("Combien font six pommes ?", "Combien font dix pommes ?"),
        ("What is the meaning of C here?", "What is the meaning of C++ here?"),
        ("When does it open today?", "Where does it open today?"),
        ("Is it legal to fish here?", "Is it illegal to fish here?"),
        ("Can I fish here now?", "Can't I fish here now?"),
        ("Is it open in June?", "Is it open in July?"),
        ("Where is the boat?", "Where is the goat?"),
        ("Where is the tower?", "Tell me where the tower stands."),
        ("cats?", "cast?"),
        ("???", "!!!"),
    ],
)
def test_other_questions_are_no_near_repeats(one: str, other: str) -> None:
    assert near((one, "yes"), (other, "yes")) == []


def test_name_known_from_another_row_is_a_name_in_small_letters_too() -> None:
    written = [("where does renald work", "here"), ("where does ronald work", "here")]
    assert near(*written) == [(2, [1])]
    assert near(*written, ("Does she know Ronald?", "here"), ("Who else is there?", "here")) == []


def test_word_that_fills_a_slot_of_a_template_is_what_the_row_is_about() -> None:
    things = ["bottle", "battle", "lantern", "harbour", "meadow"]
    template = [(f"Is a {thing} a thing?", "yes") for thing in things]
    assert near(*template[:2]) == [(2, [1])]
    assert near(*template) == []


def test_near_repeat_is_no_repeat_and_names_the_first_row() -> None:
    first, second = ("Where is the tower?", "there"), ("where is the tower", "there")
    assert near(first, first, second, second, first) == [(3, [1])]
    (finding,) = surveyed(NearRepeats, rows_of([first, second]))
    assert (finding.code, finding.severity) == ("D202", "warning")
    assert "line 1" in finding.message


def test_conversations_must_agree_in_everything_else() -> None:
    rows = [
        chat(1, "Hi", "Yes?", "How old is she?", "50"),
        chat(2, "hi!", "Yes?", "how old is she", "50"),
        chat(3, "Bye", "Yes?", "how old is she", "50"),
        chat(4, "Hi", "No?", "how old is she", "50"),
    ]
    assert lines(surveyed(NearRepeats, rows)) == [(2, [1])]


words = st.sampled_from("tower towre towr tour harbour harbor when where wher the teh Ada Ida 12 21 été ete".split())  # noqa: SIM905
sentences = st.lists(words, min_size=3, max_size=6).map(" ".join)


@QUICK
@given(st.lists(sentences, min_size=2, max_size=8, unique=True))
def test_search_finds_exactly_the_pairs_that_are_alike(asked: list[str]) -> None:
    """But for names known from other rows and slots, which need more rows than two."""
    for one, other in combinations(asked, 2):
        found = near((one, "yes"), (other, "yes"))
        assert found in ([], [(2, [1])])
        named = {word.lower() for word in f"{one} {other}".split() if word[0].isupper()}
        assume(not named & {word for word in f"{one} {other}".split() if word.islower()})
        assert bool(found) == alike(fold(one), fold(other))
    with_all = {later for later, _ in near(*((sentence, "yes") for sentence in asked))}
    pairs_found = {
        n for m, n in combinations(range(1, len(asked) + 1), 2) if alike(fold(asked[m - 1]), fold(asked[n - 1]))
    }
    assert with_all <= pairs_found


@QUICK
@given(sentences, sentences)
def test_likeness_does_not_depend_on_the_order(one: str, other: str) -> None:
    assert alike(fold(one), fold(other)) == alike(fold(other), fold(one))


@QUICK
@given(sentences, st.integers(0, 5), st.sampled_from(["3", "12", "Nina", "Nino", "deux", "douze", "six", "seize"]),
       st.sampled_from(["3", "12", "Nina", "Nino", "deux", "douze", "six", "seize"]))  # fmt: skip
def test_rows_that_differ_in_a_number_or_a_name_are_never_near(sentence: str, at: int, one: str, other: str) -> None:
    assume(one != other)
    told = sentence.split()
    first, second = ([*told[:at], "told", word, *told[at:]] for word in (one, other))
    assert near((" ".join(first), "yes"), (" ".join(second), "yes")) == []


# --- folding -------------------------------------------------------------------------------------

texts = st.lists(
    st.text(st.sampled_from("aAéÉe\u0301Œßİ .?!:;,-'’«»12\0\1\2\n\u00a0\u200bか\u3099"), max_size=12), max_size=6
)


@QUICK
@given(texts | st.lists(st.text(max_size=20), max_size=6))
def test_texts_are_folded_together_as_they_are_one_by_one(written: list[str]) -> None:
    assert normalise_all(written) == [normalise(text) for text in written]
    assert fold_all(written) == [fold(text) for text in written]


@QUICK
@given(st.text(max_size=40))
def test_case_and_punctuation_at_the_end_fold_away(text: str) -> None:
    assume("\0" not in text and text.upper().casefold() == text.casefold())
    bare = str.maketrans("", "", "\1\2")
    assert fold(text.upper() + " !").translate(bare) == fold(text).translate(bare)


@pytest.mark.skipif(not REAL.exists(), reason="a real user's file that is not part of the repository")
def test_real_file_has_118_repeats_and_3_contradictions() -> None:
    values = [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines() if line.strip()]
    examples = rows_of([(value["prompt"], value["completion"]) for value in values])
    assert len(surveyed(Repeats, examples)) == 118
    assert len(surveyed(Contradictions, examples)) == 3
