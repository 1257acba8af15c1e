"""D6: run directories, most of them written by hand, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from plume.checks.catalogue import CATALOGUE
from plume.errors import UserError
from plume.evaluation.diagnose import diagnose
from plume.events import Finished
from plume.recipe import dump_recipe, parse_recipe
from plume.runs import Run
from plume.training.loop import train
from plume.types import Finding

GOOD = {"exact_match": 1.0, "stop_rate": 1.0, "loss": 0.1}
BASE = {"exact_match": 0.0, "stop_rate": 0.0, "loss": 6.0}
PLACES = ("tower", "harbour", "oven", "meadow", "chapel", "quay")


def answers(*said: str, references: tuple[str, ...] = PLACES) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Where is {n}?", "reference": reference, "answer": answer, "exact_match": answer == reference}
        for n, (answer, reference) in enumerate(zip(said, references, strict=True))
    ]


class Made:
    """A run directory, good in every way until told otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info: dict[str, Any] = {"status": "finished"}
        self.metrics: list[dict[str, Any]] = [{"step": n, "train_loss": 3 / n} for n in range(1, 11)]
        self.results: dict[str, Any] = {"recall": self.result(GOOD, answers(*PLACES))}

    @staticmethod
    def result(scores: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"scores": scores, "baseline": {"name": "untrained", "scores": BASE}, "rows": rows}

    def findings(self) -> list[Finding]:
        (self.path / "eval").mkdir(parents=True, exist_ok=True)
        (self.path / "recipe.yaml").write_text(dump_recipe(parse_recipe({"data": "qa.jsonl"})), encoding="utf-8")
        (self.path / "run.json").write_text(json.dumps(self.info), encoding="utf-8")
        lines = "".join(json.dumps(row) + "\n" for row in self.metrics)
        (self.path / "metrics.jsonl").write_text(lines, encoding="utf-8")
        for kind, result in self.results.items():
            (self.path / "eval" / f"{kind}.json").write_text(json.dumps(result), encoding="utf-8")
        found = list(diagnose(Run(self.path)))
        assert all(finding.severity in CATALOGUE[finding.code].severity for finding in found)
        return found

    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings()]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "run")


def test_a_good_run_gives_nothing(made: Made) -> None:
    assert made.findings() == []


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        list(diagnose(Run(tmp_path)))


def test_a_run_that_diverged(made: Made) -> None:
    made.info = {"status": "failed", "failure": "the loss is nan and its gradient nan at step 7"}
    made.results = {}
    found = made.findings()
    assert [finding.code for finding in found] == ["D601"]
    assert "step 7" in found[0].message


def test_a_logged_loss_that_is_no_number(made: Made) -> None:
    made.metrics.append({"step": 11, "train_loss": float("nan")})
    assert made.codes() == ["D601"]


def test_weights_that_are_not_finite(made: Made) -> None:
    (made.path / "model").mkdir(parents=True)
    weights = np.ones((3, 3), dtype=np.float32)
    save_file({"fine": weights}, made.path / "model" / "model.safetensors")
    assert made.codes() == []
    save_file({"fine": weights, "broken": weights * np.inf}, made.path / "model" / "model.safetensors")
    assert "broken" in made.findings()[0].message


