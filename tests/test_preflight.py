"""What a run will cost, tried out beforehand without leaving a trace in it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY
from plume.cli.costs import lines
from plume.models import memory as machine
from plume.recipe import parse_recipe
from plume.training import loop, memory, opening
from plume.training.batches import batches
from plume.training.preflight import preflight
from plume.training.prepare import Prepared, prepare

GIB = 2**30


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume.training.preflight._PROBE_SECONDS", 0.0)


def prepared(file: Path, **changes: Any) -> Prepared:
    return prepare(parse_recipe({**TINY, "data": str(file), "max_new_tokens": 12, **changes}))


def test_what_a_run_will_do(qa_file: Path) -> None:
    found = preflight(prepared(qa_file, max_steps=40))
    assert (found.steps, found.cut_rows, found.fits) == (40, 0, True)
    assert found.trained_tokens > 15
    assert 0 <= found.padding < 0.5
    assert found.peak > 1e6
    assert found.seconds is not None
    parts = (found.seconds.steps, found.seconds.evaluations, found.seconds.finish)
    assert all(part > 0 and math.isfinite(part) for part in parts)
    assert found.seconds.total == sum(parts)
    text = "\n".join(lines(found))
    assert "40 steps" in text
    assert "memory about" in text
    assert "time about" in text


@pytest.mark.parametrize("packing", [False, True])
def test_padding_is_that_of_the_real_batches(packing: bool, qa_file: Path) -> None:
    made = prepared(qa_file, max_steps=40, per_device_train_batch_size=4, packing=packing)
    length, seed = made.recipe.max_length or 0, made.recipe.seed
    stream = batches(made.rows, batch_size=4, max_length=length, pad_id=0, seed=seed, packing=packing)
    processed = real = 0
    for epoch, batch in stream:
        processed += batch.ids_BT.numel()
        real += int(batch.lengths_B.sum())
        if epoch == 1:
            break
    assert preflight(made).padding == pytest.approx(1 - real / processed)


def test_the_probe_leaves_model_and_chance_alone(qa_file: Path) -> None:
    made = prepared(qa_file, max_steps=40)
    before = {name: tensor.clone() for name, tensor in made.bundle.model.state_dict().items()}
    chance = torch.get_rng_state()
    preflight(made)
    assert torch.equal(torch.get_rng_state(), chance)
    after = made.bundle.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in made.bundle.model.parameters())


@pytest.mark.parametrize("model", ["gpt", "gru"])
def test_training_is_the_same_with_and_without_it(
    tmp_path: Path, qa_file: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    recipe = parse_recipe({**TINY, "data": str(qa_file), "model": model, "max_steps": 3, "max_new_tokens": 8})
    list(loop.train(recipe, tmp_path / "without"))

    def tried(*arguments: Any, **options: Any) -> Prepared:
        made = prepare(*arguments, **options)
        preflight(made)
        return made

    monkeypatch.setattr(opening, "prepare", tried)
    list(loop.train(recipe, tmp_path / "with"))
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("without", "with"))
    assert one == other


def test_plain_text(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("The lamp burns in the tower all night.\n" * 60, encoding="utf-8")
    found = preflight(prepared(tmp_path / "book.txt", max_steps=1500, max_length=32))
    assert found.cut_rows == 0
    assert found.seconds is not None
    assert found.findings == ()


def test_a_run_that_does_not_fit_is_not_tried(qa_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(qa_file, max_steps=40)
    whole = preflight(made).peak
    monkeypatch.setattr(machine, "available", lambda: whole // 100)
    found = preflight(made)
    assert not found.fits
    assert found.seconds is None
    assert [(finding.code, finding.severity) for finding in found.findings if finding.code == "D505"] == [
        ("D505", "error")
    ]


def test_a_batch_that_fits_is_proposed(qa_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of a large model: 2 GiB whatever the batch, 1 GiB for each of 12 rows, 8 GiB to be had."""
    made = prepared(qa_file, max_steps=40, per_device_train_batch_size=12)
    monkeypatch.setattr(memory, "estimate", lambda *_: memory.Need(2 * GIB, GIB, 14 * GIB))
    monkeypatch.setattr(machine, "available", lambda: 8 * GIB)
    finding = next(finding for finding in preflight(made).findings if finding.code == "D505")
    assert "per_device_train_batch_size=6" in finding.hint
    assert "gradient_accumulation_steps=2" in finding.hint
    assert "14.0 GiB" in finding.message


def test_memory_grows_with_rows_and_length(qa_file: Path) -> None:
    from plume.training.batches import collate

    made = prepared(qa_file, max_steps=40)
    short, long = made.rows[0], made.rows[0]
    long = type(long)(long.ids * 2, long.trained * 2)
    one = memory.estimate(made.bundle.model, collate([short], 0), 1)
    assert memory.estimate(made.bundle.model, collate([long], 0), 1).per_row > 1.5 * one.per_row
    many = memory.estimate(made.bundle.model, collate([short], 0), 10_000)
    assert many.peak >= many.fixed + 10_000 * many.per_row


def test_recipe_findings_come_along(qa_file: Path) -> None:
    found = preflight(prepared(qa_file, max_steps=3, learning_rate=1e-6, eval_steps=1, save_steps=1))
    assert {finding.code for finding in found.findings} == {"D501", "D502"}
