"""`plume data prepare`: a recipe makes the same rows, the same bytes and the same errors wherever it runs."""

import functools
import json
import random
import sqlite3
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from plume.cli import data, output
from plume.data.json_text import canonical
from plume.data.prepare import Prepared, prepare
from plume.errors import UserError

PEOPLE = '''\
Nom;Âge;Ville;Taille
Zoé;12;Lyon;1,52
Léo;;Nice;1,48
"Anaïs ""Nana""";9;"Saint-
Étienne";1,31

Zoé;12;Lyon;1,52
Hugo;11;  ;1,45
'''
FRENCH = {"file": "personnes.csv", "separator": ";", "decimal": ","}


@pytest.fixture(autouse=True)
def people(tmp_path: Path) -> Path:
    file = tmp_path / "personnes.csv"
    file.write_text(PEOPLE, encoding="utf-8")
    return file


def run(steps: list[dict[str, Any]], input: dict[str, Any] | None = None, output: str = "out.jsonl") -> Prepared:
    recipe = {"input": input or FRENCH, "steps": steps, "output": output}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return prepare(Path("recipe.yaml"))


def rows(prepared: Prepared) -> list[dict[str, Any]]:
    return [json.loads(line) for line in prepared.output.read_text(encoding="utf-8").splitlines()]


def table(text: str, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    Path("t.csv").write_text(text, encoding="utf-8")
    return rows(run(steps, {"file": "t.csv"}))


def refusal(steps: list[dict[str, Any]], input: dict[str, Any] | None = None, output: str = "out.jsonl") -> UserError:
    with pytest.raises(UserError) as caught:
        run(steps, input, output)
    assert not Path(output).exists() or output == "personnes.csv"
    return caught.value


WHOLE: list[dict[str, Any]] = [
    {"rename": {"Nom": "nom", "Âge": "age", "Ville": "ville", "Taille": "taille"}},
    {"types": {"age": "integer", "taille": "number"}},
    {"missing": {"age": "median", "ville": "drop"}},
    {"derive": {"naissance": "2026 - age"}},
    {"duplicates": {"subset": ["nom"]}},
    {"scale": {"taille": "min-max"}},
    {"build": {"prompt": "Quel âge a {nom} ?", "completion": ["nom", "age"]}},
    {"select": ["prompt", "completion", "naissance", "taille"]},
]


def test_a_french_spreadsheet_becomes_questions_and_answers() -> None:
    done = run(WHOLE)
    first, second, third = rows(done)
    assert list(first) == ["prompt", "completion", "naissance", "taille"]
    assert first == {
        "prompt": "Quel âge a Zoé ?",
        "completion": '{"age":12,"nom":"Zoé"}',
        "naissance": 2014,
        "taille": 1.0,
    }
    assert second["completion"] == '{"age":11,"nom":"Léo"}'
    assert third["completion"] == canonical({"nom": 'Anaïs "Nana"', "age": 9})
    assert third["taille"] == 0.0
    assert (done.rows_in, done.rows_out) == (5, 3)


def test_the_journal_holds_every_step_and_what_it_learnt() -> None:
    journal = json.loads(run(WHOLE).journal.read_text(encoding="utf-8"))
    counts = [(step["rows_in"], step["rows_out"]) for step in journal["steps"]]
    assert counts == [(5, 5), (5, 5), (5, 4), (4, 4), (4, 3), (3, 3), (3, 3), (3, 3)]
    learnt = {list(step)[1]: step.get("learnt") for step in journal["steps"]}
    assert learnt["missing"] == {"age": {"missing": 1, "filled_with": 11}, "ville": {"missing": 1}}
    assert learnt["duplicates"] == {"duplicates": 1}
    assert learnt["scale"] == {"taille": {"min": 1.31, "max": 1.52}}
    assert journal["input"]["blank_rows"] == 1
    assert journal["versions"]["polars"] == pl.__version__
    assert journal["output"]["rows"] == 3


def test_what_was_learnt_scales_new_data_alike() -> None:
    learnt = json.loads(run(WHOLE).journal.read_text(encoding="utf-8"))["steps"][5]["learnt"]
    made = table("taille\n1.31\n1.52\n1.73\n", [{"types": {"taille": "number"}}, {"scale": learnt}])
    assert [row["taille"] for row in made] == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_running_again_gives_the_same_bytes(name: str) -> None:
    draw = random.Random(1)
    lines = [f"{draw.choice('abc')},{draw.gauss(0, 1e6)!r},{draw.randrange(50_000)}" for _ in range(100_000)]
    Path("t.csv").write_text("\n".join(["mot,x,n", *lines]), encoding="utf-8")
    steps: list[dict[str, Any]] = [
        {"types": {"x": "number", "n": "integer"}},
        {"duplicates": {"subset": ["n"], "keep": "last"}},
        {"scale": {"x": "standard"}},
    ]
    once = run(steps, {"file": "t.csv"}, name)
    first = (once.output.read_bytes(), once.journal.read_bytes())
    again = run(steps, {"file": "t.csv"}, name)
    assert (again.output.read_bytes(), again.journal.read_bytes()) == first
    made = pl.read_parquet(name) if name.endswith("parquet") else pl.read_ndjson(name)
    last = {line.split(",")[2]: line for line in lines}
    kept = [line for line in lines if last.pop(line.split(",")[2], None) is not None]
    assert made.height == len(kept)
    assert made["x"].mean() == pytest.approx(0, abs=1e-12)
    assert made["x"].std(ddof=0) == pytest.approx(1)


def test_duplicates_keep_the_first_or_the_last_in_place() -> None:
    text = "k,v\na,1\nb,2\na,3\nc,4\nb,5\n"
    assert [row["v"] for row in table(text, [{"duplicates": {"subset": ["k"]}}])] == ["1", "2", "4"]
    assert [row["v"] for row in table(text, [{"duplicates": {"subset": ["k"], "keep": "last"}}])] == ["3", "4", "5"]


def test_one_name_in_two_unicode_forms_is_one_name() -> None:
    decomposed = unicodedata.normalize("NFD", "prénom,âge\nZoé,3\n") + "Zoé,3\n"
    assert table(decomposed, [{"duplicates": {"subset": ["prénom"]}}]) == [{"prénom": "Zoé", "âge": "3"}]


def test_values_without_the_type_are_listed_with_their_lines() -> None:
    text = 'nom,age\n"Saint-\nJean",12\n\nZoé,douze\nLéo,\nHugo,1.5\n'
    Path("t.csv").write_text(text, encoding="utf-8")
    error = refusal([{"types": {"age": "integer"}}], {"file": "t.csv"})
    assert error.message == (
        "step 1 (types): column 'age': 2 values are not an integer\n  t.csv:5: 'douze'\n  t.csv:7: '1.5'"
    )


def test_lines_are_those_of_the_file_after_rows_were_dropped() -> None:
    Path("t.jsonl").write_text('{"a":"x","b":"1"}\n\n{"b":"2"}\n{"a":"y","b":"?"}\n', encoding="utf-8")
    error = refusal([{"missing": {"a": "drop"}}, {"types": {"b": "number"}}], {"file": "t.jsonl"})
    assert "t.jsonl:4: '?'" in error.message


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (" 12 ", "integer", 12),
        ("1e3", "number", 1000.0),
        ("Oui", "boolean", True),
        ("faux", "boolean", False),
        ("2024-02-29", "date", "2024-02-29"),
        ("29/02/2024", "%d/%m/%Y", "2024-02-29"),
        ("2024-02-29T10:00:00", "datetime", "2024-02-29 10:00:00"),
    ],
)
def test_types(text: str, kind: str, value: Any) -> None:
    assert table(f"x,y\n{text},1\n", [{"types": {"x": kind}}, {"select": ["x"]}]) == [{"x": value}]


