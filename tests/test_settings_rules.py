"""D5: recipes and generation settings that cannot do what they seem to ask."""

from pathlib import Path
from typing import Any

import pytest

from plume.checks.catalogue import CATALOGUE
from plume.checks.settings import (
    RunFacts,
    asking_findings,
    sampling_findings,
    settings_findings,
    template_findings,
)
from plume.recipe import parse_recipe
from plume.training.preflight import facts
from plume.training.prepare import prepare
from plume.types import Example, Finding, Message, Source

USUAL = RunFacts(steps_per_epoch=24, usual_rate=1.5e-3, usual_steps=720)
HERE = Source("generation_config.json")


def said(**changes: Any) -> list[Finding]:
    usual = {"max_steps": 720, "learning_rate": 1.5e-3, "warmup_steps": 72, "eval_steps": 90, "save_steps": 90}
    found = list(settings_findings(parse_recipe({"data": "qa.jsonl", **usual, **changes}), USUAL))
    assert all(finding.severity in CATALOGUE[finding.code].severity for finding in found)
    return found


def codes(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found]


def test_usual_choices_give_nothing() -> None:
    assert said() == []


@pytest.mark.parametrize(("rate", "steps"), [(2e-5, 300), (2e-5, 15), (1e-6, 720)])
def test_a_rate_too_small_for_the_steps(rate: float, steps: int) -> None:
    assert "D501" in codes(said(learning_rate=rate, max_steps=steps, warmup_steps=0, eval_steps=1, save_steps=1))


def test_a_rate_that_diverges() -> None:
    assert codes(said(learning_rate=0.1)) == ["D501"]


@pytest.mark.parametrize("rate", [3e-4, 5e-4, 3e-3, 8e-3])
def test_rates_in_range(rate: float) -> None:
    assert said(learning_rate=rate) == []


@pytest.mark.parametrize(("steps", "few"), [(3, True), (40, True), (300, False), (2000, False)])
def test_too_few_steps(steps: int, few: bool) -> None:
    found = said(max_steps=steps, warmup_steps=0, eval_steps=1, save_steps=1)
    assert [finding.code for finding in found if "too few" in finding.message] == ["D502"] * few


def test_epochs_that_only_memorise() -> None:
    assert "learnt by heart" in said(max_steps=30_000)[0].hint


def test_long_data_needs_no_thousands_of_steps() -> None:
    facts = RunFacts(steps_per_epoch=10_000, usual_rate=1.5e-3, usual_steps=31_500)
    recipe = parse_recipe({"data": "qa.jsonl", "max_steps": 2000, "learning_rate": 1.5e-3})
    assert list(settings_findings(recipe, facts)) == []


def test_a_warmup_as_long_as_the_run() -> None:
    found = said(max_steps=200, warmup_steps=500)
    assert codes(found) == ["D502"]
    assert "200/501" in found[0].message


@pytest.mark.parametrize("key", ["eval_steps", "save_steps"])
def test_intervals_longer_than_the_run(key: str) -> None:
    assert key in said(**{key: 1000})[0].message


@pytest.mark.parametrize(("rows", "model"), [(5, "gpt"), (15, "gpt"), (5, "gru"), (5, "bigram")])
def test_automatic_choices_for_questions_give_nothing(tmp_path: Path, rows: int, model: str) -> None:
    lines = [f'{{"prompt": "Where is lamp {n % 5}, {n}?", "completion": "In tower {n % 5}."}}' for n in range(rows)]
    (tmp_path / "qa.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepared = prepare(parse_recipe({"data": "qa.jsonl", "model": model}))
    assert list(settings_findings(prepared.recipe, facts(prepared))) == []


def test_automatic_choices_for_text_give_nothing(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("The lamp burns in the tower.\n" * 400, encoding="utf-8")
    prepared = prepare(parse_recipe({"data": "book.txt"}))
    assert list(settings_findings(prepared.recipe, facts(prepared))) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 5.0, "do_sample": False},
        {"top_p": 0.9},
        {"top_k": 10, "num_beams": 5},
        {"do_sample": True, "temperature": 0},
        {"do_sample": True, "temperature": 0.7, "num_beams": 5},
        {"early_stopping": True},
        {"early_stopping": True, "num_beams": 1},
    ],
)
def test_settings_that_cancel_one_another(settings: dict[str, Any]) -> None:
    found = list(sampling_findings(settings, HERE))
    assert [(finding.code, finding.severity) for finding in found] == [("D503", "error")]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_new_tokens": 64, "do_sample": False, "eos_token_id": [1, 2]},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 20},
        {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50},
        {"num_beams": 5, "early_stopping": True},
        {"temperature": None, "early_stopping": False, "length_penalty": 1.0},
    ],
)
def test_settings_that_hold_together(settings: dict[str, Any]) -> None:
    assert list(sampling_findings(settings, HERE)) == []


def row(line: int, system: str = "") -> Example:
    turns = (Message("user", "Where?"), Message("assistant", "Here."))
    return Example((Message("system", system), *turns) if system else turns, Source("qa.jsonl", line))


def test_asked_under_another_system_prompt() -> None:
    taught = [row(1, "You keep a lighthouse."), row(2, "You keep a lighthouse.")]
    found = list(asking_findings(taught, [row(3, "You keep a lighthouse."), row(4, "You are a pirate."), row(5)]))
    assert [(finding.code, finding.source.line, finding.quote) for finding in found] == [
        ("D506", 4, "You are a pirate.")
    ]
    assert list(asking_findings(taught, taught)) == []
    assert list(asking_findings([*taught, row(6)], [row(4, "You are a pirate.")])) == []


def test_a_template_changed_since_training() -> None:
    assert codes(list(template_findings("{{ a }}", "{{ b }}", HERE))) == ["D506"]
    assert list(template_findings("{{ a }}", "{{ a }}\n", HERE)) == []
