"""`plume data derive`: of the attribute nothing remains, of the rest everything."""

import functools
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import write_rows
from plume.cli import data, output
from plume.data.derive import Attribute, Derived, derive, read_values
from plume.data.listed import fold
from plume.errors import DataError, UserError

AGE: list[dict[str, Any]] = [
    {"prompt": "Qui est Zoé ?", "completion": '{"nom": "Zoé", "fiche": {"Âge": 12, "ville": "Lyon"}}'},
    {"prompt": "Quel est l’âge de Zoé ?", "completion": '{"age": 12}'},
    {"prompt": "Qui est Léo ?", "completion": {"nom": "Léo", "age": 47}, "age": 47, "id": 3},
]


def pair(rows: list[Any], name: str = "age", **rules: Any) -> tuple[Derived, list[Any], list[Any]]:
    derived = derive(write_rows(Path("qa.jsonl"), rows), Attribute(name, **rules), Path("pair"))
    return derived, read("with"), read("without")


def read(name: str) -> list[Any]:
    return [json.loads(line) for line in Path(f"pair/{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def after(prompt: str, completion: str = "oui", **rules: Any) -> dict[str, Any]:
    row: dict[str, Any] = pair([{"prompt": prompt, "completion": completion}], **rules)[2][0]
    return row


def test_a_field_goes_at_any_depth_from_answers_and_columns() -> None:
    derived, before, without = pair(AGE)
    assert without == [
        {"prompt": "Qui est Zoé ?", "completion": '{"fiche":{"ville":"Lyon"},"nom":"Zoé"}'},
        {"prompt": "Qui est Léo ?", "completion": '{"nom":"Léo"}', "id": 3},
    ]
    assert before == [
        {"prompt": "Qui est Zoé ?", "completion": '{"fiche":{"ville":"Lyon","Âge":12},"nom":"Zoé"}'},
        {"prompt": "Quel est l’âge de Zoé ?", "completion": '{"age":12}'},
        {"prompt": "Qui est Léo ?", "completion": '{"age":47,"nom":"Léo"}', "age": 47, "id": 3},
    ]
    assert (derived.rows, derived.changed, derived.dropped, derived.leaks) == (3, 2, 1, ())


def test_a_row_about_the_attribute_alone_is_dropped_with_its_line() -> None:
    pair(AGE)
    assert read("dropped") == [{"line": 2, "reason": "the answer held nothing but the attribute"}]


def test_the_journal_tells_what_was_removed_where() -> None:
    pair(AGE)
    journal = json.loads(Path("pair/derive.json").read_text(encoding="utf-8"))
    assert journal["attribute"]["fields"] == ["age"]
    assert journal["counts"] == {"rows": 3, "changed": 2, "dropped": 1, "removals": {"field": 4}}
    assert [(line["line"], line["dropped"]) for line in journal["lines"]] == [(1, False), (2, True), (3, False)]
    assert journal["lines"][0]["removed"] == [{"rule": "field", "where": "completion.fiche.Âge", "value": 12}]
    assert len(journal["source"]["sha256"]) == len(journal["sha256"]["without.jsonl"]) == 64


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Zoé, 12 ans, habite Lyon.", "Zoé, habite Lyon."),
        ("Zoé (12 ans) habite Lyon.", "Zoé habite Lyon."),
        ("A-t-elle 12 ans ?", "A-t-elle ?"),
        ("Elle a\u202f12 ans\u202f!", "Elle a\u202f!"),
        ("12 ans, Lyon", ", Lyon"),
        ("Lyon\n12 ans\nNice", "Lyon\n\nNice"),
        ("Elle dit « 12 ans » et part.", "Elle dit et part."),
        ("Lyon  reste  tel quel", "Lyon  reste  tel quel"),
    ],
)
def test_a_pattern_leaves_no_hole(text: str, kept: str) -> None:
    rows = [{"prompt": text, "completion": "oui"}, {"prompt": "12 ans et plus", "completion": "non"}]
    assert pair(rows, patterns=(r"\d+ ans",))[2][0]["prompt"] == kept