def evaluated(*rows: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [{"step": step, "kind": "held_out", "loss": loss, "exact_match": exact} for step, loss, exact in rows]


def test_evaluation_rises_while_training_falls(made: Made) -> None:
    made.metrics += evaluated((2, 1.0, 0.5), (6, 1.2, 0.5), (10, 1.9, 0.5))
    found = made.findings()
    assert [finding.code for finding in found] == ["D602"]
    assert "step 2" in found[0].message


def test_a_surer_model_that_is_right_more_often_is_not_overfitted(made: Made) -> None:
    made.metrics += evaluated((2, 1.0, 0.5), (6, 1.2, 0.6), (10, 1.9, 0.8))
    assert made.codes() == []


def test_answers_that_do_not_stop(made: Made) -> None:
    made.results["recall"]["scores"] = {**GOOD, "stop_rate": 0.75}
    found = made.findings()
    assert [finding.code for finding in found] == ["D603"]
    assert "25%" in found[0].message


def test_held_out_rows_count_before_recall(made: Made) -> None:
    made.results["recall"]["scores"] = {**GOOD, "stop_rate": 0.0}
    made.results["held_out"] = made.result(GOOD, answers(*PLACES))
    assert made.codes() == []


def test_the_same_answer_to_everything(made: Made) -> None:
    made.results["recall"]["rows"] = answers(*["tower"] * 6)
    found = made.findings()
    assert [(finding.code, finding.quote) for finding in found] == [("D604", "tower")]


def test_the_same_answer_where_it_is_right(made: Made) -> None:
    made.results["recall"]["rows"] = answers(*["yes"] * 6, references=("yes",) * 5 + ("no",))
    assert made.codes() == []


def test_answers_that_are_questions(made: Made) -> None:
    made.results["recall"]["rows"] = answers("Where is it?", "Who keeps it ?", "Which one?", *PLACES[3:])
    assert made.codes() == ["D605"]
    asked = ("Where is it?", "Who?", "Which one?", *PLACES[3:])
    made.results["recall"]["rows"] = answers(*asked, references=asked)
    assert made.codes() == []


def test_answers_in_a_circle(made: Made) -> None:
    circle = "In the tower, " * 8
    made.results["recall"]["rows"] = answers(circle, "Well. " + circle, *PLACES[2:])
    found = made.findings()
    assert [(finding.code, finding.quote) for finding in found] == [("D606", "In the tower,")]
    made.results["recall"]["rows"] = answers(circle, circle, *PLACES[2:], references=(circle, circle, *PLACES[2:]))
    assert made.codes() == []


@pytest.mark.parametrize(
    "answer", ["[0, 0, 0, 0, 0]", "1000000000", "Chapter one ----------", "ha ha ha ha", '{"a": ""}']
)
def test_repetition_that_is_no_circle(made: Made, answer: str) -> None:
    made.results["recall"]["rows"] = answers(answer, answer, *PLACES[2:])
    assert made.codes() == []


def test_a_reloaded_model_that_answers_otherwise(made: Made) -> None:
    made.info = {"status": "failed", "failure": "the reloaded model answers differently"}
    made.results = {}
    assert made.codes() == ["D607"]


def test_no_better_than_the_baseline(made: Made) -> None:
    made.results["recall"]["scores"] = {"exact_match": 0.0, "stop_rate": 1.0, "loss": 6.5}
    made.metrics = []
    assert made.codes() == ["D608"]


def test_a_low_loss_that_counted_something_else(made: Made) -> None:
    made.metrics = [{"step": 1, "train_loss": 4.0}, {"step": 300, "train_loss": 0.19}]
    made.results["recall"]["scores"] = {"exact_match": 0.0, "stop_rate": 1.0, "loss": 5.1}
    assert made.codes() == ["D609"]


def test_long_answers_with_a_low_loss_and_none_exact(made: Made) -> None:
    made.metrics = [{"step": 300, "train_loss": 0.5}]
    made.results["recall"]["scores"] = {"exact_match": 0.0, "stop_rate": 1.0, "loss": 0.6}
    assert made.codes() == []


def test_abilities_lost_when_the_run_measured_them(made: Made) -> None:
    made.info["forgetting"] = {"file": "held.txt", "perplexity_before": 20.0, "perplexity_after": 31.0}
    assert made.codes() == ["D610"]
    made.info["forgetting"]["perplexity_after"] = 21.0
    assert made.codes() == []


def test_a_real_run_says_what_training_said(tmp_path: Path, qa_file: Path) -> None:
    """The rules that finish a run and those that read it later must agree."""
    from conftest import TINY

    recipe = parse_recipe({**TINY, "data": str(qa_file), "max_steps": 4, "max_new_tokens": 12})
    events = list(train(recipe, tmp_path / "run"))
    finished = events[-1]
    assert isinstance(finished, Finished)
    later = {(finding.code, finding.message) for finding in diagnose(Run(tmp_path / "run"))}
    assert {(finding.code, finding.message) for finding in finished.findings} <= later
