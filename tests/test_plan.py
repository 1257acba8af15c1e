"""What is chosen when the recipe leaves it open, and that it says why."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY
from plume.cli.main import main
from plume.cli.train import wanted_recipe
from plume.errors import UserError
from plume.events import Evaluated, Saved, Started, Stopped
from plume.recipe import dump_recipe, load_recipe, parse_recipe
from plume.training.loop import train
from plume.training.prepare import Prepared, prepare
from plume.training.range_test import best_rate, with_tested_rate
from plume.training.stopping import reason_to_stop


def prepared(file: Path, **changes: Any) -> Prepared:
    return prepare(parse_recipe({"data": str(file), "torch_num_threads": 1, **changes}))


@pytest.mark.parametrize(("model", "wanted"), [("gpt:300k", 300_000), ("gru:0.3M", 300_000), ("gpt:1M", 1_000_000)])
def test_a_budget_is_kept(qa_file: Path, model: str, wanted: int) -> None:
    made = prepared(qa_file, model=model)
    assert sum(p.numel() for p in made.bundle.model.parameters()) == pytest.approx(wanted, rel=0.1)
    assert made.recipe.model == model.partition(":")[0]
    assert made.from_scratch


def test_a_named_size_is_a_shape(qa_file: Path) -> None:
    recipe = prepared(qa_file, model="gpt:tiny").recipe
    assert (recipe.hidden_size, recipe.num_hidden_layers, recipe.model_size) == (128, 2, "tiny")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "gpt:huge"}, "tiny, small, base"),
        ({"model": "gpt:3M", "model_size": "tiny"}, "contradict"),
        ({"model": "bigram:tiny"}, "has no sizes"),
        ({"model": "gpt:10k"}, "parameters"),
    ],
)
def test_sizes_that_do_not_exist_are_refused(qa_file: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepared(qa_file, **changes)


def test_a_third_of_the_rate_with_the_lowest_loss() -> None:
    """A single spike or a single easy batch does not decide."""
    rates = [10 ** (-5 + at / 10) for at in range(50)]
    losses = [5 - 4 * math.exp(-((at - 30) ** 2) / 40) for at in range(50)]
    losses[10], losses[29] = 0.1, 50.0
    assert best_rate(tuple(zip(rates, losses, strict=True))) == pytest.approx(rates[30] / 3, rel=0.3)
    assert best_rate(tuple((rate, 5.0) for rate in rates)) is None


def test_auto_is_replaced_by_a_number_and_recorded(qa_file: Path, tmp_path: Path) -> None:
    recipe = parse_recipe({**TINY, "data": str(qa_file), "learning_rate": "auto", "max_steps": 1, "max_new_tokens": 4})
    started = [next(e for e in train(recipe, tmp_path / name) if isinstance(e, Started)) for name in ("a", "b")]
    rate = load_recipe(tmp_path / "a" / "recipe.yaml").learning_rate
    assert rate == started[0].choices["learning_rate"].value == started[1].choices["learning_rate"].value
    info = json.loads((tmp_path / "a" / "run.json").read_text(encoding="utf-8"))
    assert len(info["learning_rate_range_test"]) > 20
    assert all(choice["reason"] for choice in info["choices"].values())


def test_when_to_stop() -> None:
    recipe = parse_recipe({"early_stopping_patience": 2, "eval_steps": 5, "max_steps": 100})
    assert [bool(reason_to_stop(recipe, step, 5)) for step in (5, 10, 14, 15, 17)] == [False, False, False, True, True]
    assert reason_to_stop(recipe.model_copy(update={"early_stopping_patience": 0}), 90, 5) is None


def test_a_run_that_stops_early_says_so_and_resumes_to_the_same(qa_file: Path, tmp_path: Path) -> None:
    """A rate far too large makes no evaluation better than an early one."""
    changes = {
        "early_stopping_patience": 1,
        "eval_steps": 2,
        "max_steps": 40,
        "max_new_tokens": 4,
        "learning_rate": 1.0,
    }
    recipe = parse_recipe({**TINY, "data": str(qa_file), **changes})
    stopped = [event for event in train(recipe, tmp_path / "whole") if isinstance(event, Stopped)]
    assert len(stopped) == 1
    assert json.loads((tmp_path / "whole" / "run.json").read_text(encoding="utf-8"))["stopped_early"] == stopped[0].step
    events = train(recipe, tmp_path / "killed")
    for event in events:
        if isinstance(event, Saved) and event.step == stopped[0].step:
            events.close()
    again = [event for event in train(recipe, tmp_path / "killed", resume=True) if isinstance(event, Stopped)]
    assert again == stopped
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other


def test_the_range_test_leaves_no_trace(qa_file: Path) -> None:
    """Neither on the weights that training begins with, nor on torch's random state."""
    made = prepared(qa_file, learning_rate="auto", dropout=0.1)
    weights = {name: tensor.clone() for name, tensor in made.bundle.model.state_dict().items()}
    state = torch.get_rng_state()
    assert with_tested_rate(made).range_test
    assert torch.equal(torch.get_rng_state(), state)
    after = made.bundle.model.state_dict()
    assert weights.keys() == after.keys()
    assert all(torch.equal(weights[name], after[name]) for name in weights)