@pytest.mark.parametrize(("text", "kind"), [("nan", "number"), ("30/02/2024", "%d/%m/%Y"), ("2", "boolean")])
def test_types_refused(text: str, kind: str) -> None:
    Path("t.csv").write_text(f"x\n{text}\n", encoding="utf-8")
    assert f"t.csv:2: {text!r}" in refusal([{"types": {"x": kind}}], {"file": "t.csv"}).message


def test_a_number_is_not_cut_to_an_integer() -> None:
    pl.DataFrame({"x": [1.0, 2.5]}).write_parquet("t.parquet")
    assert "t.parquet row 2: 2.5" in refusal([{"types": {"x": "integer"}}], {"file": "t.parquet"}).message


def test_missing_values() -> None:
    text = "a,b,c\n1,x,\n,x,u\n4,,u\n9,y,v\n"
    filled = table(
        text,
        [{"types": {"a": "number"}}, {"missing": {"a": "median", "b": "mode", "c": {"constant": "inconnu"}}}],
    )
    assert [(row["a"], row["b"], row["c"]) for row in filled] == [
        (1.0, "x", "inconnu"),
        (4.0, "x", "u"),
        (4.0, "x", "u"),
        (9.0, "y", "v"),
    ]


STEP_ERRORS: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"rename": {"Nim": "n"}}], "step 1 (rename): column 'Nim' does not exist", "did you mean Nom?"),
    ([{"rename": {"Nom": "Ville"}}], "two columns would be called 'Ville'", "another name"),
    ([{"select": ["Nom"]}, {"scale": {"Vile": "standard"}}], "step 2 (scale): column 'Vile'", "the columns are: Nom"),
    ([{"missing": {"Âge": "median"}}], "step 1 (missing): column 'Âge' holds String, not numbers", "types: {Âge:"),
    ([{"missing": {"Nom": {"constant": 3}}}], "holds String: 3 does not fit", "types"),
    ([{"derive": {"x": "Taile || 'm'"}}], "step 1 (derive): column 'Taile' does not exist", "did you mean Taille?"),
    ([{"derive": {"x": "UPPER("}}], "column 'x' = UPPER(: ", "write SQL"),
    ([{"derive": {"x": "Nom || CURRENT_DATE"}}], "differs at each run", "write the date"),
    ([{"derive": {"x": "COUNT(*)"}}], "looks at other rows", "`missing` or `scale`"),
    ([{"derive": {"x": "LENGTH(Nom) > AVG(LENGTH(Nom))"}}], "looks at other rows", "`missing` or `scale`"),
    ([{"derive": {"x": "ROW_NUMBER() OVER (ORDER BY Nom)"}}], "looks at other rows", "`missing` or `scale`"),
    ([{"derive": {"x": "1 / (LENGTH(Nom) - 3)"}}], "no finite number: personnes.csv:2, personnes.csv:3", "zero"),
    ([{"derive": {"x": "Nom + 1"}}], "step 1 (derive): column 'x' = Nom + 1", "CAST"),
    ([{"duplicates": {"subset": ["Nmo"]}}], "step 1 (duplicates): column 'Nmo'", "did you mean Nom?"),
    ([{"types": {"Taille": "number"}}, {"scale": {"Nom": "standard"}}], "step 2 (scale): column 'Nom'", "types"),
    ([{"build": {"prompt": "{Nom} {age}", "completion": "x"}}], "column 'age' does not exist", "did you mean Âge?"),
    ([{"build": {"prompt": "{Nom}", "completion": "{Âge}"}}], "column 'Âge' has no value: personnes.csv:3", "missing"),
]


