"""The report is one page that needs nothing else, shows the stored numbers, and keeps data as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from plume.evaluation.report import write_report
from plume.recipe import Recipe
from plume.runs import Run, fingerprint

ATTACK = "</script><script>alert(1)</script>"
NO_SCORES: dict[str, Any] = dict.fromkeys(("exact_match", "token_f1", "json_valid", "schema_valid", "stop_rate"))
UNTRAINED: dict[str, Any] = {
    **NO_SCORES,
    "exact_match": 0.0,
    "stop_rate": 0.0,
    "perplexity": 1470.6,
    "bits_per_byte": 3.4,
    "loss": 7.29,
}
FACTS = {"split": "1 of 4 rows held out: phrasings", "parameters": 2033856, "trained_tokens": 12567, "findings": []}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text outside and inside of scripts and styles."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: tuple[str, dict[str, str | None]] = ("", {})
        self.text = ""
        self.scripts: list[str] = []
        self.marks: list[tuple[str | None, str]] = []
        self.values: list[tuple[str | None, str]] = []
        self.source = write_report(run).read_text(encoding="utf-8")
        self.feed(self.source)
        self.words = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = (tag, dict(attrs))
        self.elements.append(self.inside)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        tag, attributes = self.inside
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data
            if tag == "mark":
                self.marks.append((attributes["class"], data))
            if tag == "data":
                self.values.append((attributes["value"], data.strip()))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ("", {})
        self.text += "" if tag in ("mark", "code", "data") else " "

    @property
    def plots(self) -> list[dict[str, Any]]:
        return list(json.loads(self.scripts[0])) if self.scripts else []


def make_run(tmp_path: Path, *, recipe: Mapping[str, Any] | None = None, **facts: Any) -> Run:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    run = Run.create(
        tmp_path / "my-run",
        Recipe(data=str(data), max_steps=100, **(recipe or {})),
        {**FACTS, "data": {str(data): fingerprint(str(data))}},
    )
    run.update(**{"status": "finished", "best_step": 100, "train_seconds": 66.2, **facts})
    return run


def row(number: int, *, right: bool, **changed: Any) -> dict[str, Any]:
    shown = {
        "file": "rows.jsonl",
        "line": number,
        "turn": 1,
        "prompt": f"question {number}?",
        "reference": f"the answer is {number}",
        "answer": f"the answer is {number}" if right else f"the reply is {number}",
        "exact_match": right,
        "token_f1": 1.0 if right else 0.75,
        "json_valid": None,
        "schema_valid": None,
        "stopped": True,
        "loss": 0.5,
    }
    return {**shown, **changed}


def store(run: Run, name: str, rows: Sequence[Mapping[str, Any]], baseline: Any = UNTRAINED, **scores: Any) -> None:
    known = {**NO_SCORES, "perplexity": 1.0708, "bits_per_byte": 0.034, "loss": 0.0684, **scores}
    compared = {"name": "untrained", "rows": 64, "scores": baseline} if baseline else None
    result = {"model": "m", "data": "rows.jsonl", "scores": known, "baseline": compared, "rows": list(rows)}
    run.write_eval(name, result)


def store_questions(run: Run, name: str = "held_out", wrong: int = 1, right: int = 3, **scores: Any) -> None:
    rows = [row(number, right=number > wrong) for number in range(1, wrong + right + 1)]
    store(run, name, rows, **{"exact_match": right / (right + wrong), "token_f1": 0.9, "stop_rate": 1.0, **scores})


def log_steps(run: Run, count: int, *, kind: str = "held_out", **scores: Any) -> None:
    lines: list[dict[str, Any]] = []
    for step in range(1, count + 1):
        loss = 7 / step
        lines.append({"step": step, "epoch": step / 10, "train_loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0})
    lines.append({"step": count, "kind": kind, **NO_SCORES, "perplexity": 2.0, "loss": 0.69, **scores})
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log_steps(run, 30, exact_match=0.5)
    store_questions(run)
    page = Page(run)
    tags = [tag for tag, _ in page.elements]
    assert not {"iframe", "img", "object", "embed", "base", "form", "a"} & set(tags)
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links == ["data:,"]
    assert "@import" not in page.source
    assert "url(" not in page.source
    (policy,) = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith(
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
    )
    assert ("html", {"lang": "en"}) in page.elements
    labels = [attributes["aria-label"] for tag, attributes in page.elements if attributes.get("role") == "img"]
    assert len(labels) == len(page.plots) == 3
    assert "training loss: 7.000 at step 1, 0.2333 at step 30" in str(labels[0])


def test_same_directory_same_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log_steps(run, 5)
    store_questions(run)
    assert write_report(run) == run.report_file
    first = run.report_file.read_bytes()
    write_report(run)
    assert run.report_file.read_bytes() == first


def test_data_stays_text(tmp_path: Path) -> None:
    recipe = {"model": f"base{ATTACK}"}
    run = make_run(tmp_path, recipe=recipe, findings=[ATTACK], data={ATTACK: ATTACK}, split=ATTACK)
    log_steps(run, 3, kind=f"{ATTACK}\u2028&", exact_match=1.0)
    run.log(run.samples_file, {"step": 3, "sample": f"{ATTACK} → {ATTACK}"})
    store(run, "held_out", [row(1, right=False, prompt=ATTACK, reference="<b>", answer=ATTACK)], exact_match=0.0)
    page = Page(run)
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 3
    assert ATTACK not in page.source
    assert page.text.count(ATTACK) >= 8
    assert not set("<>&\u2028\u2029'") & set(page.scripts[0])
    assert page.plots[0]["series"][1]["label"] == f"{ATTACK}\u2028& loss"
    assert page.marks == [("expected", "b"), ("answered", ATTACK[1:-1])]


def test_numbers_are_those_of_the_json(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run, wrong=1, right=3, perplexity=12.5)
    store_questions(run, "recall", wrong=1, right=1999)
    store_questions(run, "hard", wrong=2, right=0, baseline=None)
    page = Page(run)
    stored = [json.loads((run.path / "eval" / f"{name}.json").read_text()) for name in ("held_out", "recall", "hard")]
    scores = [part["scores"] for result in stored for part in (result, result["baseline"]) if part]
    metrics = ["exact_match", "token_f1", "stop_rate", "perplexity", "bits_per_byte", "loss"]
    expected = ["" if part[metric] is None else str(part[metric]) for metric in metrics for part in scores]
    assert [value for value, _ in page.values] == expected
    shown = [text.replace("\N{NO-BREAK SPACE}", " ") for _, text in page.values]
    assert shown[:5] == ["75 %", "0 %", "99.9 %", "0 %", "0 %"]
    assert shown[15:20] == ["12.50", "1,471", "1.071", "1,471", "1.071"]
    assert "JSON valid" not in page.words
    assert "rows of rows.jsonl" in page.words


def test_verdict_of_held_out_questions(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run)
    store_questions(run, "recall", wrong=0, right=2)
    words = Page(run).words
    assert (
        "Answers 75 % of questions phrased in ways it never saw, exactly; all its answers stop; untrained: 0 %."
        in words
    )
    assert "Recall: 100 % of 2 training questions, exactly. This is memory, not understanding." in words


@pytest.mark.parametrize(
    ("recipe", "asked"),
    [
        ({"split_by": "answer"}, "of questions whose answers it was never taught, exactly"),
        ({"eval_data": "rows.jsonl"}, "of questions of rows.jsonl, exactly"),
    ],
)
def test_verdict_says_what_was_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path, recipe=recipe)
    store_questions(run)
    assert asked in Page(run).words


def test_only_recall_is_never_called_understanding(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run, "recall", wrong=1, right=299, stop_rate=0.75)
    words = Page(run).words
    assert (
        "Repeats 99 % of the answers it was trained on, exactly (memory, not understanding: no row was held out); "
        "25 % of its answers do not stop; untrained: 0 %." in words
    )
    assert "never saw" not in words
    assert "Held-out" not in words


def test_training_that_did_not_help_is_said_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run, exact_match=0.0, loss=8.0)
    assert "untrained: 0 %, so training has not helped." in Page(run).words


def test_wrong_rows_show_where_they_differ(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run, wrong=25, right=2)
    page = Page(run)
    assert page.marks[:2] == [("expected", "answer"), ("answered", "reply")]
    assert "25 of 27 answers are wrong, the worst first." in page.words
    assert "7 more in eval/held_out.json." in page.words
    assert "question 20?" in page.words
    assert "question 21?" not in page.words


def test_long_answers_are_cut_around_the_difference(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    same = "x " * 1000
    store(run, "held_out", [row(1, right=False, reference=f"{same}one", answer=f"{same}two")], exact_match=0.0)
    page = Page(run)
    assert page.marks == [("expected", "one"), ("answered", "two")]
    assert page.text.count("x ") < 250


def test_right_text_without_a_stop_marks_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store(run, "held_out", [row(1, right=False, answer="the answer is 1", stopped=False)], exact_match=0.0)
    page = Page(run)
    assert page.marks == []
    assert "does not stop" in page.words


def test_all_right_shows_the_least_certain(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run, wrong=0, right=8)
    page = Page(run)
    assert "All 8 answers are right. It was least certain of these: " in page.words
    assert "question 5?" in page.words
    assert "question 6?" not in page.words
    assert "3 more in eval/held_out.json." in page.words
    assert page.marks == []


def test_text_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, bigram_entropy=2.4312)
    log_steps(run, 40)
    run.log(run.samples_file, {"step": 20, "sample": "Call me → \u2028 what"})
    run.log(run.samples_file, {"step": 40, "sample": "Call me Ishmael."})
    asked_nothing = {"exact_match": None, "token_f1": None, "stopped": None, "prompt": "", "answer": ""}
    stretch = row(7, right=False, **{**asked_nothing, "reference": "a hard stretch"})
    untrained = {**UNTRAINED, **NO_SCORES}
    store(run, "held_out", [stretch], baseline=untrained, perplexity=7.2)
    store(run, "recall", [stretch], baseline=untrained, perplexity=5.01)
    page = Page(run)
    assert "On text it never saw it hesitates between about 7.20 tokens at each step (its perplexity)" in page.words
    assert "untrained: 1,471." in page.words
    assert "Recall: perplexity 5.01 on the text it was trained on. This is memory, not understanding." in page.words
    assert not {"Exact match", "Stop rate", "Question", "Answered"} & set(page.words.split(" "))
    assert "Exact match" not in page.words
    assert [plot["title"] for plot in page.plots] == ["Loss", "Learning rate"]
    assert page.plots[0]["limit"] == pytest.approx(2.4312)
    assert "Bigram entropy, 2.431" in page.words
    assert "Call me → \u2028 what" in page.text
    assert page.words.index("Call me Ishmael.") < page.words.index("a hard stretch")


def test_samples_share_their_question(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for step in range(1, 31):
        run.log(run.samples_file, {"step": step, "sample": f"Which pet? → cat {step}"})
    with run.samples_file.open("a", encoding="utf-8") as file:
        file.write('{"step": 31, "sam')
    words = Page(run).words
    assert words.count("Which pet?") == 1
    assert "step 1 cat 1 step 3 cat 3" in words
    assert "step 30 cat 30 12 of 30; all are in samples.jsonl." in words


def test_many_steps_are_thinned_and_keep_their_extremes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    steps = [{"step": step, "epoch": 1.0, "train_loss": 2 + math.sin(step)} for step in range(1, 10_001)]
    steps[5000]["train_loss"] = 90.0
    steps[6000]["train_loss"] = math.nan
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in steps), encoding="utf-8")
    (plot,) = Page(run).plots
    assert len(plot["steps"]) <= 1000
    assert plot["steps"] == sorted(set(plot["steps"]))
    assert (plot["steps"][0], plot["steps"][-1]) == (1, 10_000)
    assert max(plot["series"][0]["values"]) == 90.0


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"status": "interrupted"}, "Training is not finished (status: interrupted): nothing is proven yet."),
        ({"status": "failed", "failure": "the loss is nan"}, "Training failed: the loss is nan."),
        ({}, "Training is finished, but nothing was evaluated."),
    ],
)
def test_run_without_scores(tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    page = Page(make_run(tmp_path, **facts))
    assert said in page.words
    assert page.plots == []


def test_other_files_in_eval_are_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_questions(run)
    (run.path / "eval" / "cut.json").write_text('{"sco', encoding="utf-8")
    (run.path / "eval" / "note.json").write_text('["a note"]', encoding="utf-8")
    words = Page(run).words
    assert "rows of" not in words
    assert "a note" not in words


def test_how_to_repeat_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, findings=[f"rows.jsonl:{line}: D201 repeated" for line in range(120)])
    words = Page(run).words
    info = run.info()
    assert "plume train --recipe recipe.yaml --output-dir again" in words
    assert info["split"] in words
    assert all(digest in words for digest in info["data"].values())
    assert all(f"{name} {version}" in words for name, version in info["libraries"].items())
    assert all(key in words for key in Recipe.model_fields)
    assert "rows.jsonl:99: D201 repeated" in words
    assert "20 more in run.json." in words


def test_what_was_tried_and_chosen_is_shown(tmp_path: Path) -> None:
    curve = [[1e-5 * 10 ** (at / 10), 5 - at / 20] for at in range(40)]
    choices = {"learning_rate": {"value": 0.0017, "reason": "a third of the lowest <loss>"}}
    run = make_run(tmp_path, learning_rate_range_test=curve, choices=choices)
    log_steps(run, 5)
    page = Page(run)
    (tried,) = [plot for plot in page.plots if plot["x"] == "rate"]
    assert tried["log_x"]
    assert list(zip(tried["steps"], tried["series"][0]["values"], strict=True)) == [tuple(point) for point in curve]
    assert tried["marks"] == [{"at": 0.0017, "label": "chosen"}]
    assert "learning_rate 0.0017 a third of the lowest <loss>" in page.words


def test_what_happened_on_the_way_is_told(tmp_path: Path) -> None:
    back = {"step": 30, "to_step": 10, "reason": "the loss is nan"}
    recipe = {"early_stopping_patience": 3, "eval_steps": 10}
    page = Page(make_run(tmp_path, recipe=recipe, best_step=20, rolled_back=back, stopped_early=50))
    assert "At step 30 the loss is nan: training went back to step 10, and on at half the rate." in page.words
    assert "after step 50 of 100: 3 evaluations in a row were no better than that of step 20." in page.words
