"""What the trackers are told, read back with each library's own reader."""

import hashlib
import json
import logging
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY
from plume.errors import UserError
from plume.events import Finished, Step
from plume.recipe import Recipe, dump_recipe, load_recipe
from plume.runs import Run
from plume.training import loop, trackers
from plume.training.loop import train
from plume.training.step import step_once

Points = dict[str, list[tuple[int, float]]]
NAMES = ("tensorboard", "trackio", "wandb", "mlflow")
EVERY = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True, scope="module")
def _own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """trackio reads where to write when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
            patch.delenv(name, raising=False)
        yield


def recipe(data: Path, **changes: Any) -> Recipe:
    quick = {"hidden_size": 16, "max_steps": 5, "eval_steps": 2, "test_size": 0.2, "logging_steps": 1}
    return Recipe.model_validate({"data": str(data), **TINY, **quick, **changes})


def read_tensorboard(run: Path) -> tuple[Points, str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    text = read.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}, text


def read_trackio(run: Path) -> tuple[Points, str]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (found,) = [one for one in trackio.Api().runs("plume") if one.name.startswith(f"{run.name}-")]
    points: Points = defaultdict(list)
    for row in SQLiteStorage.get_logs("plume", found.name):
        for key, value in row.items():
            if key not in ("step", "timestamp"):
                points[key].append((row["step"], value))
    return points, str(found.config)


def read_wandb(run: Path) -> tuple[Points, str]:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its process has then written all
    points: Points = defaultdict(list)
    config = ""
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)  # type: ignore[attr-defined]
            config += str(record.run.config) if record.HasField("run") else ""
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                if not key.startswith("_"):
                    points[key].append((record.history.step.num, json.loads(item.value_json)))
    return points, config


def leveldb_records(raw: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which W&B keeps offline runs in: blocks of 32 KiB, parts with crc, length, kind."""
    at, parts = 7, b""
    while at < len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(raw[at + 4 : at + 6], "little"), raw[at + 6]
        parts += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def read_mlflow(run: Path) -> tuple[Points, str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("plume")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    points = {
        key: [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, key)]
        for key in found.data.metrics
    }
    return points, str(found.data.params)


READERS: Mapping[str, Callable[[Path], tuple[Points, str]]] = {
    "tensorboard": read_tensorboard,
    "trackio": read_trackio,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


@EVERY
@pytest.mark.filterwarnings("ignore:.*``noload``")  # MLflow's reader
def test_a_tracker_is_told_what_the_run_logs_once_although_it_was_interrupted(
    name: str, qa_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"with-{name}"
    events = train(recipe(qa_file, report_to=name), out)
    next(event for event in events if isinstance(event, Step) and event.step == 4)  # the checkpoint is of step 2
    events.close()
    *_, last = train(Recipe(), out, resume=True)
    assert isinstance(last, Finished)
    expected: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for row in Run(out).metrics():
        prefix = f"{row['kind']}/" if "kind" in row else ""
        for key, value in row.items():
            if key not in ("step", "kind") and value is not None:
                expected[prefix + key].append((row["step"], value))
    points, config = READERS[name](out)
    told = {key: found for key, found in points.items() if not key.startswith("final/")}
    assert told.keys() == expected.keys()
    for key in ("train_loss", "learning_rate", "grad_norm", "held_out/exact_match", "held_out/loss"):
        assert [step for step, _ in told[key]] == [step for step, _ in expected[key]]
        assert [value for _, value in told[key]] == pytest.approx([value for _, value in expected[key]], rel=1e-6)
    assert points["final/held_out/exact_match"] == [(5, last.scores["held_out"]["exact_match"])]
    assert "learning_rate" in config


def test_steps_that_come_again_after_a_roll_back_are_told_again(
    qa_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the run was resumed, and its tracker knew those steps from before."""

    def broken(*given: Any, **options: Any) -> Step:
        event = step_once(*given, **options)
        return replace(event, loss=math.nan) if event.step == 4 and options["scale"] == 1 else event

    monkeypatch.setattr(loop, "step_once", broken)
    out = tmp_path / "run"
    events = train(recipe(qa_file, report_to="tensorboard"), out)
    next(event for event in events if isinstance(event, Step) and event.step == 3)  # the checkpoint is of step 2
    events.close()
    losses: dict[int, float] = {}
    for event in train(Recipe(), out, resume=True):
        if isinstance(event, Step):
            losses[event.step] = event.loss
    told = dict(read_tensorboard(out)[0]["train_loss"])
    assert Run(out).info()["rolled_back"]["to_step"] == 0
    assert sorted(told) == [1, 2, 3, 4, 5]
    assert told == pytest.approx(losses, rel=1e-6)


def test_tracking_changes_no_weight_and_prints_nothing(
    qa_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, report_to in (("with", list(NAMES)), ("without", "none")):
        for _ in train(recipe(qa_file, report_to=report_to, max_steps=2), tmp_path / name):
            pass
    one, other = (
        hashlib.sha256((tmp_path / name / "model" / "model.safetensors").read_bytes()).hexdigest()
        for name in ("with", "without")
    )
    assert one == other
    assert capfd.readouterr().out == ""
    assert {"tensorboard", "wandb", "mlflow"} <= {path.name for path in (tmp_path / "with").iterdir()}


@EVERY
def test_a_missing_library_is_refused_before_the_run_begins(
    name: str, qa_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _ = trackers.TRACKERS[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as refused:
        next(train(recipe(qa_file, report_to=name), tmp_path / "run"))
    assert refused.value.hint == f"pip install 'plume-lm[{name}]'"
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_is_left_out_with_one_warning(
    qa_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        rewinds = False

        def __init__(self, *_: Any) -> None: ...

        def log(self, step: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
            if step == 2:
                raise ConnectionError("the server has gone")

        def close(self, *, finished: bool) -> None:  # noqa: ARG002
            raise AssertionError("it was left out")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("json", Failing))
    with caplog.at_level(logging.WARNING):
        *_, last = train(recipe(qa_file, report_to="wandb"), tmp_path / "run")
    assert isinstance(last, Finished)
    assert [record.getMessage() for record in caplog.records if record.name == trackers.__name__] == [
        "the tracker wandb failed (ConnectionError: the server has gone); training goes on without it"
    ]


def test_report_to_takes_one_name_several_or_none(tmp_path: Path) -> None:
    for given, kept in (
        ("wandb", ["wandb"]),
        ("tensorboard,mlflow", ["tensorboard", "mlflow"]),
        (["trackio"], ["trackio"]),
        ("none", []),
        (None, []),
    ):
        made = Recipe.model_validate({"report_to": given})
        assert made.report_to == kept
        (tmp_path / "r.yaml").write_text(dump_recipe(made), encoding="utf-8")
        assert load_recipe(tmp_path / "r.yaml") == made
    with pytest.raises(ValueError, match="tensorboard"):
        Recipe.model_validate({"report_to": "comet"})


def test_nothing_is_reported_about_the_libraries_themselves() -> None:
    trackers.require_trackers(NAMES)
    assert (os.environ["WANDB_ERROR_REPORTING"], os.environ["MLFLOW_DISABLE_TELEMETRY"]) == ("false", "true")
