"""A mistake in data, request or surroundings ends in one screen that names it, and leaves nothing half-written."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from plume.cli.main import main
from plume.models.bundle import bundle, save
from plume.models.catalog import build_model
from plume.recipe import Recipe
from plume.runs import Run
from plume.text.tokenizer import train_tokenizer
from plume.training.sources import fingerprints

ROWS = "".join(f'{{"prompt": "question {number}", "completion": "yes"}}\n' for number in range(4))
TINY = [
    "--set=max_steps=2", "--set=hidden_size=32", "--set=num_hidden_layers=1", "--set=num_attention_heads=2",
    "--set=eval_samples=2", "--set=max_new_tokens=4",
]  # fmt: skip
SCREEN = 25
SHOWN = 20


@dataclass(frozen=True)
class Outcome:
    code: int | str | None
    out: str
    err: str


Plume = Callable[..., Outcome]


@pytest.fixture
def plume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plume:
    """The command in this process, with an empty directory as the current one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["plume", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(ended.value.code or 0, *capsys.readouterr())

    return run


def command(*arguments: str | Path, first: str = "") -> list[str]:
    """The command in a process of its own, after the statements `first`."""
    program = f"import sys; {first}; sys.argv[0] = 'plume'; from plume.cli.main import main; main()"
    return [sys.executable, "-B", "-c", program, *map(str, arguments)]


def in_process(*arguments: str | Path, first: str = "pass") -> Outcome:
    done = subprocess.run(command(*arguments, first=first), capture_output=True, check=False, timeout=120)
    return Outcome(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


def write(content: str | bytes, name: str = "rows.jsonl") -> Path:
    file = Path(name)
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return file


def assert_refused(outcome: Outcome, *said: str, hint: bool = True) -> None:
    """Exit code 2, one screen on stderr with the error and what is to be said, and nothing else anywhere."""
    lines = outcome.err.splitlines()
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert len(lines) <= SCREEN, outcome.err
    assert len([line for line in lines if line.startswith("error:")]) == 1, outcome.err
    for text in said:
        assert text in outcome.err
    if hint:
        assert any(line.startswith("hint:") and line.removeprefix("hint:").strip() for line in lines), outcome.err
    assert not Path("out").exists()
    assert not Path("runs").exists()


def assert_whole(directory: Path) -> None:
    """No file is cut, no file is a leftover, and every checkpoint can be opened."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert list(directory.rglob(".*")) == []
    for file in files:
        text = "" if file.suffix == ".safetensors" else file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            json.loads(text)
        elif file.suffix == ".yaml":
            assert isinstance(yaml.safe_load(text), dict)
        elif file.suffix == ".jsonl":
            assert text.endswith("\n")
            assert all(isinstance(json.loads(line), dict) for line in text.split("\n")[:-1])
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="numpy") as tensors:
                assert list(tensors.keys())
    for checkpoint in directory.glob("checkpoints/step-*"):
        names = {file.name for file in checkpoint.iterdir()}
        assert names == {"model.safetensors", "optimizer.safetensors", "state.json"}


def info(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "run.json").read_text(encoding="utf-8")))


# --- plume check ---------------------------------------------------------------------------------


def report(outcome: Outcome) -> dict[str, Any]:
    """The one JSON object on stdout, of the documented shape."""
    (line,) = outcome.out.splitlines()
    value = json.loads(line)
    assert isinstance(value, dict)
    assert value.keys() == {"files", "examples", "findings", "summary"}
    for finding in value["findings"]:
        assert {"code", "severity", "file", "line", "message", "hint", "related"} <= finding.keys()
        assert re.fullmatch(r"D\d{3}", finding["code"])
        assert finding["severity"] in ("error", "warning", "info")
        assert finding["line"] is None or finding["line"] >= 1
        assert all(other.keys() == {"file", "line"} for other in finding["related"])
    for name, severity in (("errors", "error"), ("warnings", "warning")):
        assert value["summary"][name] == sum(finding["severity"] == severity for finding in value["findings"])
    assert outcome.code == int(value["summary"]["errors"] > 0)
    assert outcome.err == ""
    return dict(value)


UNREADABLE = {
    "Latin-1": ROWS.replace("yes", "été").encode("latin-1"),
    "UTF-16": ROWS.encode("utf-16"),
    "binary": bytes(range(256)) * 4,
    "broken JSON": ROWS.encode("utf-8") + b"{'prompt': \"\xc3\xa9",
    "half a surrogate pair": ROWS.encode("utf-8") + b'{"prompt": "\\ud83d", "\\ud83d": 1}\n',
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
def test_check_prints_one_json_object_for_any_bytes_in_any_locale(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(raw)
    value = report(in_process("check", file, "--json", first="sys.stdout.reconfigure(encoding='ascii')"))
    assert value["files"] == [str(file)]
    assert value["summary"]["errors"] >= 1


def test_check_of_clean_rows_says_nothing_and_exits_with_0(plume: Plume) -> None:
    file = write(
        "".join(f'{{"prompt": "question {number}", "completion": "it is {number}"}}\n' for number in range(10))
    )
    assert report(plume("check", file, "--json", "--ignore", "D215")) == {
        "files": ["rows.jsonl"],
        "examples": 10,
        "findings": [],
        "summary": {"errors": 0, "warnings": 0, "infos": 0, "codes": {}},
    }
    assert plume("check", file).code == 0


def test_check_of_warnings_alone_exits_with_0(plume: Plume) -> None:
    value = report(plume("check", write(ROWS), "--json"))
    assert [(finding["code"], finding["severity"]) for finding in value["findings"]] == [("D215", "warning")]


CONTENT = [
    ("exact repeat", ["a", "b", "a"], ["x", "y", "x"], [("D201", "warning", 3, [1])]),
    ("repeated twice", ["a", "a", "a"], ["x", "x", "x"], [("D201", "warning", 2, [1]), ("D201", "warning", 3, [1])]),
    ("other answer", ["Who?", "b", "who"], ["x", "y", "z"], [("D203", "error", 3, [1])]),
    ("three answers", ["a", "a", "A."], "xyz", [("D203", "error", 2, [1]), ("D203", "error", 3, [1, 2])]),
    ("other wording, same answer", ["Who is it?", "Name the owner."], ["x", "x"], []),
    ("same wording, same answer", ["Who?", "who"], ["x", "x"], [("D202", "warning", 2, [1])]),
]


@pytest.mark.parametrize(
    ("prompts", "completions", "expected"), [row[1:] for row in CONTENT], ids=[row[0] for row in CONTENT]
)
def test_check_compares_rows_with_the_earlier_ones(
    plume: Plume,
    prompts: Sequence[str],
    completions: Sequence[str],
    expected: list[tuple[str, str, int, list[int]]],
) -> None:
    rows = zip(prompts, completions, strict=True)
    file = write("\n".join(json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in rows))
    found = [
        (finding["code"], finding["severity"], finding["line"], [other["line"] for other in finding["related"]])
        for finding in report(plume("check", file, "--json"))["findings"]
        if finding["code"] != "D215"
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("content", "name"),
    [("", "rows.jsonl"), ("[]", "rows.json"), ("[\n]\n", "rows.json"), (ROWS.split("\n")[0], "rows.jsonl")],
    ids=["empty file", "empty array", "empty array over two lines", "one row"],
)
def test_check_of_fewer_than_two_examples_is_an_error_of_the_whole_file(plume: Plume, content: str, name: str) -> None:
    value = report(plume("check", write(content, name), "--json"))
    assert [(found["code"], found["severity"], found["line"]) for found in value["findings"]] == [
        ("D215", "error", None)
    ]


def test_check_in_words_names_file_line_code_and_what_to_do(plume: Plume) -> None:
    outcome = plume("check", write(ROWS + "{'prompt': 1}\n"))
    assert outcome.code == 1
    assert re.search(r"^error rows\.jsonl:5:2 D101 single quotes", outcome.out, re.MULTILINE)
    assert "double quotes" in outcome.out
    assert "1 error" in outcome.out.splitlines()[-1]


@pytest.mark.parametrize("name", [":dog:", "[bold]", "[/]", "a\\", "\\[red]x"])
def test_check_in_words_shows_names_letter_for_letter(plume: Plume, name: str) -> None:
    outcome = plume("check", write(ROWS + json.dumps({"prompt": "a", "completion": "b", name: 1})))
    assert f'the field "{name}" is not used' in outcome.out


def test_check_of_several_files_reports_each(plume: Plume) -> None:
    write(ROWS, "good.jsonl")
    write("{", "bad.jsonl")
    value = report(plume("check", "good.jsonl", "bad.jsonl", "--json"))
    assert value["files"] == ["good.jsonl", "bad.jsonl"]
    assert {finding["file"] for finding in value["findings"] if finding["severity"] == "error"} == {"bad.jsonl"}


def test_check_finds_evaluation_rows_in_the_training_data(plume: Plume) -> None:
    write(ROWS, "train.jsonl")
    write('{"prompt": "new", "completion": "yes"}\n{"prompt": "QUESTION 2?", "completion": "yes"}\n', "test.jsonl")
    value = report(plume("check", "train.jsonl", "--eval-data", "test.jsonl", "--json"))
    (leak,) = [finding for finding in value["findings"] if finding["severity"] == "error"]
    assert (leak["code"], leak["file"], leak["line"]) == ("D401", "test.jsonl", 2)
    assert leak["related"] == [{"file": "train.jsonl", "line": 3}]


@pytest.mark.parametrize("path", ["gone.jsonl", ".", "rows.jsonl/inside", "x" * 300])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["words", "json"])
def test_check_of_a_file_that_cannot_be_opened_exits_with_2(plume: Plume, path: str, options: list[str]) -> None:
    write(ROWS)
    assert_refused(plume("check", "rows.jsonl", path, *options), path)


# --- mistakes in data ----------------------------------------------------------------------------

WHOLE_FILES: dict[str, tuple[bytes, list[str]]] = {
    "empty file": (b"", ["rows.jsonl", "D215", "empty"]),
    "blank file": (b"\n \n", ["D215"]),
    "no example": (b"[]", ["D215"]),
    "one example": (ROWS.split("\n")[0].encode("utf-8"), ["D215", "only one example"]),
    "binary": (bytes(range(256)), ["D107", "binary"]),
    "UTF-16": (ROWS.encode("utf-16"), ["D107", "UTF-16", "iconv"]),
    "UTF-16 without mark": (ROWS.encode("utf-16-le"), ["D107", "UTF-16"]),
    "truncated array": (b"[" + ROWS.strip().replace("\n", ",\n").encode("utf-8"), ["rows.jsonl:4", "D101", "cut"]),
}
FIFTH_ROWS: dict[str, tuple[bytes, list[str]]] = {
    "Latin-1": ('{"prompt": "é"}'.encode("latin-1"), ["D107", "iconv"]),
    "truncated": (b'{"prompt": "a", "compl', ["D101", "cut short"]),
    "raw line break": (b'{"prompt": "a\nb", "completion": "c"}\n', ["D101", "line break"]),
    "trailing comma": (b'{"prompt": "a", "completion": "b",}\n', ["D101", "comma"]),
    "wrong types": (b'{"prompt": 1, "completion": null}\n', ["D104", "number", "null"]),
    "missing field": (b'{"promt": "a", "completion": "b"}\n', ["D103", 'did you mean "prompt"']),
    "contradiction": (b'{"prompt": "Question 1?", "completion": "no"}\n', ["D203", "line 2"]),
    "number out of range": (b'{"prompt": "a", "completion": {"n": 1e999}}\n', []),
    "endless integer": (b'{"prompt": "a", "completion": %s}\n' % (b"9" * 5000), []),
    "half a surrogate pair": (b'{"prompt": "a", "completion": ["\\ud83d"]}\n', ["D107"]),
}
REFUSED_DATA = WHOLE_FILES | {
    name: (ROWS.encode("utf-8") + row, ["rows.jsonl:5", *said]) for name, (row, said) in FIFTH_ROWS.items()
}


@pytest.mark.parametrize(("raw", "said"), REFUSED_DATA.values(), ids=REFUSED_DATA)
def test_train_refuses_data_with_errors_and_writes_nothing(plume: Plume, raw: bytes, said: list[str]) -> None:
    write(raw)
    assert_refused(plume("train", "rows.jsonl", "--output-dir", "out", *TINY), *said, hint=False)


@pytest.mark.parametrize("path", ["gone.jsonl", ".", "rows.jsonl/inside", "x" * 300])
def test_train_refuses_data_that_cannot_be_opened(plume: Plume, path: str) -> None:
    write(ROWS)
    assert_refused(plume("train", path, "--output-dir", "out", *TINY), path)


def test_train_without_an_output_directory_leaves_none_behind_when_refused(plume: Plume) -> None:
    write("{")
    assert_refused(plume("train", "rows.jsonl", *TINY), "rows.jsonl:1", hint=False)


BAD_ROWS = [
    '{"prompt": "a"}',
    "{'prompt': 'a'}",
    '{"prompt": "", "completion": "b"}',
    '{"prompt": 1, "completion": "b"}',
]


@pytest.mark.parametrize("count", [3, 12, 20])
def test_train_lists_every_bad_row_on_one_screen(plume: Plume, count: int) -> None:
    write(ROWS + "".join(BAD_ROWS[number % len(BAD_ROWS)] + "\n" for number in range(count)))
    outcome = plume("train", "rows.jsonl", "--output-dir", "out", *TINY)
    assert_refused(outcome)
    named = re.findall(r"^error rows\.jsonl:(\d+)", outcome.err, re.MULTILINE)
    assert named == [str(5 + number) for number in range(count)]


def test_train_shows_twenty_of_many_bad_rows_and_says_how_many_there_are(plume: Plume) -> None:
    write(ROWS + (BAD_ROWS[0] + "\n") * 33)
    outcome = plume("train", "rows.jsonl", "--output-dir", "out", *TINY)
    assert_refused(outcome, "33", "13 more")
    assert len(re.findall(r"^error rows\.jsonl:\d+", outcome.err, re.MULTILINE)) == SHOWN


def test_train_names_every_row_longer_than_the_context(plume: Plume) -> None:
    write(ROWS + '{"prompt": "a", "completion": "b"}\n{"prompt": "question 9", "completion": "no"}\n')
    outcome = plume(
        "train", "rows.jsonl", "--output-dir", "out", *TINY, "--set", "max_length=6", "--set=tokenizer=char"
    )
    assert_refused(outcome, "D301", "max_length is 6", hint=False)
    named = re.findall(r"^error rows\.jsonl:(\d+)", outcome.err, re.MULTILINE)
    assert sorted(named) == ["1", "2", "3", "4", "6"]


def test_train_refuses_evaluation_data_with_errors(plume: Plume) -> None:
    write(ROWS)
    write(ROWS.split("\n")[1] + '\n{"prompt": "new", "completion": 1}\n', "test.jsonl")
    outcome = plume("train", "rows.jsonl", "--eval-data", "test.jsonl", "--output-dir", "out", *TINY)
    assert_refused(outcome, "test.jsonl:1 D401", "test.jsonl:2 D104")


# --- mistakes in the request ---------------------------------------------------------------------

REFUSED_REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "no data": (["--output-dir", "out"], ["no training data"]),
    "misspelt key": (["rows.jsonl", "--set", "learning_rat=1"], ["learning_rat", "did you mean learning_rate?"]),
    "unknown key": (["rows.jsonl", "--set", "zzz=1"], ["zzz", "known keys"]),
    "no value": (["rows.jsonl", "--set", "max_steps"], ["key=value"]),
    "wrong type": (["rows.jsonl", "--set", "max_steps=many"], ["max_steps", "many"]),
    "fraction of a step": (["rows.jsonl", "--set", "max_steps=1.5"], ["max_steps"]),
    "no step": (["rows.jsonl", "--set", "max_steps=0"], ["max_steps", "greater than 0"]),
    "all rows held out": (["rows.jsonl", "--set", "test_size=1"], ["test_size"]),
    "unknown choice": (["rows.jsonl", "--set", "tokenizer=chars"], ["tokenizer", "'char'"]),
    "not a number": (["rows.jsonl", "--set", "learning_rate=nan"], ["learning_rate"]),
    "infinity": (["rows.jsonl", "--set", "learning_rate=inf"], ["learning_rate"]),
    "endless training": (["rows.jsonl", "--set=num_train_epochs=inf", "--set=max_steps=null"], ["num_train_epochs"]),
    "date that is none": (["rows.jsonl", "--set", "max_steps=2024-13-01"], ["max_steps"]),
    "seed beyond 64 bits": (["rows.jsonl", "--set", f"seed={2**64}"], ["seed"]),
    "endless integer": (["rows.jsonl", "--set", "max_steps=" + "9" * 5000], ["max_steps"]),
    "width that heads do not divide": (["rows.jsonl", "--set", "num_attention_heads=3"], ["hidden_size", "3"]),
    "unknown model": (["rows.jsonl", "--model", "gtp"], ["gtp", "did you mean gpt?"]),
    "model that is a file": (["rows.jsonl", "--model", "./rows.jsonl"], ["rows.jsonl", "file"]),
    "directory that is no model": (["rows.jsonl", "--model", "./empty"], ["empty"]),
    "model without tokenizer": (["rows.jsonl", "--model", "./half"], ["half", "no tokenizer"]),
    "size of a finished model": (["rows.jsonl", "--model", "./half", "--set=vocab_size=99"], ["cannot be set"]),
    "recipe missing": (["rows.jsonl", "--recipe", "gone.yaml"], ["gone.yaml", "no such recipe"]),
    "recipe is a directory": (["rows.jsonl", "--recipe", "empty"], ["empty"]),
    "recipe not YAML": (["rows.jsonl", "--recipe", "broken.yaml"], ["broken.yaml", "not YAML"]),
    "recipe not text": (["rows.jsonl", "--recipe", "binary.yaml"], ["binary.yaml"]),
    "recipe without keys": (["rows.jsonl", "--recipe", "list.yaml"], ["list.yaml", "keys"]),
    "recipe with a date that is none": (["rows.jsonl", "--recipe", "date.yaml"], ["date.yaml"]),
    "recipe with a misspelt key": (["--recipe", "misspelt.yaml"], ["misspelt.yaml", "did you mean max_steps?"]),
    "recipe and a misspelt key": (["--recipe", "good.yaml", "--set", "max_step=1"], ["--set: unknown key 'max_step'"]),
    "resume nowhere": (["--resume"], ["--output-dir"]),
    "resume what is no run": (["--resume", "--output-dir", "empty"], ["empty", "not a run"]),
    "output inside a file": (["rows.jsonl", "--output-dir", "rows.jsonl/out"], ["rows.jsonl", "not a directory"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), REFUSED_REQUESTS.values(), ids=REFUSED_REQUESTS)
def test_train_refuses_a_mistaken_request_and_says_what_to_do(
    plume: Plume, arguments: list[str], said: list[str]
) -> None:
    write(ROWS)
    write("max_steps: [1\n", "broken.yaml")
    write(bytes(range(128, 256)), "binary.yaml")
    write("- max_steps\n", "list.yaml")
    write("max_steps: 2024-13-01\n", "date.yaml")
    write("data: rows.jsonl\nmax_step: 1\n", "misspelt.yaml")
    write("data: rows.jsonl\n", "good.yaml")
    Path("empty").mkdir()
    Path("half").mkdir()
    write("{}", "half/config.json")
    sizes = [] if "--model" in arguments else TINY
    place = [] if "--output-dir" in arguments or "--resume" in arguments else ["--output-dir", "out"]
    assert_refused(plume("train", *place, *sizes, *arguments), *said)


PARTS = ["tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json", "model.safetensors"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\0"], ids=["cut", "binary"])
def test_train_refuses_a_model_directory_with_a_damaged_file(plume: Plume, part: str, content: bytes) -> None:
    write(ROWS)
    base = Path("base")
    base.mkdir()
    tokenizer = train_tokenizer("char", ["question yes"], 100)
    sizes = {"vocab_size": tokenizer.vocab_size, "hidden_size": 4, "max_length": 64}
    save(bundle(build_model("bigram", sizes), tokenizer, "sep", 4), base, "card")
    write(content, f"base/{part}")
    assert_refused(plume("train", "rows.jsonl", "--model", "./base", "--output-dir", "out"), part)


def test_train_leaves_a_directory_that_is_not_empty_untouched(plume: Plume) -> None:
    write(ROWS)
    Path("taken").mkdir()
    write("mine", "taken/notes.txt")
    outcome = plume("train", "rows.jsonl", "--output-dir", "taken", *TINY)
    assert_refused(outcome, "taken is not empty", "--output-dir")
    assert [(file.name, file.read_text(encoding="utf-8")) for file in Path("taken").iterdir()] == [
        ("notes.txt", "mine")
    ]


def test_train_leaves_a_file_in_the_place_of_the_output_directory_untouched(plume: Plume) -> None:
    write(ROWS)
    write("mine", "taken")
    assert_refused(plume("train", "rows.jsonl", "--output-dir", "taken", *TINY), "taken is a file")
    assert Path("taken").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "max_steps=3"], ["max_steps=3", "max_steps=2"]),
        (["--set", "learning_rate=0.5"], ["learning_rate=0.5"]),
        (["other.jsonl"], ["other.jsonl", "rows.jsonl"]),
        (["--model", "gru"], ["gru", "gpt"]),
        (["--split-documents"], ["split_documents"]),
        (["--recipe", "out.yaml"], ["--recipe"]),
        (["--set", "max_step=2"], ["did you mean max_steps?"]),
    ],
)
def test_resuming_with_a_contradicting_wish_is_refused_and_changes_nothing(
    plume: Plume, arguments: list[str], said: list[str]
) -> None:
    write(ROWS)
    recipe = Recipe(data="rows.jsonl", max_steps=2)
    Run.create(Path("run"), recipe, {"data": fingerprints(recipe)})
    before = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    assert_refused(plume("train", "--resume", "--output-dir", "run", *arguments), *said)
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == before


def test_resuming_with_other_data_under_the_same_name_is_refused(plume: Plume) -> None:
    write(ROWS)
    recipe = Recipe(data="rows.jsonl", max_steps=2)
    Run.create(Path("run"), recipe, {"data": fingerprints(recipe)})
    write(ROWS + '{"prompt": "new", "completion": "no"}\n')
    assert_refused(plume("train", "--resume", "--output-dir", "run"), "rows.jsonl has changed")
    Path("rows.jsonl").unlink()
    assert_refused(plume("train", "--resume", "--output-dir", "run"), "rows.jsonl")


@pytest.mark.parametrize(
    "arguments",
    [["chek"], ["check"], ["check", "--jsn", "rows.jsonl"], ["train", "--stes=3"], ["train", "rows.jsonl", "--set"]],
    ids=["unknown verb", "missing argument", "unknown option", "unknown option of train", "missing value"],
)
def test_command_line_that_makes_no_sense_exits_with_2(plume: Plume, arguments: list[str]) -> None:
    outcome = plume(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= SCREEN


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    outcome = in_process("--debug", "check", tmp_path / "gone.jsonl")
    assert outcome.code != 0
    assert "Traceback" in outcome.err


@pytest.mark.parametrize("rate", ["10", "1e30"])
def test_training_that_diverges_ends_in_one_screen_and_every_line_of_json_is_json(plume: Plume, rate: str) -> None:
    write(ROWS)
    sizes = ["--set=max_steps=20", "--set=eval_steps=1", *TINY[1:]]
    outcome = plume("train", "rows.jsonl", "--output-dir", "out", "--json", f"--set=learning_rate={rate}", *sizes)
    assert outcome.code in (0, 1)
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= SCREEN
    assert all(json.loads(line)["event"] for line in outcome.out.splitlines())
    assert info(Path("out"))["status"] == ("failed" if outcome.code else "finished")
    assert_whole(Path("out"))


# --- full disks and interruptions ----------------------------------------------------------------


def limited(size: int) -> str:
    """No file may grow beyond `size` bytes: what a full disk looks like to the one who writes."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))"
    return f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {limit}"


@pytest.mark.parametrize("size", [20_000, 120_000], ids=["weights", "optimizer"])
def test_run_on_a_full_disk_says_how_to_go_on_and_finishes_once_there_is_space(tmp_path: Path, size: int) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text(ROWS, encoding="utf-8")
    outcome = in_process("train", data, "--output-dir", out, *TINY, first=limited(size))
    assert outcome.code == 1, outcome.err
    assert "disk is full" in outcome.err
    assert "plume train --resume --output-dir" in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= SCREEN
    assert list(out.glob("checkpoints/*")) == []
    assert_whole(out)
    resumed = in_process("train", "--resume", "--output-dir", out)
    assert resumed.code == 0, resumed.err
    assert info(out)["status"] == "finished"
    assert_whole(out)


def test_run_that_could_not_begin_on_a_full_disk_leaves_the_place_free(tmp_path: Path) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text(ROWS, encoding="utf-8")
    outcome = in_process("train", data, "--output-dir", out, *TINY, first=limited(64))
    assert outcome.code == 1, outcome.err
    assert "disk is full" in outcome.err
    assert "Traceback" not in outcome.err
    assert not out.exists()


# Few lines fit into the pipe, so the command waits for its reader and cannot be done before it is interrupted.
LONG = [
    "--set=max_steps=200", "--set=logging_steps=1", "--set=eval_steps=200", "--set=save_steps=5",
    "--set=hidden_size=32", "--set=num_hidden_layers=1", "--set=num_attention_heads=2", "--set=eval_samples=2",
    "--set=max_new_tokens=4", "--set=torch_num_threads=1",
]  # fmt: skip


@pytest.mark.parametrize("awaited", ["step", "saved"])
def test_interrupted_run_says_how_to_go_on_and_finishes_when_resumed(tmp_path: Path, awaited: str) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text(ROWS, encoding="utf-8")
    arguments = ["train", str(data), "--output-dir", str(out), "--json", *LONG]
    line = command(*arguments, first="import signal; signal.signal(signal.SIGINT, signal.default_int_handler)")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pipesize=4096) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            if json.loads(raw)["event"] == awaited:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    message = err.decode("utf-8")
    assert process.returncode == 130, message
    assert f"plume train --resume --output-dir {out}" in message
    assert "Traceback" not in message
    assert info(out)["status"] == "interrupted"
    assert_whole(out)
    if awaited == "saved":
        assert list(out.glob("checkpoints/step-*"))

    resumed = in_process("train", "--resume", "--output-dir", out)
    assert resumed.code == 0, resumed.err
    assert info(out)["status"] == "finished"
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["step"] for row in rows if "train_loss" in row] == list(range(1, 201))
    assert_whole(out)

    again = in_process("train", "--resume", "--output-dir", out)
    assert (again.code, again.out) == (0, "")
    assert "already finished" in again.err


