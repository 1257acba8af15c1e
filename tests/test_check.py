"""`plume check` as a whole: selection, exceptions, outputs, parts, the kinds of thing it looks at."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import plume
from plume.checks.catalogue import CATALOGUE, FAMILIES
from plume.checks.parallel import examining
from plume.checks.rules import ROW_RULES, SURVEYS
from plume.checks.run import LISTED, Examined
from plume.checks.selection import selection
from plume.cli.excerpt import excerpts
from plume.cli.findings import show_summary, told
from plume.cli.formats import sarif
from plume.cli.main import app
from plume.data.records import Reading
from plume.errors import UserError
from plume.events import Read
from plume.types import Finding, Source

check_module = importlib.import_module("plume.cli.check")

Invoke = Callable[..., Any]
REPEATED = (
    '{"prompt": "Where is it?", "completion": "There."}\n' * 2 + '{"prompt": "where is it", "completion": "Here."}\n'
)


@pytest.fixture
def invoke() -> Invoke:
    return lambda *arguments, **options: CliRunner().invoke(app, [str(part) for part in arguments], **options)


def examined(path: Path, processes: int = 1, **options: Any) -> tuple[Examined, list[Read]]:
    work, reads = examining(path, processes=processes, **options), []
    while True:
        try:
            reads.append(next(work))
        except StopIteration as end:
            return end.value, reads


# --- parts ---------------------------------------------------------------------------------------


def many_rows(path: Path, count: int, form: Callable[[str, str], dict[str, str]]) -> Path:
    """Rows with a repeat, a near-repeat, a contradiction, an odd field and a broken line now and then."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number in range(count):
            prompt, completion = f"Where does boat number {number} lie this evening?", f"At the pier {number % 977}."
            row = form(prompt, completion)
            if number % 1501 == 7:
                row = form(prompt.replace(str(number), "7"), completion)
            if number % 2003 == 9:
                row["note"] = "x"
            if number % 2999 == 11:
                file.write('{"prompt": "broken", "completion": "row\n')
            if number % 3001 == 13:
                completion = f"write to harbour{number}@office-of-boats.fr"
                row = form(prompt, completion)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def test_parts_read_by_several_processes_say_what_one_reading_says(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("plume.checks.parallel._PART", 2**19)
    file = many_rows(tmp_path / "rows.jsonl", 20_000, lambda p, c: {"prompt": p, "completion": c})
    alone, _ = examined(file)
    together, reads = examined(file, processes=2)
    assert len(reads) > 3
    assert reads[-1].done == reads[-1].total == file.stat().st_size
    assert together == alone
    assert {"D101", "D103", "D203", "D210"} <= set(alone.counts)


def test_columns_are_decided_over_all_parts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("plume.checks.parallel._PART", 2**16)
    file = tmp_path / "rows.jsonl"
    odd = many_rows(tmp_path / "odd.jsonl", 2_000, lambda p, c: {"prompt": p, "completion": c})
    main = many_rows(tmp_path / "main.jsonl", 6_000, lambda p, c: {"question": p, "answer": c})
    file.write_bytes(odd.read_bytes() + main.read_bytes())
    alone, _ = examined(file)
    together, _ = examined(file, processes=2)
    assert together == alone
    assert [found.source.line for found in alone.findings if found.code == "D106"] == [1]


def test_findings_beyond_the_limit_are_counted_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "completion": ""}\n' * (LISTED + 5), encoding="utf-8")
    found, _ = examined(file)
    assert found.counts["D105"] == LISTED + 5
    assert Counter(finding.code for finding in found.findings)["D105"] == LISTED


# --- catalogue -----------------------------------------------------------------------------------


def test_every_rule_and_every_code_has_its_entry() -> None:
    assert set(ROW_RULES) | set(SURVEYS) <= set(CATALOGUE)
    assert {code[:2] for code in CATALOGUE} == set(FAMILIES)
    for code, entry in CATALOGUE.items():
        assert entry.title
        assert entry.why
        assert entry.fix, code
        assert not (entry.why + entry.fix).endswith("."), code


@pytest.mark.parametrize("code", CATALOGUE)
def test_explain_prints_the_entry(invoke: Invoke, code: str) -> None:
    result = invoke("explain", code.lower())
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert all(part in said for part in (code, CATALOGUE[code].title, CATALOGUE[code].fix))


