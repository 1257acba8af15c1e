"""A run that diverges goes back once and more slowly; a damaged checkpoint is noticed and passed over."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY
from plume.errors import RunFailed
from plume.events import Finished, RolledBack, Saved, Started, Step, TrainEvent
from plume.recipe import Recipe
from plume.runs import Run
from plume.training import loop
from plume.training.batches import Batch
from plume.training.checkpoint import checkpoints
from plume.training.learner import Learner
from plume.training.step import step_once
from plume.training.watch import Watch


def recipe(data: Path, **changes: Any) -> Recipe:
    settings = {"max_steps": 40, "save_steps": 5, "eval_steps": 40, "save_total_limit": 9, "logging_steps": 1}
    return Recipe.model_validate({"data": str(data), **TINY, **settings, **changes})


def run(recipe: Recipe, path: Path, **options: Any) -> list[TrainEvent]:
    return list(loop.train(recipe, path, **options))


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model" / "model.safetensors").read_bytes()).hexdigest()


def watched(losses: Sequence[float]) -> str | None:
    watch = Watch()
    for loss in losses:
        if trouble := watch.trouble(loss, 1.0):
            return trouble
        watch = watch.seen(loss)
    return None


FALLING = [4 * math.exp(-step / 30) for step in range(100)]


@pytest.mark.parametrize(
    "losses",
    [
        FALLING,
        [*FALLING, *[3.5] * 3, *FALLING[-20:]],
        [1.0 + 0.8 * (step % 2) for step in range(100)],
        [0.1 + step / 120 for step in range(100)],
    ],
    ids=["falling", "a few hard rows", "noisy", "rising by less than a nat"],
)
def test_what_is_no_divergence(losses: list[float]) -> None:
    assert watched(losses) is None


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ([*FALLING, math.nan], "is nan"),
        ([math.inf], "is inf"),
        ([*FALLING, *[4.0] * 16], "has risen from"),
        ([2.0 + step for step in range(60)], "has risen from"),
    ],
    ids=["not a number", "infinite at once", "climbed back", "rising from the start"],
)
def test_what_is_one(losses: list[float], reason: str) -> None:
    assert reason in (watched(losses) or "")


@pytest.fixture
def breaks_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a step's loss not a number, as overflow would; `always` also after the run went back."""

    def arrange(step: int, *, always: bool = False) -> None:
        def broken(
            learner: Learner, group: Sequence[tuple[float, Batch]], number: int, made: Recipe, *, scale: float
        ) -> Step:
            event = step_once(learner, group, number, made, scale=scale)
            return replace(event, loss=math.nan) if number == step and (always or scale == 1) else event

        monkeypatch.setattr(loop, "step_once", broken)

    return arrange


def test_a_diverging_run_goes_back_once_and_on_at_half_the_rate(qa_file: Path, tmp_path: Path, breaks_at: Any) -> None:
    breaks_at(30)
    events = run(recipe(qa_file, lr_scheduler_type="constant", warmup_steps=0), tmp_path / "run")
    (back,) = [event for event in events if isinstance(event, RolledBack)]
    assert (back.step, back.to_step) == (30, 10)  # the newest checkpoint from before the last sixteen steps
    assert isinstance(events[-1], Finished)
    assert Run(tmp_path / "run").info()["rolled_back"]["to_step"] == 10
    rows = [row for row in Run(tmp_path / "run").metrics() if "train_loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert rows[10]["learning_rate"] == pytest.approx(rows[9]["learning_rate"] / 2)


def test_there_is_always_a_checkpoint_to_go_back_to(qa_file: Path, tmp_path: Path, breaks_at: Any) -> None:
    breaks_at(60)
    seldom_kept = {"max_steps": 64, "save_steps": 7, "eval_steps": 7, "save_total_limit": 2}
    events = run(recipe(qa_file, **seldom_kept), tmp_path / "run")
    assert [event.to_step for event in events if isinstance(event, RolledBack)] == [42]
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) <= 5


def test_without_a_checkpoint_it_starts_again(qa_file: Path, tmp_path: Path, breaks_at: Any) -> None:
    breaks_at(3)
    events = run(recipe(qa_file, max_steps=6), tmp_path / "run")
    assert [event.to_step for event in events if isinstance(event, RolledBack)] == [0]
    straight = run(recipe(qa_file, max_steps=6), tmp_path / "straight")
    assert [event.step for event in events if isinstance(event, Step)][2:] == [1, 2, 3, 4, 5, 6]
    losses = [[event.loss for event in some if isinstance(event, Step)] for some in (events, straight)]
    assert losses[0][2] == losses[1][0]


def test_the_second_time_it_fails_and_names_the_rows(qa_file: Path, tmp_path: Path, breaks_at: Any) -> None:
    breaks_at(20, always=True)
    with pytest.raises(RunFailed, match=r"rolled back once.*rows: .*qa\.jsonl:\d+, "):
        run(recipe(qa_file), tmp_path / "run")
    assert Run(tmp_path / "run").info()["status"] == "failed"


def test_a_run_stopped_after_it_went_back_ends_the_same(qa_file: Path, tmp_path: Path, breaks_at: Any) -> None:
    breaks_at(30)
    whole = recipe(qa_file, dropout=0.1)
    run(whole, tmp_path / "straight")
    for place in ("at once", "at the next checkpoint"):
        path = tmp_path / place.replace(" ", "-")
        events = loop.train(whole, path)
        back = False
        for event in events:
            back = back or isinstance(event, RolledBack)
            if back and isinstance(event, RolledBack if place == "at once" else Saved):
                events.close()
        run(whole, path, resume=True)
        assert digest(path) == digest(tmp_path / "straight"), place


def test_a_damaged_checkpoint_is_passed_over(qa_file: Path, tmp_path: Path) -> None:
    whole = recipe(qa_file, max_steps=20)
    run(whole, tmp_path / "straight")
    events = loop.train(whole, tmp_path / "run")
    for event in events:
        if isinstance(event, Saved) and event.step == 15:
            events.close()
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[-9] ^= 1
    (newest / "optimizer.safetensors").write_bytes(content)
    resumed = run(whole, tmp_path / "run", resume=True)
    started = next(event for event in resumed if isinstance(event, Started))
    (back,) = [event for event in resumed if isinstance(event, RolledBack)]
    assert (started.resumed_from, back.step, back.to_step) == (10, 15, 10)
    assert "optimizer.safetensors has changed" in back.reason
    assert digest(tmp_path / "run") == digest(tmp_path / "straight")


@pytest.mark.parametrize("left", ["{", "{}", '{"progress": {"step": 4}, "sha256": {}}'])
def test_when_every_checkpoint_is_damaged_it_starts_again(left: str, qa_file: Path, tmp_path: Path) -> None:
    whole = recipe(qa_file, max_steps=8, save_steps=4)
    run(whole, tmp_path / "straight")
    events = loop.train(whole, tmp_path / "run")
    for event in events:
        if isinstance(event, Saved):
            events.close()
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        (path / "state.json").write_text(left, encoding="utf-8")
    resumed = run(whole, tmp_path / "run", resume=True)
    assert [event.resumed_from for event in resumed if isinstance(event, Started)] == [0]
    assert digest(tmp_path / "run") == digest(tmp_path / "straight")
