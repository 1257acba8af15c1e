"""A search for better settings: what is proposed, what is kept, and that a kill changes nothing."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import TINY
from plume.errors import RunFailed, UserError
from plume.evaluation.charts import percent
from plume.events import Evaluated, Saved
from plume.recipe import Recipe, load_recipe
from plume.training.loop import train
from plume.training.search import (
    Choices,
    Proposed,
    Range,
    Search,
    Space,
    Training,
    Trial,
    Tuned,
    TuneEvent,
    parse_search,
)
from plume.training.tune import objective, tune

SPACE: Space = {"learning_rate": Range(0.001, 0.02, log=True), "dropout": Choices((0.0, 0.1))}
QUICK = {**TINY, "hidden_size": 16, "max_steps": 6, "eval_steps": 2, "test_size": 0.2, "max_new_tokens": 4}


def recipe(data: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate({"data": str(data), **QUICK, **changes})


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def without_time(trials: tuple[Trial, ...]) -> list[tuple[Any, ...]]:
    return [(one.trial, one.state, one.params, one.value, one.scores, one.best, one.reason) for one in trials]


def result(events: Iterator[TuneEvent]) -> Tuned:
    last = list(events)[-1]
    assert isinstance(last, Tuned)
    return last


# --- what is searched ---


def test_ranges_and_choices_are_read_as_the_recipe_reads_them() -> None:
    assert parse_search(["learning_rate=1e-4:1e-2:log", "weight_decay=0:1", "max_steps=10:20", "optim=adamw,muon"]) == {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "weight_decay": Range(0.0, 1.0),
        "max_steps": Range(10, 20),
        "optim": Choices(("adamw", "muon")),
    }
    assert parse_search(["max_steps=10:20"])["max_steps"].at(0.44) == 14
    assert not Range(0.0, 1.0).whole


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("learning_rat=1:2", "unknown key"),
        ("dropout", "not of the form"),
        ("dropout=0:2", "dropout=2"),
        ("dropout=0.3:0.1", "not below"),
        ("dropout=0:0.5:log", "begins above 0"),
        ("dropout=0:0.5:lin", "not of the form"),
        ("dropout=0.1", "one value"),
        ("optim=adamw:muon", "two numbers"),
        ("seed=1,2,3", "luck"),
        ("test_size=0.1,0.2", "cannot be compared"),
        ("save_steps=1:5", "does not change what is learnt"),
    ],
)
def test_what_cannot_be_searched_is_refused(asked: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_search([asked])


def test_one_more_exact_answer_outweighs_any_loss() -> None:
    good = objective({"exact_match": 0.7, "bits_per_byte": 50.0}, 10)
    bad = objective({"exact_match": 0.6, "bits_per_byte": 0.0}, 10)
    assert good > bad > objective({"exact_match": 0.6, "bits_per_byte": 0.1}, 10)
    assert objective({"exact_match": None, "bits_per_byte": 1.5}, 0) == -1.5


def test_a_mistake_stops_before_anything_is_written(qa_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    for search, fixed, said in (
        ({"num_attention_heads": Choices((3, 5))}, (), "3"),
        (SPACE, ("dropout",), "both set and searched"),
    ):
        with pytest.raises(UserError, match=said):
            next(tune(recipe(qa_file, num_attention_heads=None), out, search=search, fixed=fixed))
        assert not out.exists()


def test_without_the_library_one_line_says_how_to_get_it(
    qa_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError) as refused:
        next(tune(recipe(qa_file), tmp_path / "search"))
    assert refused.value.hint == "pip install 'plume-lm[tune]'"


def test_a_search_is_one_process(qa_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        next(tune(recipe(qa_file), tmp_path / "search"))
    assert not (tmp_path / "search").exists()


# --- a search ---


def test_a_search_keeps_the_best_run_and_a_recipe_that_repeats_it(qa_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    events = list(tune(recipe(qa_file), out, n_trials=3))
    begun, done = events[0], events[-1]
    assert isinstance(begun, Search)
    assert isinstance(done, Tuned)
    assert set(begun.search) == {"learning_rate", "per_device_train_batch_size", "weight_decay", "dropout"}
    proposed = [event.params for event in events if isinstance(event, Proposed)]
    automatic = load_recipe(out / "trials" / "0000" / "recipe.yaml")
    assert proposed[0] == {key: getattr(automatic, key) for key in begun.search}
    assert automatic.learning_rate == 0.0015
    ended = [event for event in events if isinstance(event, Trial)]
    assert [trial.value for trial in done.trials] == [trial.value for trial in ended]
    best = max(ended, key=lambda trial: trial.value or -9)
    assert (done.best_trial, done.best_run) == (best.trial, out / "trials" / f"{best.trial:04d}")
    assert [(run / "model").exists() for run in sorted((out / "trials").iterdir())] == [
        trial.trial == best.trial for trial in ended
    ]
    assert not list(out.glob("trials/*/checkpoints"))
    assert "which have chosen it" in done.note
    for _ in train(load_recipe(done.best_recipe), tmp_path / "again"):
        pass
    assert digest(tmp_path / "again") == digest(done.best_run)


def test_the_report_shows_every_trial_and_loads_nothing(qa_file: Path, tmp_path: Path) -> None:
    done = result(tune(recipe(qa_file), tmp_path / "search", search=SPACE, n_trials=3))
    page = done.report.read_text(encoding="utf-8")
    assert page.count("<polyline") == 3
    assert f"Trial {done.best_trial} is best" in page
    assert percent(done.trials[done.best_trial].scores["exact_match"] or 0.0) in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="' not in page


def test_few_combinations_are_tried_once_each(qa_file: Path, tmp_path: Path) -> None:
    space: Space = {"dropout": Choices((0.0, 0.2)), "warmup_steps": Choices((0, 3))}
    done = result(tune(recipe(qa_file), tmp_path / "search", search=space, n_trials=9))
    tried = [tuple(trial.params.values()) for trial in done.trials]
    assert sorted(tried) == [(0.0, 0), (0.0, 3), (0.2, 0), (0.2, 3)]


def test_a_run_that_falls_behind_is_stopped_early(qa_file: Path, tmp_path: Path) -> None:
    space: Space = {"learning_rate": Choices((0.004, 0.005, 0.006, 0.007, 1e-6))}
    out = tmp_path / "search"
    done = result(tune(recipe(qa_file, eval_steps=1, seed=6), out, search=space, n_trials=5))
    assert done.trials[4].params["learning_rate"] == 1e-6
    assert [trial.state for trial in done.trials] == ["finished"] * 4 + ["pruned"]
    info = json.loads((out / "trials" / "0004" / "run.json").read_text(encoding="utf-8"))
    assert info["status"] == "interrupted"


def test_a_diverged_trial_is_recorded_and_the_search_goes_on(qa_file: Path, tmp_path: Path) -> None:
    space: Space = {"learning_rate": Choices((0.002, 1e30))}
    done = result(tune(recipe(qa_file), tmp_path / "search", search=space))
    failed = next(trial for trial in done.trials if trial.params["learning_rate"] == 1e30)
    assert failed.state == "failed"
    assert failed.reason
    assert done.trials[done.best_trial].params["learning_rate"] == 0.002
    with pytest.raises(RunFailed, match="none of 2 trials"):
        list(tune(recipe(qa_file), tmp_path / "other", search={"learning_rate": Choices((1e29, 1e30))}))


def test_text_is_searched_by_bits_per_byte(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 60, encoding="utf-8")
    space: Space = {"learning_rate": Choices((0.02, 0.001))}
    done = result(tune(recipe(text, model="bigram", max_length=32), tmp_path / "search", search=space))
    best = done.trials[done.best_trial]
    assert best.value == -(best.scores["bits_per_byte"] or 0.0)
    assert best.scores["bits_per_byte"] == min(trial.scores["bits_per_byte"] or 9 for trial in done.trials)


# --- resume ---


def test_a_broken_search_ends_as_the_unbroken_one(qa_file: Path, tmp_path: Path) -> None:
    """Broken after a trial, between proposal and training, and in mid-run; seven trials, so that results propose."""
    asked = recipe(qa_file, max_steps=4)
    whole = result(tune(asked, tmp_path / "whole", search=SPACE, n_trials=7))
    moments: tuple[Callable[[TuneEvent], bool], ...] = (
        lambda event: isinstance(event, Trial) and event.trial == 1,
        lambda event: isinstance(event, Proposed) and event.trial == 3,
        lambda event: isinstance(event, Training) and event.trial == 4 and isinstance(event.event, Evaluated),
        lambda event: isinstance(event, Training) and event.trial == 6 and isinstance(event.event, Saved),
    )
    out = tmp_path / "broken"
    for index, stop in enumerate(moments):
        events = tune(asked, out, search=SPACE, n_trials=7, resume=index > 0)
        next(event for event in events if stop(event))
        events.close()
    resumed = result(tune(Recipe(), out, resume=True))
    assert without_time(resumed.trials) == without_time(whole.trials)
    assert digest(resumed.best_run) == digest(whole.best_run)
    assert len({tuple(trial.params.values()) for trial in whole.trials}) == 7


def test_a_finished_search_can_be_given_more_trials(qa_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    result(tune(recipe(qa_file), out, search=SPACE, n_trials=1))
    events = list(tune(Recipe(), out, n_trials=2, resume=True))
    assert [event.trial for event in events if isinstance(event, Trial)] == [1]
    with pytest.raises(UserError, match="begun with n_trials=2"):
        next(tune(Recipe(), out, n_trials=1, resume=True))


def test_no_time_begins_no_trial_and_leaves_a_search_to_resume(qa_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    with pytest.raises(Exception, match="no trial was finished in time"):
        list(tune(recipe(qa_file), out, search=SPACE, n_trials=1, timeout=0))
    assert len(result(tune(Recipe(), out, resume=True)).trials) == 1


def test_changed_data_is_refused(qa_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    events = tune(recipe(qa_file), out, search=SPACE, n_trials=1)
    next(events)
    events.close()
    qa_file.write_text(qa_file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="has changed since the search began"):
        next(tune(Recipe(), out, resume=True))
    with pytest.raises(UserError, match="is not a search"):
        next(tune(Recipe(), tmp_path, resume=True))


def test_the_command_killed_in_a_trial_goes_on(qa_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from plume.cli.main import main; main()", "tune"]
    settings = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    wanted = [str(qa_file), "--search", "learning_rate=0.001:0.02:log", "--n-trials", "2", *settings]
    out = tmp_path / "search"
    with subprocess.Popen(
        [*command, *wanted, "--output-dir", str(out), "--json"], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "evaluated" and event["trial"] == 1:
                process.send_signal(signal.SIGKILL)
                break
    done = subprocess.run(
        [*command, "--resume", "--output-dir", str(out), "--json"], capture_output=True, text=True, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (events[0]["event"], events[0]["done"], events[-1]["event"]) == ("search", 1, "tuned")
    assert [trial["state"] for trial in events[-1]["trials"]] == ["finished", "finished"]
    assert yaml.safe_load((out / "best-recipe.yaml").read_text(encoding="utf-8"))["hidden_size"] == 16