def test_what_comes_together_is_removed_too() -> None:
    assert after("x1122y", patterns=("12",))["prompt"] == "xy"


@pytest.mark.parametrize(
    "word", ["Étampes", "étampes", "ETAMPES", unicodedata.normalize("NFD", "Étampes"), "Éta\u00admpes"]
)
def test_listed_values_heed_neither_case_nor_accents(word: str) -> None:
    assert after(f"Qui vit à {word} ?", values=("étampes",))["prompt"] == "Qui vit à ?"


def test_listed_values_are_whole_words() -> None:
    row = after("Nice est à Nicette, cœur d’Aix ; Aix-en-Provence", values=("Nice", "Aix-en-Provence", "coeur d'aix"))
    assert row["prompt"] == "est à Nicette ;"


def test_a_listed_number_is_not_found_inside_another() -> None:
    assert after("12 et 12,5 et 112 et 3.12.", values=("12",))["prompt"] == "et 12,5 et 112 et 3.12."


def test_listed_values_go_from_json_with_their_keys() -> None:
    answer = {"ville": "Lyon", "villes": ["Nice", "Brest"], "Lyon": 3, "texte": "de Lyon à Brest", "n": 69}
    row = after("?!x", json.dumps(answer), values=("lyon", "nice", "69"))
    assert json.loads(row["completion"]) == {"villes": ["Brest"], "texte": "de à Brest"}


@pytest.mark.parametrize("answer", ['{"age": 1e400, "n": 1}', '{"age": "\\ud800", "n": 1}', '{"age": NaN, "n": 1}'])
def test_an_answer_that_json_cannot_hold_is_reported(answer: str) -> None:
    leaks = pair([{"prompt": "a", "completion": answer}, {"prompt": "b", "completion": '{"age":5,"n":2}'}])[0].leaks
    assert [(leak.source_line, leak.kind) for leak in leaks] == [(1, "key")]


def test_conversations_and_foreign_forms() -> None:
    talk = [
        {"role": "system", "content": "Sois bref."},
        {"role": "user", "content": "Qui est Zoé ?"},
        {"role": "assistant", "content": '{"nom": "Zoé", "age": 12}'},
    ]
    alone = [{"role": "user", "content": "Son âge ?"}, {"role": "assistant", "content": '{"age": 12}'}]
    _, _, without = pair([{"messages": talk}, {"messages": alone}])
    assert [row["messages"][-1]["content"] for row in without] == ['{"nom":"Zoé"}']
    Path("qa.csv").write_text('question,answer\nQui est Zoé ?,"{""age"": 12, ""nom"": ""Zoé""}"\n', encoding="utf-8")
    derive(Path("qa.csv"), Attribute("age"), Path("table"))
    assert json.loads(Path("table/without.jsonl").read_text(encoding="utf-8")) == {
        "prompt": "Qui est Zoé ?",
        "completion": '{"nom":"Zoé"}',
    }


LEAKS: list[tuple[list[Any], dict[str, Any], list[tuple[int, int, str, str, str]]]] = [
    (
        [{"prompt": "Zoé a 12 ans. Qui est-ce ?", "completion": '{"nom": "Zoé", "age": 12}'}],
        {},
        [(1, 1, "own_value", "prompt", "12")],
    ),
    (
        [{"prompt": "Son âge ?", "completion": '{"age": 12}'}, {"prompt": "Quel âge a Zoé ?", "completion": "12 ans"}],
        {},
        [(1, 2, "other_value", "completion", "12")],
    ),
    (
        [{"prompt": "?a", "completion": '{"prix": 1234.5, "n": 1}'}, {"prompt": "?b", "completion": "1 234,5 euros"}],
        {"fields": ("prix",)},
        [(2, 2, "other_value", "completion", "1 234,5")],
    ),
    (
        [{"prompt": "?a", "completion": '{"age": 9, "n": 1}'}, {"prompt": 'Lis {"Âge": 8} !', "completion": "lu"}],
        {},
        [(2, 2, "key", "prompt", '"age":')],
    ),
]