def test_explain_offers_the_nearest_code(invoke: Invoke) -> None:
    result = invoke("explain", "D20")
    assert result.exit_code == 2
    assert "did you mean D2" in result.stderr


def test_list_names_every_code(invoke: Invoke) -> None:
    result = invoke("check", "--list")
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(CATALOGUE)
    assert [entry["code"] for entry in json.loads(invoke("check", "--list", "--json").stdout)] == list(CATALOGUE)


# --- selection -----------------------------------------------------------------------------------


def codes(result: Any) -> Counter[str]:
    return Counter(finding["code"] for finding in json.loads(result.stdout)["findings"])


def test_select_and_ignore_take_codes_and_families(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    assert codes(invoke("check", "rows.jsonl", "--json")) == {"D201": 1, "D203": 1, "D215": 1}
    assert codes(invoke("check", "rows.jsonl", "--json", "--select", "D20")) == {"D201": 1, "D203": 1}
    assert codes(invoke("check", "rows.jsonl", "--json", "--select", "D2", "--ignore", "D203,D215")) == {"D201": 1}
    result = invoke("check", "rows.jsonl", "--select", "D999")
    assert result.exit_code == 2
    assert "D999" in result.stderr


def test_settings_file_sets_severities_and_codes(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    Path("plume.toml").write_text(
        '[check]\nignore = ["D215"]\n[check.severity]\nD203 = "warning"\nD201 = "error"\n', encoding="utf-8"
    )
    result = invoke("check", "rows.jsonl", "--json")
    severities = {finding["code"]: finding["severity"] for finding in json.loads(result.stdout)["findings"]}
    assert severities == {"D201": "error", "D203": "warning"}
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('[check]\nseverity = {D203 = "fatal"}\n', "fatal"),
        ('[check]\nselekt = ["D2"]\n', "selekt"),
        ('[check]\nignore = ["D2O3"]\n', "D2O3"),
        ("[check\n", "plume.toml"),
        ("check = 3\n", "check = 3"),
        ('[check]\nseverity = "error"\n', "severity = 'error'"),
        ('[check]\nselect = {D2 = "error"}\n', "not a list"),
        ("[chek]\n", "chek"),
    ],
)
def test_settings_file_with_a_mistake_is_refused(tmp_path: Path, settings: str, said: str) -> None:
    file = tmp_path / "plume.toml"
    file.write_text(settings, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        selection(settings=file)
    assert said in raised.value.message
    assert raised.value.hint


def test_exceptions_stand_in_a_side_file(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    known = "# known\n2-3 D201 weighs more\n3 D203 both are right\n"
    Path("rows.jsonl.plume-ignore").write_text(known, encoding="utf-8")
    result = invoke("check", "rows.jsonl", "--json", "--ignore", "D215")
    assert (codes(result), result.exit_code) == ({}, 0)
    Path("rows.jsonl.plume-ignore").write_text("seventeen D203\n", encoding="utf-8")
    result = invoke("check", "rows.jsonl")
    assert result.exit_code == 2
    assert "rows.jsonl.plume-ignore:1" in result.stderr


def test_families_have_severities_and_exceptions(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    bom = "\ufeff"
    severities = 'severity = {D2 = "info", D203 = "warning", D20 = "error"}'
    Path("plume.toml").write_text(f"{bom}[check]\n{severities}\n", encoding="utf-8")
    found = json.loads(invoke("check", "rows.jsonl", "--json").stdout)
    said = {finding["code"]: finding["severity"] for finding in found["findings"]}
    assert said == {"D201": "error", "D203": "warning", "D215": "info"}
    Path("rows.jsonl.plume-ignore").write_text(f"{bom}2-3 D20 both are right\n", encoding="utf-8")
    assert codes(invoke("check", "rows.jsonl", "--json")) == {"D215": 1}


def test_a_side_file_in_another_encoding_is_refused(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    Path("rows.jsonl.plume-ignore").write_text("3 D203 vérifié\n", encoding="latin-1")
    result = invoke("check", "rows.jsonl")
    assert result.exit_code == 2
    assert "rows.jsonl.plume-ignore is not UTF-8" in result.stderr


def test_the_nearest_name_of_a_table_is_offered(tmp_path: Path) -> None:
    (tmp_path / "plume.toml").write_text("[chek]\n", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        selection(settings=tmp_path / "plume.toml")
    assert raised.value.hint == "did you mean check?"


def test_excepted_findings_are_not_counted(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    Path("rows.jsonl.plume-ignore").write_text("3 D203 both are right\n", encoding="utf-8")
    summary = json.loads(invoke("check", "rows.jsonl", "--json").stdout)["summary"]
    assert summary == {"errors": 0, "warnings": 2, "infos": 0, "codes": {"D201": 1, "D215": 1}}


def test_the_side_file_of_evaluation_rows_excepts_leaks(invoke: Invoke) -> None:
    rows = "".join(f'{{"prompt": "Where is boat {n}?", "completion": "At pier {n}."}}\n' for n in range(9))
    Path("train.jsonl").write_text(rows, encoding="utf-8")
    Path("test.jsonl").write_text(rows.splitlines()[4] + "\n", encoding="utf-8")
    arguments = ("check", "train.jsonl", "--eval-data", "test.jsonl", "--json", "--select", "D401")
    assert codes(invoke(*arguments)) == {"D401": 1}
    Path("test.jsonl.plume-ignore").write_text("1 D401 asked on purpose\n", encoding="utf-8")
    assert codes(invoke(*arguments)) == {}


def test_names_of_people_are_found_when_listed(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text('{"prompt": "Who keeps it?", "completion": "Éloïse Quéméner."}\n', encoding="utf-8")
    Path("names.txt").write_text("Eloise Quemener\n", encoding="utf-8")
    assert "D210" not in codes(invoke("check", "rows.jsonl", "--json"))
    assert "D210" in codes(invoke("check", "rows.jsonl", "--json", "--names", "names.txt"))


# --- outputs -------------------------------------------------------------------------------------


def test_the_offending_text_has_a_caret_under_it(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text('{"prompt": "Où ?", "completion": "l&eacute;gende de la mer"}\n', encoding="utf-8")
    lines = invoke("check", "rows.jsonl", "--select", "D108").stdout.splitlines()
    shown = next(number for number, line in enumerate(lines) if "&eacute;" in line and "^" in lines[number + 1])
    start = lines[shown].index("&eacute;")
    assert lines[shown + 1].index("^") == start
    assert lines[shown + 1].count("^") == len("&eacute;")


def test_a_secret_is_never_printed(invoke: Invoke) -> None:
    secret = "hf_" + "QmZ7vLx2Tn8RbKc4WdYp" + "EsGfHjUiOaNqVwXr"
    Path("rows.jsonl").write_text(json.dumps({"prompt": "token?", "completion": secret}) + "\n", encoding="utf-8")
    for extra in ([], ["--json"], ["--output-format", "sarif"], ["--output-format", "github"]):
        result = invoke("check", "rows.jsonl", *extra)
        assert "D211" in result.stdout
        assert secret not in result.output
        assert result.exit_code == 1


def test_a_secret_is_hidden_in_the_line_of_another_finding(invoke: Invoke) -> None:
    secret = "hf_" + "QmZ7vLx2Tn8RbKc4WdYp" + "EsGfHjUiOaNqVwXr"
    row = {"prompt": "Où ?", "completion": f"{secret} l&eacute;gende"}
    Path("rows.jsonl").write_text((json.dumps(row, ensure_ascii=False) + "\n") * 2, encoding="utf-8")
    lines = invoke("check", "rows.jsonl", "--ignore", "D211").stdout.splitlines()
    assert not [line for line in lines if secret[:12] in line]
    shown = next(number for number, line in enumerate(lines) if "&eacute;" in line and "^" in lines[number + 1])
    assert "*" * len(secret) in lines[shown]
    assert lines[shown + 1].index("^") == lines[shown].index("&eacute;")


def test_a_secret_is_hidden_however_json_spells_it(invoke: Invoke) -> None:
    for spelt in ("postgres:\\/\\/reader:Kr%C3%A4hen77@db.example.org", "password: \\u004br\\u00e4hen77!"):
        text = f'{{"prompt": "Où ?", "completion": "{spelt} l&eacute;gende"}}\n'
        Path("rows.jsonl").write_text(text, encoding="utf-8")
        out = invoke("check", "rows.jsonl").stdout
        assert {"D108", "D211"} <= set(out.split())
        assert "hen77" not in out


def test_control_characters_do_not_reach_the_terminal(invoke: Invoke) -> None:
    Path("rows.csv").write_text("question,answer\nWhere?,\x1b]0;gone\x07 l&eacute;gende\n", encoding="utf-8")
    out = invoke("check", "rows.csv").stdout
    assert "\x1b" not in out
    assert "␛]0;gone␇ l&eacute;gende" in out


def test_a_blank_has_no_caret_unless_its_column_is_known() -> None:
    Path("rows.csv").write_text("a b c,d\n", encoding="utf-8")
    blank = Finding("D109", "warning", Source("rows.csv", 1), "blank", "remove it", quote=" ")
    there = replace(blank, source=Source("rows.csv", 1, 4))
    unknown, known = excerpts([blank, there])
    assert unknown is not None
    assert known is not None
    assert unknown.width == 0
    assert (known.column, known.width) == (4, 1)


def test_the_summary_shows_the_worst_severity_and_counts_all() -> None:
    found = tuple(Finding("D105", "error", Source("a", n + 1), "empty", "fill it") for n in range(LISTED))
    milder = Finding("D203", "warning", Source("a", 1), "two answers", "choose")
    findings = [milder, replace(milder, severity="error"), *found]
    seen = [Examined("a", 20_000, tuple(findings), Counter({"D105": 12_000, "D203": 2}))]
    console = Console(file=io.StringIO(), width=120)
    show_summary(console, seen, findings)
    lines = [line.split() for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]
    assert [line[:3] for line in lines] == [["D105", "error", "12000"], ["D203", "error", "2"]]
    assert told(seen, findings) == "20000 examples in 1 file: 12001 errors, 1 warning"


@pytest.mark.parametrize(
    ("file", "uri"),
    [("où est.jsonl", "o%C3%B9%20est.jsonl"), ("a:b/c.jsonl", "./a%3Ab/c.jsonl"), ("d/a:b.jsonl", "d/a%3Ab.jsonl")],
)
def test_sarif_names_files_by_relative_references(file: str, uri: str) -> None:
    (result,) = sarif([Finding("D203", "error", Source(file, 3), "m", "h")], [None])["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_sarif_has_rules_results_and_regions(invoke: Invoke) -> None:
    Path("rows.jsonl").write_text(REPEATED + '{"prompt": "a", "completion": "b &amp; c"}\n', encoding="utf-8")
    log = json.loads(invoke("check", "rows.jsonl", "--output-format", "sarif").stdout)
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert log["version"] == "2.1.0"
    results = {result["ruleId"]: result for result in run["results"]}
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    assert results["D203"]["level"] == "error"
    assert results["D201"]["relatedLocations"][0]["physicalLocation"]["region"] == {"startLine": 1}
    region = results["D108"]["locations"][0]["physicalLocation"]["region"]
    line = Path("rows.jsonl").read_text(encoding="utf-8").splitlines()[3]
    assert (region["startLine"], line[region["startColumn"] - 1 : region["endColumn"] - 1]) == (4, "&amp;")


def test_github_annotations_are_escaped(invoke: Invoke) -> None:
    Path("a,b.jsonl").write_text(REPEATED, encoding="utf-8")
    lines = invoke("check", "a,b.jsonl", "--output-format", "github").stdout.splitlines()
    assert lines[-1].startswith("::error file=a%2Cb.jsonl,line=3,title=D203::")
    assert any(line.startswith("::warning file=a%2Cb.jsonl,line=2,title=D201::") for line in lines)


# --- what is looked at ---------------------------------------------------------------------------


def test_standard_input_is_read(invoke: Invoke) -> None:
    result = invoke("check", "-", "--json", input=REPEATED.encode())
    value = json.loads(result.stdout)
    assert (value["files"], value["examples"]) == (["-"], 3)
    assert {finding["file"] for finding in value["findings"]} == {"-"}


def test_a_script_is_read_and_not_run(invoke: Invoke) -> None:
    Path("tune.py").write_text("import pickle\nopen('ran', 'w').close()\nrows = pickle.load(open('r', 'rb'))\n")
    assert "D714" in codes(invoke("check", "tune.py", "--json"))
    assert not Path("ran").exists()


def test_a_table_and_a_database_are_read(invoke: Invoke) -> None:
    import sqlite3

    Path("faq.csv").write_text("question;réponse\nOù ?;Là.\nOù ?;Ici.\n", encoding="utf-8")
    assert codes(invoke("check", "faq.csv", "--json"))["D203"] == 1
    with sqlite3.connect("faq.db") as base:
        base.execute("CREATE TABLE faq (q TEXT, a TEXT)")
        base.executemany("INSERT INTO faq VALUES (?, ?)", [("Where?", "here"), ("where", "there")])
    base.close()
    result = invoke(
        "check", "sqlite:///faq.db", "--json", "--query", "SELECT q, a FROM faq",
        "--prompt-column", "q", "--completion-column", "a",
    )  # fmt: skip
    assert codes(result)["D203"] == 1


def test_model_and_row_show_what_is_trained(invoke: Invoke, tmp_path: Path, qa_file: Path, settings: Any) -> None:
    run = tmp_path / "run"
    code = "from plume.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", str(qa_file), "--output-dir", str(run)]
    subprocess.run([*command, *settings(max_steps=1)], check=True, capture_output=True, env={**os.environ})
    shown = invoke("check", qa_file, "--model", run, "--show", "3").stdout
    assert f"{qa_file}:3" in shown
    assert "⟦" in shown
    assert "<|assistant|>" in shown
    missing = invoke("check", qa_file, "--show", "3")
    assert missing.exit_code == 2
    assert "--model" in missing.stderr
    several = invoke("check", run, qa_file, "--model", run, "--show", "3")
    assert several.stdout == shown
    assert f"that of {qa_file}" in several.stderr
    beyond = invoke("check", qa_file, "--model", run, "--show", "99999")
    assert beyond.exit_code == 2
    assert "no row stands on line 99999" in beyond.stderr
    assert "D603" in codes(invoke("check", run, "--json"))


PASSWORD = "Tr0ub4dor"
DATABASES = [f"sqlite:///faq.db?password={PASSWORD}", f"postgresql+psycopg://reader:{PASSWORD}@127.0.0.1:9/faq"]


@pytest.mark.parametrize("url", DATABASES)
@pytest.mark.parametrize("extra", [[], ["--json"], ["--output-format", "sarif"], ["--output-format", "github"]])
def test_the_password_of_a_database_is_never_shown(invoke: Invoke, url: str, extra: list[str]) -> None:
    import sqlite3

    with sqlite3.connect("faq.db") as base:
        base.execute("CREATE TABLE faq (question TEXT, answer TEXT)")
        base.executemany("INSERT INTO faq VALUES (?, ?)", [("Where?", "here"), ("where", "there")])
    base.close()
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    for arguments in ([url], ["rows.jsonl", "--eval-data", url]):
        result = invoke("check", *arguments, "--query", "SELECT question, answer FROM faq", *extra)
        assert "sqlite" in result.output or "postgresql" in result.output
        assert PASSWORD not in result.output
    if url.startswith("sqlite") and extra == ["--output-format", "sarif"]:
        assert "artifactLocation" not in json.dumps(
            json.loads(invoke("check", url, "--query", "SELECT question, answer FROM faq", *extra).stdout)
        )


def test_scripts_and_runs_stand_beside_data(invoke: Invoke) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"status": "failed", "format": 1}', encoding="utf-8")
    Path("run/recipe.yaml").write_text("data: rows.jsonl\n", encoding="utf-8")
    Path("tune.py").write_text("import pickle\nrows = pickle.load(open('r', 'rb'))\n", encoding="utf-8")
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    Path("test.jsonl").write_text('{"prompt": "Where is it?", "completion": "There."}\n', encoding="utf-8")
    result = invoke("check", "tune.py", "run", "rows.jsonl", "--eval-data", "test.jsonl", "--json")
    assert codes(result)["D401"] == 1
    alone = invoke("check", "tune.py", "--eval-data", "test.jsonl")
    assert alone.exit_code == 2
    assert "holds no rows" in alone.stderr


def test_a_recipe_is_checked_with_the_rows_and_columns_given(invoke: Invoke) -> None:
    rows = "".join(f'{{"q": "Where is boat {n}?", "w": "x", "a": "At pier {n}."}}\n' for n in range(30))
    Path("tune.py").write_text("print()\n", encoding="utf-8")
    tiny = "hidden_size: 32\nnum_hidden_layers: 1\nnum_attention_heads: 2\nmax_steps: 1\nlearning_rate: 5.0\n"
    Path("recipe.yaml").write_text(f"data: missing.jsonl\n{tiny}", encoding="utf-8")
    columns = ("--prompt-column", "q", "--completion-column", "a")
    result = invoke("check", "tune.py", "-", "--recipe", "recipe.yaml", *columns, "--json", input=rows.encode())
    assert result.exit_code in (0, 1), result.stderr
    files = {finding["file"] for finding in json.loads(result.stdout)["findings"] if finding["code"][:2] == "D5"}
    assert files == {"-"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fix", "out.jsonl", "--eval-data", "rows.jsonl"], "--fix and --eval-data"),
        (["--fix", "out.jsonl", "--model", "m"], "--fix and --model"),
        (["--fix", "out.jsonl", "--watch"], "--fix and --watch"),
        (["--fix", "out.jsonl", "--recipe", "r.yaml"], "--fix and --recipe"),
        (["--fix", "out.jsonl", "--output-format", "sarif"], "--fix and --output-format"),
        (["--json", "--output-format", "github"], "--json and --output-format github"),
        (["--show", "1", "--model", "m", "--json"], "--show and --json"),
        (["--query", "SELECT 1"], "rows.jsonl is a file"),
        (["--eval-data", "-"], "--eval-data cannot be -"),
    ],
)
def test_options_that_would_be_ignored_are_refused(invoke: Invoke, arguments: list[str], said: str) -> None:
    Path("rows.jsonl").write_text(REPEATED, encoding="utf-8")
    result = invoke("check", "rows.jsonl", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not Path("out.jsonl").exists()


def test_watching_sees_settings_and_outlives_a_missing_file(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Path("rows.jsonl")
    rows.write_text(REPEATED, encoding="utf-8")

    def changes() -> Iterator[object]:
        yield Path("plume.toml").write_text('[check]\nselect = ["D203"]\n', encoding="utf-8")
        rows.unlink()
        yield None
        yield rows.write_text('{"prompt": "a", "completion": ""}\n', encoding="utf-8")
        yield Path("plume.toml").write_text('[check]\nselect = ["D105"]\n', encoding="utf-8")
        raise KeyboardInterrupt

    edits = changes()
    monkeypatch.setattr("plume.cli.check.time.sleep", lambda _: next(edits))
    result = invoke("check", "rows.jsonl", "--watch")
    said = [line for line in result.stdout.splitlines() if "in 1 file:" in line]
    assert [line.partition(": ")[2] for line in said] == [
        "1 error, 2 warnings", "1 error", "nothing to say", "1 error",
    ]  # fmt: skip
    assert "no such file" in result.stderr


def test_a_change_during_a_check_is_seen(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Path("rows.jsonl")
    rows.write_text(REPEATED, encoding="utf-8")
    look = check_module.examine_all

    def slow(request: Any) -> Any:
        found = look(request)
        if len(rows.read_text(encoding="utf-8")) == len(REPEATED):
            rows.write_text(REPEATED.splitlines()[0] + "\n", encoding="utf-8")
        return found

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_module, "examine_all", slow)
    monkeypatch.setattr("plume.cli.check.time.sleep", sleep)
    result = invoke("check", "rows.jsonl", "--watch")
    assert [line.split()[0] for line in result.stdout.splitlines() if "in 1 file:" in line] == ["3", "1"]


@pytest.mark.parametrize(
    ("line", "prompt"), [(1, "a"), (2, "b"), (3, "b"), (4, None), (5, "c"), (6, None), (99999, None)]
)
def test_a_row_is_found_by_any_of_its_lines(line: int, prompt: str | None) -> None:
    text = '{"prompt": "a", "completion": "b"}\n{"prompt": "b",\n"completion": "c"}\n{"prompt": 7}\n'
    Path("rows.jsonl").write_text(text + '{"prompt": "c", "completion": "d"}\n', encoding="utf-8")
    if prompt is None:
        with pytest.raises(UserError, match=f"no row stands on line {line}"):
            check_module._row_at("rows.jsonl", "rows.jsonl", Reading(), line)
    else:
        row = check_module._row_at("rows.jsonl", "rows.jsonl", Reading(), line)
        assert row.messages[0].content == prompt


def test_evaluation_rows_are_held_against_the_training_rows(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(REPEATED, encoding="utf-8")
    (tmp_path / "test.jsonl").write_text('{"prompt": "Where is it?", "completion": "There."}\n', encoding="utf-8")
    found = list(plume.check(tmp_path / "train.jsonl", eval_data=tmp_path / "test.jsonl"))
    leak = next(finding for finding in found if finding.code == "D401")
    assert leak.source.file.endswith("test.jsonl")
    assert leak.source.line == 1
    assert leak.related[0].line == 1


def test_check_reads_from_a_pipe_that_closes(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": ""}\n' * 5000, encoding="utf-8")
    code = "from plume.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", "rows.jsonl", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert isinstance(process.stdout, io.BufferedReader)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
