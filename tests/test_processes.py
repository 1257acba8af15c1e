"""Several processes train as one: the same losses, one directory, and a run that outlives any of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from conftest import TINY, write_rows
from plume.errors import UserError
from plume.events import Saved
from plume.recipe import Recipe
from plume.runs import Run
from plume.text.tokenizer import train_tokenizer
from plume.training.loop import train

SETTINGS = {
    **TINY,
    "num_hidden_layers": 2,
    "max_steps": 12,
    "eval_steps": 6,
    "save_steps": 6,
    "logging_steps": 1,
    "learning_rate": 3e-3,
    "dropout": 0.0,
    "test_size": 0.2,
}


def together(processes: int, arguments: list[str]) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *launcher, "-m", "plume", *arguments]


def arguments(data: Path, path: Path, **changes: Any) -> list[str]:
    pairs = [part for key, value in {**SETTINGS, **changes}.items() for part in ("--set", f"{key}={value}")]
    return ["train", str(data), "--output-dir", str(path), "--json", *pairs]


def finished(command: list[str], code: int = 0) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def losses(path: Path) -> list[float]:
    return [row["train_loss"] for row in Run(path).metrics() if "train_loss" in row]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, qa_rows: list[dict[str, str]]) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "qa.jsonl", qa_rows)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process does with eight rows a pass, two passes a step."""
    path = tmp_path_factory.mktemp("one") / "run"
    settings = {**SETTINGS, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    list(train(Recipe.model_validate({"data": str(data), **settings}), path))
    return path


@pytest.mark.parametrize("changes", [{}, {"fsdp": True}], ids=["copies", "shared out"])
def test_two_processes_learn_as_one(data: Path, straight: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Copies: 5 rows are left for the last pass of an epoch, so the processes have different numbers of them."""
    path = tmp_path / "run"
    wanted = arguments(data, path, per_device_train_batch_size=4, gradient_accumulation_steps=2, **changes)
    events = finished(together(2, wanted))
    assert losses(path) == pytest.approx(losses(straight), abs=1e-5)
    assert [event["event"] for event in events].count("finished") == 1
    assert (Run(path).info()["status"], Run(path).info()["world_size"]) == ("finished", 2)
    scores = [Run(each).info()["scores"]["recall"]["loss"] for each in (path, straight)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_packed_rows_and_shared_weights_do_not_wait_for_one_another(data: Path, tmp_path: Path) -> None:
    """A foreign model is asked whether it keeps packed rows apart, and a probe runs in the main process alone."""
    base = foreign(tmp_path / "llama")
    keys = {"packing": True, "fsdp": True, "max_steps": 2, "torch_num_threads": 1, "eval_samples": 4}
    pairs = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    wanted = ["train", str(data), "--model", str(base), "--output-dir", str(tmp_path / "run"), "--json", *pairs]
    assert [event["event"] for event in finished(together(2, wanted))][-1] == "finished"


def foreign(folder: Path) -> Path:
    """A Llama that transformers made, with a tokenizer of ours."""
    tokenizer = train_tokenizer("bpe", ["Where is the lamp? Où est « la cloche » ?"], 300)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def test_a_process_that_dies_ends_the_job_and_one_process_goes_on(data: Path, straight: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    wanted = arguments(data, path, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    with subprocess.Popen(together(2, wanted), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as job:
        assert job.stdout is not None
        assert job.stderr is not None
        next(line for line in job.stdout if json.loads(line)["event"] == "saved")
        os.kill(_process(job.pid, rank=1), signal.SIGKILL)
        job.stdout.read()
        said = job.stderr.read()
    assert job.returncode == 1
    assert f"plume train --resume --output-dir {path}" in said
    assert "SIGKILL" in said  # the launcher names the process that died
    assert Run(path).info()["status"] == "interrupted"
    finished([sys.executable, "-m", "plume", "train", "--resume", "--output-dir", str(path), "--json"])
    assert losses(path) == pytest.approx(losses(straight), abs=1e-5)


def _process(launcher: int, rank: int) -> int:
    """The process that a launcher started as `rank`."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="ascii").split()
    wanted = f"RANK={rank}".encode()
    return next(int(child) for child in children if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"))


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    wanted = arguments(tmp_path / "nothing.jsonl", tmp_path / "run")
    done = subprocess.run(together(2, wanted), capture_output=True, encoding="utf-8", timeout=120)
    assert done.stderr.count("nothing.jsonl") == 1
    assert len(re.findall(r"^error: ", done.stderr, re.MULTILINE)) == 1
    assert not (tmp_path / "run").exists()


def test_half_an_environment_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK is not set"):
        next(train(Recipe.model_validate({"data": str(data), **SETTINGS}), tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fsdp": True}, "nothing to share"),
        ({"device": "mps"}, "torch finds none"),
        ({"torch_compile": True}, "no C"),
    ],
)
def test_a_place_that_is_not_there_is_refused(
    data: Path, tmp_path: Path, changes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=reason):
        next(train(Recipe.model_validate({"data": str(data), **SETTINGS, **changes}), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inside torch
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_a_compiled_run_learns_the_same_and_resumes(data: Path, tmp_path: Path) -> None:
    small = {**SETTINGS, "num_hidden_layers": 1, "max_steps": 6, "eval_steps": 3, "save_steps": 3}
    recipe = Recipe.model_validate({"data": str(data), **small, "packing": False})
    compiled = recipe.model_copy(update={"torch_compile": True})
    list(train(recipe, tmp_path / "eager"))
    list(train(compiled, tmp_path / "compiled"))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    events = train(compiled, tmp_path / "cut")
    next(event for event in events if isinstance(event, Saved))
    events.close()
    list(train(compiled, tmp_path / "cut", resume=True))
    both = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("compiled", "cut")]
    assert both[0] == both[1]