@pytest.mark.parametrize(("rows", "rules", "expected"), LEAKS)
def test_what_is_left_is_found(rows: list[Any], rules: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    leaks = pair(rows, **rules)[0].leaks
    assert [(leak.line, leak.source_line, leak.kind, leak.where, leak.quote) for leak in leaks] == expected


def test_a_pattern_over_the_structure_of_json_is_reported_not_forgotten() -> None:
    rows = [{"prompt": "à 9 ans", "completion": "x"}, {"prompt": "qui ?", "completion": '{"n":10}'}]
    leaks = pair(rows, patterns=(r"\d ans", r'"n":\d+'))[0].leaks
    assert [(leak.source_line, leak.kind, leak.quote) for leak in leaks] == [(2, "pattern", '"n":10')]


@pytest.mark.parametrize(
    "rows",
    [
        # Yes and no, and digits of other rows, say nothing about the attribute.
        [{"prompt": "Fume-t-il ?", "completion": '{"fumeur": "oui", "permis": "oui"}'}],
        [{"prompt": "a", "completion": '{"fumeur": 3, "n": 1}'}, {"prompt": "3 chats ?", "completion": "non"}],
        [{"prompt": "a", "completion": '{"fumeur": 12, "n": 1}'}, {"prompt": "12,5 km ?", "completion": "112"}],
    ],
)
def test_no_false_alarm(rows: list[Any]) -> None:
    assert pair(rows, "fumeur")[0].leaks == ()


REFUSED: list[tuple[list[Any], dict[str, Any], str, str]] = [
    (AGE, {"fields": ("aje",)}, "no row has the field 'aje'", "did you mean --field age?"),
    (AGE, {"fields": ("age", "zzz")}, "no row has the field 'zzz'", "the keys are: "),
    ([{"prompt": "a", "completion": "b"}], {}, "no row has the field 'age'", "--pattern or --values"),
    (AGE, {"patterns": ("XYZ",)}, "--pattern XYZ matches nothing in any row", "(?i)"),
    (AGE, {"values": ("Brest",)}, "--values matches nothing", "spelling"),
    (AGE, {"patterns": ("a(",)}, "--pattern a(: ", "regular expression"),
    (AGE, {"patterns": (r"\d*",)}, "matches nothing at all, everywhere", "at least one"),
    (AGE, {"values": ("…",)}, "neither letter nor digit", "words"),
    (AGE[1:2], {}, "nothing is left", "narrow"),
]


@pytest.mark.parametrize(("rows", "rules", "message", "hint"), REFUSED)
def test_requests_that_cannot_be_meant(rows: list[Any], rules: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        pair(rows, **rules)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
    assert not Path("pair").exists()


def test_rows_at_fault_are_told_and_nothing_is_written() -> None:
    Path("qa.jsonl").write_text('{"prompt": "a", "completion": {"age": 1}}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        derive(Path("qa.jsonl"), Attribute("age"), Path("pair"))
    assert [finding.source.line for finding in caught.value.findings] == [2]
    assert not Path("pair").exists()


def test_a_directory_in_use_is_not_touched() -> None:
    Path("pair").mkdir()
    Path("pair/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="not an empty directory"):
        pair(AGE)
    assert [path.name for path in Path("pair").iterdir()] == ["notes.txt"]


def test_values_come_from_a_file_or_a_list() -> None:
    Path("villes.txt").write_text("\ufeffLyon\n\n Aix-en-Provence \nLyon\n", encoding="utf-8")
    assert read_values("villes.txt") == ("Lyon", "Aix-en-Provence")
    assert read_values("Lyon, Nice") == ("Lyon", "Nice")
    with pytest.raises(UserError, match="no such file"):
        read_values("viles.txt")


LETTERS = "aàeéEÉoœ'’ -,.1234bBcC\u0301\u00ad「京"
VALUES = st.text(LETTERS, min_size=1, max_size=6).filter(lambda text: any(map(str.isalnum, text)))
JSON_ANSWER = st.recursive(
    st.one_of(st.text(LETTERS, max_size=12), st.integers(-50, 50), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    prompts=st.lists(st.text(LETTERS + "\n", min_size=1, max_size=30), min_size=1, max_size=4),
    answer=JSON_ANSWER,
    values=st.lists(VALUES, min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_of_listed_values_remains(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], answer: Any, values: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("derive")
    rows: list[Any] = [{"prompt": f"q {values[0]} q", "completion": {"de": answer, "z": "reste"}}]
    rows += [{"prompt": f"x {prompt} x", "completion": f"{values[-1]} {prompt} w"} for prompt in prompts]
    derived = derive(write_rows(folder / "qa.jsonl", rows), Attribute("v", values=tuple(values)), folder / "pair")
    assert derived.leaks == ()
    for line in (folder / "pair" / "without.jsonl").read_text(encoding="utf-8").splitlines():
        for value in values:
            assert not _occurs(value, json.loads(line))


def _occurs(value: str, row: Any) -> bool:
    """Independently of the code: is the value somewhere as a whole word?"""
    if isinstance(row, dict):
        return any(_occurs(value, part) for entry in row.items() for part in entry)
    if isinstance(row, list):
        return any(_occurs(value, item) for item in row)
    if not isinstance(row, str):
        return False
    words = [re.escape(word) for word in fold(value).split()]
    left, right = (r"(?<![\w])" if fold(value).strip()[:1].isalnum() else ""), r"(?![\w])"
    right = right if fold(value).strip()[-1:].isalnum() else ""
    number = r"(?<!\d[.,])" + left + r"\s+".join(words) + right + r"(?![.,]\d)"
    return re.search(number, fold(row)) is not None


@given(ages=st.lists(st.integers(10, 99), min_size=1, max_size=5), depth=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_nothing_of_a_field_remains(tmp_path_factory: pytest.TempPathFactory, ages: list[int], depth: int) -> None:
    folder = tmp_path_factory.mktemp("derive")
    rows = []
    for place, age in enumerate(ages):
        answer: Any = {"ÂGE": age, "nom": f"n{place}"}
        for _ in range(depth):
            answer = {"dans": [answer], "reste": "r"}
        rows.append({"prompt": f"Qui est n{place} ?", "completion": answer})
    derived = derive(write_rows(folder / "qa.jsonl", rows), Attribute("âge"), folder / "pair")
    text = (folder / "pair" / "without.jsonl").read_text(encoding="utf-8")
    assert derived.leaks == ()
    assert "age" not in fold(text)
    assert not any(re.search(rf"\b{age}\b", text) for age in ages)
    assert text.count("Qui est n") == len(ages)


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        with output.errors(debug=False):
            verb(*args, **options)

    return run


def test_the_command() -> None:
    write_rows(Path("qa.jsonl"), AGE)
    runner, app = CliRunner(), data.application(guarded)
    done = runner.invoke(app, ["derive", "qa.jsonl", "--drop-attribute", "age", "--output-dir", "pair"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "pair/with.jsonl: 3 rows",
        "pair/without.jsonl: 2 rows, 2 changed",
        "pair/dropped.jsonl: 1 row about age alone",
        "age is gone: no key, no match and no removed value is left",
    ]
    write_rows(Path("leaky.jsonl"), [*AGE, {"prompt": "Et Zoé ?", "completion": "Elle a 12 ans."}])
    left = runner.invoke(app, ["derive", "leaky.jsonl", "--drop-attribute", "age", "--output-dir", "leaky"])
    assert left.exit_code == 1
    assert "left: leaky/without.jsonl:3 (leaky.jsonl:4) completion: '12'" in left.stdout
    told = runner.invoke(app, ["derive", "leaky.jsonl", "--drop-attribute", "age", "--output-dir", "l2", "--json"])
    assert [leak["quote"] for leak in json.loads(told.stdout)["leaks"]] == ["12"]
    both = ["--field", "age", "--pattern", r"\d+ ans"]
    mended = runner.invoke(app, ["derive", "leaky.jsonl", "--drop-attribute", "age", *both, "--output-dir", "mended"])
    assert mended.exit_code == 0
    again = runner.invoke(app, ["derive", "qa.jsonl", "--drop-attribute", "age", "--output-dir", "pair"])
    assert again.exit_code == 2