@pytest.mark.parametrize("changes", [{"learning_rate": "auto"}, {"model": "gpt:tiny"}], ids=["auto", "gpt:tiny"])
def test_what_was_chosen_is_kept_by_a_run_that_is_resumed(
    changes: dict[str, Any], qa_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sized = {} if "model" in changes else TINY
    settings = {"max_steps": 6, "save_steps": 2, "eval_steps": 6, "eval_samples": 4, "max_new_tokens": 4}
    recipe = parse_recipe({**sized, "torch_num_threads": 1, "data": str(qa_file), **settings, **changes})
    for _ in train(recipe, tmp_path / "whole"):
        pass
    events = train(recipe, tmp_path / "stopped")
    for event in events:
        if isinstance(event, Saved) and event.step == 4:
            events.close()
    monkeypatch.setattr(sys, "argv", ["plume", "train", "--resume", "--output-dir", str(tmp_path / "stopped")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other


def test_text_stops_early_by_its_loss(tmp_path: Path) -> None:
    """At a rate far too large the loss only rises after its lowest evaluation."""
    data = tmp_path / "text.txt"
    data.write_text("The lamp is in the tower. The boat is in the harbour.\n" * 60, encoding="utf-8")
    changes = {"early_stopping_patience": 2, "eval_steps": 2, "max_steps": 60, "max_length": 32, "max_new_tokens": 4}
    recipe = parse_recipe({**TINY, "data": str(data), "optim": "adamw", "learning_rate": 0.5, **changes})
    events = list(train(recipe, tmp_path / "run"))
    (stopped,) = [event for event in events if isinstance(event, Stopped)]
    losses = [event.scores["loss"] or 0.0 for event in events if isinstance(event, Evaluated)]
    assert all(event.scores["exact_match"] is None for event in events if isinstance(event, Evaluated))
    assert losses.index(min(losses)) == len(losses) - 3
    assert stopped.step == 2 * len(losses) < 60


def test_a_recipe_file_can_ask_for_a_size(qa_file: Path, tmp_path: Path) -> None:
    """A size asked for beside the file replaces what the file says of sizes."""
    file = tmp_path / "recipe.yaml"
    file.write_text(f"data: {qa_file}\nmodel: gpt:tiny\n", encoding="utf-8")
    assert prepare(wanted_recipe(file, {})).recipe.hidden_size == 128
    file.write_text(dump_recipe(prepare(wanted_recipe(file, {})).recipe), encoding="utf-8")
    again = prepare(wanted_recipe(file, {"model": "gpt:small"})).recipe
    assert (again.hidden_size, again.num_hidden_layers) == (192, 4)