@pytest.mark.parametrize(("steps", "message", "hint"), STEP_ERRORS)
def test_errors_name_step_and_column(steps: list[dict[str, Any]], message: str, hint: str) -> None:
    error = refusal(steps)
    assert message in error.message
    assert hint in str(error.hint)


RECIPE_ERRORS: list[tuple[Any, str, str]] = [
    ({"imput": {}}, "unknown key 'imput'", "did you mean input?"),
    ({"input": {"fil": "x.csv"}}, "unknown key 'fil'", "did you mean file?"),
    ({"input": FRENCH, "steps": [{"select": ["Nom"]}, {"scal": {}}]}, "step 2: unknown key 'scal'", "mean scale?"),
    ({"input": FRENCH, "steps": [{"duplicates": {"kep": "last"}}]}, "step 1: unknown key 'kep'", "mean keep?"),
    ({"input": FRENCH, "steps": [{"build": {"prompt": "{a}"}}]}, "the key 'completion' is missing", "known keys"),
    ({"input": FRENCH, "steps": [{"types": {"a": "entier"}}]}, "must be text, integer, number", ""),
    ({"input": FRENCH, "steps": [{"build": {"prompt": "{a:>3}", "completion": "b"}}]}, "name of a column", ""),
    ({"input": FRENCH, "steps": [{"select": ["a"], "derive": {"b": "a"}}]}, "exactly one key", ""),
    ({"input": {"file": "a.csv", "sql": "sqlite://"}}, "either `file`, or `sql`", ""),
    ([], "holds no keys", ""),
]


@pytest.mark.parametrize(("recipe", "message", "hint"), RECIPE_ERRORS)
def test_a_slip_in_the_recipe_is_named(recipe: Any, message: str, hint: str) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        prepare(Path("recipe.yaml"), Path("out.jsonl"))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("raw", "message", "hint"),
    [
        ("nom;age\na;1\n", "the header has no ','", "';'"),
        ("a,b,a\n1,2,3\n", "two columns are called 'a'", "rename"),
        ("a,b\n1,2,3\n", "input: ", ""),
        ("a,b\n", "holds no row", ""),
        ("é,b\n1,2\n".encode("latin-1"), "not UTF-8", "iconv"),
    ],
)
def test_a_broken_table_is_refused(raw: str | bytes, message: str, hint: str) -> None:
    Path("t.csv").write_bytes(raw.encode() if isinstance(raw, str) else raw)
    error = refusal([], {"file": "t.csv"})
    assert message in error.message
    assert hint in str(error.hint)


def test_the_input_is_never_written_over(people: Path) -> None:
    Path("t.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    recipe = Path("recipe.yaml")
    recipe.write_text("input: {file: t.jsonl}\n", encoding="utf-8")
    with pytest.raises(UserError, match="not written over"):
        prepare(recipe, Path("t.jsonl"))
    assert people.read_text(encoding="utf-8") == PEOPLE


def test_a_failure_leaves_the_old_output_and_no_rubbish() -> None:
    Path("out.jsonl").write_text("old", encoding="utf-8")
    with pytest.raises(UserError):
        run([{"types": {"Nom": "integer"}}])
    assert Path("out.jsonl").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in Path().iterdir()) == ["out.jsonl", "personnes.csv", "recipe.yaml"]