def test_logged_lines_come_back_whatever_characters_they_hold(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(ROWS, encoding="utf-8")
    run = Run.create(tmp_path / "run", Recipe(data=str(data)), {})
    samples = [{"step": step, "sample": f"a{mark}b"} for step, mark in enumerate("\u2028\x85\n\r\x0c\u2029", 1)]
    for sample in samples:
        run.log(run.samples_file, sample)
    run.forget_after(len(samples) - 1)
    kept = run.samples_file.read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in kept] == samples[:-1]


def test_run_killed_in_the_middle_of_a_line_is_read_without_it(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(ROWS, encoding="utf-8")
    run = Run.create(tmp_path / "run", Recipe(data=str(data)), {})
    run.log(run.metrics_file, {"step": 1, "train_loss": 2.0})
    with run.metrics_file.open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "train_')
    assert run.metrics() == [{"step": 1, "train_loss": 2.0}]
    run.forget_after(5)
    assert_whole(run.path)


def test_half_built_checkpoint_of_a_killed_process_is_removed_when_the_run_is_opened(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(ROWS, encoding="utf-8")
    run = Run.create(tmp_path / "run", Recipe(data=str(data)), {})
    (run.checkpoints / ".step-000005.building-x").mkdir()
    assert_whole(Run.open(run.path).path)
