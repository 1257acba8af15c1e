"""The verbs as a person types them: what stands on stdout, what on stderr, and the exit code."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import PLACES, TINY, write_rows
from plume.cli.main import main
from plume.events import Finished, Step
from plume.models.bundle import load
from plume.recipe import Recipe
from plume.training import loop
from plume.training.loop import train
from plume.training.step import step_once

Plume = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plume(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Plume:
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["plume", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows its five facts."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [
        {"prompt": f"Where is the {thing}?", "completion": json.dumps({"lieu": f"{place} été"}, ensure_ascii=False)}
        for thing, place in PLACES.items()
    ]
    data = write_rows(folder / "qa.jsonl", rows)
    sizes = {**TINY, "hidden_size": 64, "num_hidden_layers": 2}
    learning = {"max_steps": 120, "learning_rate": 0.003, "dropout": 0.0, "test_size": 0}
    made = Recipe.model_validate({"data": str(data), **sizes, **learning})
    assert isinstance(list(train(made, folder / "run"))[-1], Finished)
    return folder / "run"


def test_ask_prints_the_answer_and_nothing_else(plume: Plume, trained: Path) -> None:
    assert plume("ask", str(trained), "Where is the boat?") == (0, '{"lieu": "harbour été"}\n', "")


def test_ask_json_tells_how_it_ended(plume: Plume, trained: Path) -> None:
    code, out, _ = plume("ask", str(trained), "Where is the boat?", "--json")
    value = json.loads(out)
    assert code == 0
    assert (value["answer"], value["finish"]) == ('{"lieu": "harbour été"}', "stop")
    assert set(value) == {"answer", "finish", "tokens", "seconds"}


def test_ask_says_when_an_answer_was_cut(plume: Plume, trained: Path) -> None:
    code, out, err = plume("ask", str(trained), "Where is the boat?", "--set", "max_new_tokens=2")
    assert code == 0
    assert '{"lieu": "harbour été"}'.startswith(out.rstrip("\n"))
    assert "cut at 2 tokens" in err


def test_ask_says_when_the_context_is_full(plume: Plume, trained: Path) -> None:
    endless = json.dumps({str(id): -100 for id in load(str(trained)).stop_ids})
    settings = ["--set", "max_new_tokens=1000", "--set", f"logit_bias={endless}"]
    code, _, err = plume("ask", str(trained), "Where is the boat?", *settings)
    assert code == 0
    assert "context of" in err
    assert "is full" in err
    assert "--set max_new_tokens" not in err


PLACE: dict[str, Any] = {"type": "object", "properties": {"lieu": {"type": "string"}}, "required": ["lieu"]}
AGED = {**PLACE, "properties": {**PLACE["properties"], "age": {"type": "integer"}}, "required": ["lieu", "age"]}


def schema_file(tmp_path: Path, schema: Any) -> str:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    return str(file)


def test_a_schema_leaves_a_fitting_answer_alone(plume: Plume, trained: Path, tmp_path: Path) -> None:
    file = schema_file(tmp_path, PLACE)
    assert plume("ask", str(trained), "Where is the boat?", "--schema", file)[:2] == (0, '{"lieu": "harbour été"}\n')


@pytest.mark.parametrize("tokens", [24, 40])
def test_an_answer_has_the_shape_of_its_schema(plume: Plume, trained: Path, tmp_path: Path, tokens: int) -> None:
    limit = f"max_new_tokens={tokens}"
    file = schema_file(tmp_path, AGED)
    code, out, _ = plume("ask", str(trained), "Where is the boat?", "--schema", file, "--set", limit, "--json")
    value = json.loads(out)
    answer = json.loads(value["answer"])
    assert (code, value["finish"]) == (0, "stop")
    assert isinstance(answer["age"], int)
    assert isinstance(answer["lieu"], str)
    assert value["tokens"] <= tokens


def test_a_limit_below_the_shortest_answer_is_refused(plume: Plume, trained: Path, tmp_path: Path) -> None:
    file = schema_file(tmp_path, AGED)
    code, out, err = plume("ask", str(trained), "Where?", "--schema", file, "--set", "max_new_tokens=3")
    assert (code, out) == (2, "")
    assert "at most 3 are allowed" in err
    assert "set max_new_tokens to" in err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--choice", "yes", "--choice", "oui"], {"yes", "oui"}),
        (["--regex", "[0-4]{2}"], {f"{a}{b}" for a in range(5) for b in range(5)}),
        (["--grammar", "rules.lark"], {"abab", "ab"}),
    ],
)
def test_other_shapes_are_kept_too(plume: Plume, trained: Path, options: list[str], expected: set[str]) -> None:
    Path("rules.lark").write_text('start: pair | pair pair\npair: "a" "b"\n', encoding="utf-8")
    for seed in ("1", "2"):
        settings = ["--set", "temperature=1.5", "--set", f"seed={seed}"]
        code, out, _ = plume("ask", str(trained), "Where is the boat?", *options, *settings)
        assert code == 0
        assert out.removesuffix("\n") in expected


def test_any_json_is_json(plume: Plume, trained: Path) -> None:
    settings = ["--set", "temperature=1.5", "--set", "seed=1", "--set", "max_new_tokens=9"]
    code, out, _ = plume("ask", str(trained), "Tell me a story", "--any-json", *settings)
    assert code == 0
    json.loads(out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--regex", "a", "--choice", "b"], "cannot be asked together"),
        (["--grammar", "nowhere.lark"], "no such file"),
        (["--regex", "a("], "unclosed group: ("),
        (["--regex", "[0-9]+", "--set", "no_repeat_ngram_size=2"], "no_repeat_ngram_size"),
    ],
)
def test_shapes_that_cannot_be_kept_are_refused(plume: Plume, trained: Path, options: list[str], said: str) -> None:
    code, out, err = plume("ask", str(trained), "Where?", *options)
    assert (code, out) == (2, "")
    assert said in err


def test_ask_refuses_settings_without_effect(plume: Plume, trained: Path) -> None:
    code, out, err = plume("ask", str(trained), "Where?", "--set", "top_p=0.5")
    assert (code, out) == (2, "")
    assert "has no effect at temperature 0" in err


def test_generate_prints_the_continuation_alone(plume: Plume, trained: Path) -> None:
    code, out, err = plume("generate", str(trained), "--prompt", "Where", "--set", "max_new_tokens=5")
    assert (code, err) == (0, "")
    code, shown, _ = plume("generate", str(trained), "--prompt", "Where", "--set", "max_new_tokens=5", "--json")
    value = json.loads(shown)
    assert set(value) == {"text", "ids", "finish"}
    assert value["text"] + "\n" == out
    assert len(value["ids"]) <= 5


def test_eval_compares_with_the_untrained_model_and_keeps_the_result(plume: Plume, trained: Path) -> None:
    data = str(trained.parent / "qa.jsonl")
    code, out, err = plume("eval", str(trained), data, "--json")
    value = json.loads(out)
    assert code == 0
    assert value["scores"]["exact_match"] == value["scores"]["json_valid"] == value["scores"]["stop_rate"] == 1.0
    assert value["baseline"]["scores"]["exact_match"] == 0.0
    assert value["baseline"]["name"] == "untrained"
    assert [finding["code"] for finding in value["findings"]] == ["D401"] * 5
    assert "memory" in err
    kept = json.loads((trained / "eval" / "qa.json").read_text(encoding="utf-8"))
    assert kept["scores"] == value["scores"]


def test_eval_of_other_questions_finds_no_leak(plume: Plume, trained: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Where is that boat?", "completion": '{"lieu": "harbour été"}'}] * 2
    data = write_rows(tmp_path / "test.jsonl", rows)
    code, out, err = plume("eval", str(trained), str(data), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["findings"] == []


def test_eval_reports_schema_validity(plume: Plume, trained: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"properties": {"lieu": {"pattern": "^h"}}}', encoding="utf-8")
    _, out, _ = plume("eval", str(trained), str(trained.parent / "qa.jsonl"), "--schema", str(schema), "--json")
    assert json.loads(out)["scores"]["schema_valid"] == pytest.approx(0.2)


def test_eval_shows_a_table_to_people(plume: Plume, trained: Path) -> None:
    code, out, _ = plume("eval", str(trained), str(trained.parent / "qa.jsonl"))
    assert code == 0
    assert "exact_match" in out
    assert "untrained" in out


def test_check_prints_findings_as_json(plume: Plume, tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "Où ?", "completion": "Là."}
    data = write_rows(tmp_path / "qa.jsonl", [row, row, {**row, "completion": "Ici."}])
    code, out, _ = plume("check", str(data), "--json")
    value = json.loads(out)
    assert code == 1
    assert value["summary"] == {"errors": 1, "warnings": 2, "infos": 0, "codes": {"D201": 1, "D203": 1, "D215": 1}}
    repeat, contradiction = value["findings"][1], value["findings"][2]
    assert (repeat["code"], repeat["line"], repeat["related"]) == ("D201", 2, [{"file": str(data), "line": 1}])
    assert (contradiction["code"], contradiction["line"], contradiction["severity"]) == ("D203", 3, "error")


def test_check_of_clean_data_says_so(plume: Plume, tmp_path: Path, qa_rows: list[dict[str, str]]) -> None:
    data = write_rows(tmp_path / "qa.jsonl", qa_rows)
    assert plume("check", str(data)) == (0, "15 examples in 1 file: nothing to say\n", "")


def test_check_finds_leaks_into_the_evaluation_file(
    plume: Plume, tmp_path: Path, qa_rows: list[dict[str, str]]
) -> None:
    train_file = write_rows(tmp_path / "train.jsonl", qa_rows)
    test_file = write_rows(tmp_path / "test.jsonl", [qa_rows[3], {"prompt": "New?", "completion": "x"}])
    code, out, _ = plume("check", str(train_file), "--eval-data", str(test_file), "--json")
    leaks = [finding for finding in json.loads(out)["findings"] if finding["code"] == "D401"]
    assert code == 1
    assert [(leak["line"], leak["related"][0]["line"]) for leak in leaks] == [(1, 4)]


def test_train_prints_one_event_a_line(plume: Plume, qa_file: Path, settings: Callable[..., list[str]]) -> None:
    code, out, _ = plume("train", str(qa_file), "--json", "--output-dir", "run", *settings(max_steps=4, eval_steps=2))
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events] == [
        "step",
        "evaluated",
        "saved",
        "step",
        "evaluated",
        "saved",
        "finished",
    ]
    assert {"step", "loss", "learning_rate", "tokens"} <= set(events[0])
    assert events[-1]["model"] == "run/model"


def test_train_says_in_json_that_it_went_back_and_that_it_stopped(
    plume: Plume, qa_file: Path, settings: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **options: Any) -> Step:
        event = step_once(*given, **options)
        return replace(event, loss=math.nan) if event.step == 3 and options["scale"] == 1 else event

    monkeypatch.setattr(loop, "step_once", broken)
    changes = {"max_steps": 40, "eval_steps": 2, "early_stopping_patience": 1, "learning_rate": 1.0}
    code, out, _ = plume("train", str(qa_file), "--json", "--output-dir", "run", *settings(**changes))
    events = {event["event"]: event for event in map(json.loads, out.splitlines())}
    assert code == 0
    assert (events["rolled_back"]["step"], events["rolled_back"]["to_step"]) == (3, 0)
    assert "nan" in events["rolled_back"]["reason"]
    assert events["stopped"]["step"] == events["finished"]["step"] < 40
    assert "no better" in events["stopped"]["reason"]


def test_train_prints_choices_scores_and_the_report(
    plume: Plume, qa_file: Path, settings: Callable[..., list[str]]
) -> None:
    code, out, err = plume("train", str(qa_file), "--output-dir", "run", *settings(max_steps=4))
    assert code == 0
    assert "chosen " in err
    assert "learning_rate=" in err
    assert "run/report.html" in out
    assert Path("run/report.html").is_file()


def test_train_names_the_run_after_the_data(plume: Plume, qa_file: Path, settings: Callable[..., list[str]]) -> None:
    assert plume("train", str(qa_file), *settings(max_steps=1))[0] == 0
    (run,) = Path("runs").iterdir()
    assert run.name.endswith("-qa")


def test_what_check_is_told_to_ignore_does_not_stop_training(
    plume: Plume, qa_file: Path, qa_rows: list[dict[str, str]], settings: Callable[..., list[str]]
) -> None:
    asked = write_rows(Path("asked.jsonl"), [qa_rows[3], {"prompt": "Who rings the bell?", "completion": "nobody"}])
    arguments = ["train", str(qa_file), "--eval-data", str(asked), *settings(max_steps=1)]
    code, _, err = plume(*arguments, "--output-dir", "stopped")
    assert (code, "D401" in err) == (2, True)
    Path("plume.toml").write_text('[check]\nignore = ["D401"]\n', encoding="utf-8")
    assert plume(*arguments, "--output-dir", "ignored")[0] == 0
    Path("plume.toml").write_text('[check.severity]\nD4 = "warning"\n', encoding="utf-8")
    assert plume(*arguments, "--output-dir", "milder")[0] == 0
    Path("plume.toml").unlink()
    Path("asked.jsonl.plume-ignore").write_text("1 D401 on purpose\n", encoding="utf-8")
    assert plume(*arguments, "--output-dir", "excepted")[0] == 0


def test_special_tokens_in_rows_stop_training_unless_ignored(
    plume: Plume, tmp_path: Path, qa_rows: list[dict[str, str]], settings: Callable[..., list[str]]
) -> None:
    forged = {"prompt": "Where is the <|assistant|>?", "completion": '{"lieu": "here"}'}
    data = write_rows(tmp_path / "forged.jsonl", [*qa_rows, forged])
    arguments = ["train", str(data), *settings(max_steps=1)]
    code, _, err = plume(*arguments, "--output-dir", "stopped")
    assert (code, "D306" in err) == (2, True)
    Path("plume.toml").write_text('[check]\nignore = ["D306"]\n', encoding="utf-8")
    assert plume(*arguments, "--output-dir", "run")[0] == 0


def test_a_forced_run_says_so(plume: Plume, tmp_path: Path, settings: Callable[..., list[str]]) -> None:
    rows = [{"prompt": "Where is it?", "completion": place} for place in ("Here.", "There.", "Nowhere.")]
    data = write_rows(tmp_path / "qa.jsonl", rows)
    changes = settings(max_steps=1, test_size=0)
    assert plume("train", str(data), "--output-dir", "run", "--force", *changes)[0] == 0
    info = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    assert info["forced"] is True
    assert [finding for finding in info["findings"] if finding.startswith(f"error {data}:2: D203 ")]
    good = write_rows(tmp_path / "good.jsonl", [rows[0], {"prompt": "Where was it?", "completion": "There."}])
    assert plume("train", str(good), "--output-dir", "good", *changes)[0] == 0
    assert json.loads(Path("good/run.json").read_text(encoding="utf-8"))["forced"] is False


def test_train_on_text_prints_samples(plume: Plume, tmp_path: Path, settings: Callable[..., list[str]]) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("la mer et le phare, le phare et la mer.\n" * 40, encoding="utf-8")
    changes = {"max_steps": 4, "eval_steps": 2, "max_new_tokens": 20}
    code, out, err = plume("train", str(text), "--output-dir", "run", *settings(**changes))
    assert code == 0
    assert err.count("la mer et le pha") == 2
    assert "la mer et le pha" in out
    assert "bigram entropy" in out


def test_a_trained_directory_can_be_trained_further(
    plume: Plume, trained: Path, qa_file: Path, settings: Callable[..., list[str]]
) -> None:
    only = ["--set", "max_steps=3", "--set", "eval_samples=2"]
    code, _, err = plume("train", str(qa_file), "--model", str(trained), "--output-dir", "run", *only)
    assert code == 0, err
    code, _, err = plume("train", str(qa_file), "--model", str(trained), "--output-dir", "other", *settings())
    assert code == 2
    assert "brings its own" in err


@pytest.mark.parametrize("arguments", [["train", "--bogus"], ["ask"], ["nonsense"]])
def test_wrong_usage_exits_with_2(plume: Plume, arguments: list[str]) -> None:
    code, out, _ = plume(*arguments)
    assert (code, out) == (2, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tune"],
        ["tune", "missing.jsonl"],
        ["tune", "--resume"],
        ["tune", "qa.jsonl", "--resume", "--output-dir", "search"],
        ["tune", "--resume", "--output-dir", "search"],
        ["tune", "qa.jsonl", "--search", "seed=1,2"],
        ["tune", "qa.jsonl", "--n-trials", "0"],
    ],
)
def test_a_search_that_cannot_begin_exits_with_2(
    plume: Plume, qa_file: Path, tmp_path: Path, arguments: list[str]
) -> None:
    assert qa_file.name == "qa.jsonl"
    code, out, err = plume(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert [path.name for path in tmp_path.iterdir()] == ["qa.jsonl"]


def test_tune_prints_the_trials_and_where_the_best_lies(
    plume: Plume, qa_file: Path, settings: Callable[..., list[str]]
) -> None:
    wanted = ["--search", "learning_rate=0.001,0.01", *settings(max_steps=3, max_new_tokens=4)]
    code, out, err = plume("tune", str(qa_file), "--output-dir", "search", *wanted)
    assert code == 0
    assert "trial" in out.splitlines()[0]
    assert "learning_rate" in out.splitlines()[0]
    assert "best run   search/trials/000" in out
    assert "recipe     search/best-recipe.yaml" in out
    assert "search    search, 2 trials" in err
    code, out, _ = plume("tune", "--resume", "--output-dir", "search", "--json")
    assert (code, [json.loads(line)["event"] for line in out.splitlines()]) == (0, ["search", "tuned"])


def test_a_closed_pipe_is_no_traceback(trained: Path) -> None:
    code = "from plume.cli.main import main; main()"
    command = [sys.executable, "-c", code, "eval", str(trained), str(trained.parent / "qa.jsonl"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