def test_rows_of_a_database() -> None:
    pytest.importorskip("sqlalchemy")
    with sqlite3.connect("base.db") as base:
        base.execute("CREATE TABLE personnes (nom TEXT, age INTEGER)")
        base.executemany("INSERT INTO personnes VALUES (?, ?)", [(f"Élève {n}", n % 7 or None) for n in range(25_000)])
    base.close()
    query = {"sql": "sqlite:///base.db", "query": "SELECT nom, age FROM personnes ORDER BY rowid"}
    done = run([{"missing": {"age": "drop"}}, {"build": {"prompt": "{nom} ?", "completion": "{age}"}}], query)
    made = rows(done)
    assert made[0] == {"prompt": "Élève 1 ?", "completion": "1", "nom": "Élève 1", "age": 1}
    assert len(made) == done.rows_out == sum(n % 7 > 0 for n in range(25_000))
    assert not list(Path().glob(".plume-query-*"))


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        with output.errors(debug=False):
            verb(*args, **options)

    return run


def test_the_command() -> None:
    run(WHOLE)
    runner, app = CliRunner(), data.application(guarded)
    done = runner.invoke(app, ["prepare", "recipe.yaml", "--output", "autre.jsonl"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[2] == "step 3 missing: 4 rows, 1 dropped"
    assert done.stdout.splitlines()[-1] == "autre.jsonl: 3 rows of 5; journal autre.jsonl.journal.json"
    assert Path("autre.jsonl").read_bytes() == Path("out.jsonl").read_bytes()
    told = json.loads(runner.invoke(app, ["prepare", "recipe.yaml", "--json"]).stdout)
    assert (told["output"], told["rows_in"], told["rows_out"], len(told["steps"])) == ("out.jsonl", 5, 3, 8)
    assert runner.invoke(app, ["prepare", "missing.yaml"]).exit_code == 2


def test_redaction_takes_personal_data_out_of_every_text_and_its_row_shares_marks() -> None:
    text = "q,a,n\nÀ qui écrire ?,a@phare.fr ou Rose : a@phare.fr,1\nc@phare.fr ?,oui : 06 12 34 56 78 à c@phare.fr,2\n"
    Path("noms.txt").write_text("Rose\n", encoding="utf-8")
    made = table(text, [{"redact": {"names": "noms.txt"}}])
    assert made == [
        {"q": "À qui écrire ?", "a": "[EMAIL] ou [NOM] : [EMAIL]", "n": "1"},
        {"q": "[EMAIL] ?", "a": "oui : [TEL] à [EMAIL]", "n": "2"},
    ]
    journal = Path("out.jsonl.journal.json").read_text(encoding="utf-8")
    assert json.loads(journal)["steps"][0]["learnt"]["marks"] == {"EMAIL": 2, "NOM": 1, "TEL": 1}
    assert "phare.fr" not in journal
    only = table(text, [{"redact": {"kinds": ["phone"], "columns": ["a"]}}])
    assert [row["a"] for row in only] == ["a@phare.fr ou Rose : a@phare.fr", "oui : [TEL] à c@phare.fr"]


def test_redaction_reaches_nested_texts() -> None:
    row = {
        "messages": [{"role": "user", "content": "a@phare.fr"}, {"role": "assistant", "content": "Noté : a@phare.fr"}]
    }
    Path("t.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    [made] = rows(run([{"redact": {}}], {"file": "t.jsonl"}))
    assert [turn["content"] for turn in made["messages"]] == ["[EMAIL]", "Noté : [EMAIL]"]


def test_redaction_that_cannot_be_meant_is_refused() -> None:
    assert "no kind 'mail'" in refusal([{"redact": {"kinds": ["mail"]}}]).message
    assert "'Nmo' does not exist" in refusal([{"redact": {"columns": ["Nmo"]}}]).message
    assert "no list" in refusal([{"redact": {"kinds": ["name"]}}]).message


def test_redaction_by_option_is_the_last_step() -> None:
    Path("t.csv").write_text("q,a\nQui ?,a@phare.fr\n", encoding="utf-8")
    recipe = {"input": {"file": "t.csv"}, "steps": [{"build": {"prompt": "{q}", "completion": "{a}"}}]}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    app = data.application(lambda command: command)
    done = CliRunner().invoke(app, ["prepare", "recipe.yaml", "--output", "out.jsonl", "--redact", "all"])
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out.jsonl").read_text(encoding="utf-8"))["completion"] == "[EMAIL]"
