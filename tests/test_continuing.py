"""Fine-tuning any base on any data, and general text mixed in while forgetting is measured."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import plume
from conftest import PLACES, TINY, write_rows
from plume.errors import DataError, UserError
from plume.events import Finished, Saved, Started
from plume.recipe import Recipe
from plume.runs import Run
from plume.text.template import CHAT, SEP
from plume.text.tokenizer import train_tokenizer
from plume.training.loop import train
from plume.training.prepare import prepare
from plume.types import Encoded

QUICK = {"eval_samples": 2, "torch_num_threads": 1, "max_new_tokens": 8}
KINDS = ("gpt", "gru", "bigram", "hf")
STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"


def text(sentences: int) -> str:
    """Sentences with a grammar that a tiny model can learn."""
    chance = random.Random(0)
    who, did, where = ("the fox", "a hen", "the old man"), ("sat by", "ran to", "slept in"), ("the barn", "a river")
    return " ".join(f"{chance.choice(who)} {chance.choice(did)} {chance.choice(where)}." for _ in range(sentences))


def run(path: Path, **keys: Any) -> Finished:
    finished = list(train(Recipe.model_validate({**QUICK, **keys}), path))[-1]
    assert isinstance(finished, Finished)
    return finished


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, qa_rows: list[dict[str, str]]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(text(400), encoding="utf-8")
    talk = [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"Where is the {thing}?"},
                {"role": "assistant", "content": place},
            ]
        }
        for thing, place in PLACES.items()
    ]
    return {
        "text": folder / "text.txt",
        "qa": write_rows(folder / "qa.jsonl", qa_rows),
        "chat": write_rows(folder / "chat.jsonl", talk),
        "base": folder / "base",
    }


@pytest.fixture(scope="module")
def base(files: dict[str, Path]) -> Path:
    """A run: a tiny gpt that has learnt the text's sentences."""
    sizes = {**TINY, **QUICK, "max_length": 64}
    steps = {"max_steps": 150, "per_device_train_batch_size": 8}
    run(files["base"], data=str(files["text"]), **{**sizes, **steps})
    return files["base"]


# --- any base, any data ---


def foreign(folder: Path, corpus: str) -> Path:
    """A Llama with a tokenizer without pad token, role tokens or chat template, as base models come."""
    tokenizer = train_tokenizer("bpe", [corpus], 300)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
        )
    ).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module", params=[(kind, data) for kind in KINDS for data in ("qa", "text")], ids="-".join)
def origin(request: pytest.FixtureRequest, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of some kind of model on some kind of data; its name says which."""
    kind, data = request.param
    folder = tmp_path_factory.mktemp("origin")
    model = str(foreign(folder / "llama", text(40))) if kind == "hf" else kind
    sizes = {} if kind == "hf" else TINY
    run(folder / f"{kind}-{data}", data=str(files[data]), model=model, max_steps=2, **sizes)
    return folder / f"{kind}-{data}"


@pytest.mark.parametrize("data", ["qa", "chat", "text"])
def test_any_base_can_be_tuned_on_any_data(origin: Path, data: str, files: dict[str, Path], tmp_path: Path) -> None:
    kind, learnt = origin.name.split("-")
    run(tmp_path / "tuned", data=str(files[data]), model=str(origin), max_steps=2)
    before, after = plume.load(origin), plume.load(tmp_path / "tuned")
    assert set(before.tokenizer.special_tokens.items()) <= set(after.tokenizer.special_tokens.items())
    unknown = before.tokenizer.special_tokens.get(before.tokenizer.special_token_names.get("unk_token", ""))
    ids = zip(before.tokenizer.encode("the barn"), after.tokenizer.encode("the barn"), strict=True)
    assert all(first == second for first, second in ids if first != unknown)
    assert after.model.vocab_size >= after.tokenizer.vocab_size
    if learnt == "qa":
        assert after.template.source == before.template.source == (CHAT if kind in ("gpt", "hf") else SEP)
    assert after.own_template is (learnt == "qa" or data != "text")


@pytest.mark.parametrize("kind", ["gpt", "bigram"])
def test_characters_that_a_base_never_saw_are_added(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    run(tmp_path / "origin", data=str(files["text"]), model=kind, max_steps=2, **TINY)
    prepared = prepare(Recipe.model_validate({**QUICK, "data": str(files["qa"]), "model": str(tmp_path / "origin")}))
    tokenizer = prepared.bundle.tokenizer
    assert "D305" not in {finding.code for finding in prepared.findings}
    answer = prepared.split.train[0].messages[-1].content
    assert tokenizer.decode(tokenizer.encode(answer)) == answer
    assert prepared.bundle.model.vocab_size == tokenizer.vocab_size
    old = plume.load(tmp_path / "origin").tokenizer
    assert tokenizer.encode("the barn") == old.encode("the barn")


# --- replay ---


def forgetting(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = Run(path).info()["forgetting"]
    return found


def test_replay_keeps_what_tuning_alone_forgets(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    tuning = {"data": str(files["qa"]), "model": str(base), "replay": str(files["text"]), "max_steps": 60}
    alone = run(tmp_path / "alone", **tuning, replay_ratio=0)
    mixed = run(tmp_path / "mixed", **tuning, replay_ratio=0.5)
    assert alone.forgetting is not None
    assert mixed.forgetting is not None
    assert alone.forgetting.perplexity_before == mixed.forgetting.perplexity_before
    assert "D610" in {finding.code for finding in alone.findings}
    assert "D610" not in {finding.code for finding in mixed.findings}
    assert mixed.forgetting.perplexity_after < 0.8 * alone.forgetting.perplexity_after
    assert forgetting(tmp_path / "mixed") == {
        "file": str(files["text"]),
        "perplexity_before": mixed.forgetting.perplexity_before,
        "perplexity_after": mixed.forgetting.perplexity_after,
    }
    said = f"{mixed.forgetting.perplexity_after:.4g} of the result"
    assert said in (tmp_path / "mixed" / "report.html").read_text(encoding="utf-8")


def test_measuring_alone_changes_no_weight(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    tuning = {"data": str(files["qa"]), "model": str(base), "max_steps": 4}
    run(tmp_path / "plain", **tuning)
    run(tmp_path / "measured", **tuning, replay=str(files["text"]), replay_ratio=0)
    assert digest(tmp_path / "plain") == digest(tmp_path / "measured")


@pytest.mark.parametrize("general", ["text", "chat"])
def test_resuming_with_replay_is_exact(general: str, base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    keys = {"data": str(files["qa"]), "model": str(base), "replay": str(files[general]), "replay_ratio": 0.4}
    recipe = Recipe.model_validate({**QUICK, **keys, "max_steps": 9, "save_steps": 2, "eval_steps": 9})
    list(train(recipe, tmp_path / "whole"))
    for event in (events := train(recipe, tmp_path / "cut")):
        if isinstance(event, Saved) and event.step == 4:
            events.close()
    list(train(recipe, tmp_path / "cut", resume=True))
    assert digest(tmp_path / "whole") == digest(tmp_path / "cut")
    assert forgetting(tmp_path / "whole") == forgetting(tmp_path / "cut")


@pytest.mark.parametrize("general", ["text", "chat"])
@pytest.mark.parametrize("ratio", [0.02, 0.3, 0.9])
def test_the_ratio_is_the_part_of_the_trained_tokens(
    ratio: float, general: str, base: Path, files: dict[str, Path]
) -> None:
    keys = {"data": str(files["qa"]), "model": str(base), "replay": str(files[general]), "replay_ratio": ratio}
    prepared = prepare(Recipe.model_validate({**QUICK, **keys}))
    replay = prepared.replay
    assert replay is not None
    epochs = range(2000 if ratio < 0.1 else 40)
    drawn = [replay.of_epoch(epoch) for epoch in epochs]
    tokens = sum(_trained(row) for rows in drawn for row in rows)
    assert tokens / (tokens + len(epochs) * prepared.trained_tokens) == pytest.approx(ratio, rel=0.2)
    assert drawn == [replay.of_epoch(epoch) for epoch in epochs]
    assert any(rows != drawn[0] for rows in drawn)


def test_what_measures_forgetting_is_never_drawn(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"prompt": f"what is {one}{two}?", "completion": one + two} for one in "abehnr" for two in "dilostw"]
    general = write_rows(tmp_path / "general.jsonl", rows)
    keys = {"data": str(files["qa"]), "model": str(base), "replay": str(general), "replay_ratio": 0.9}
    replay = prepare(Recipe.model_validate({**QUICK, **keys}), force=True).replay
    assert replay is not None
    assert len(replay.held) == 4
    assert not set(replay.held) & {row for epoch in range(20) for row in replay.of_epoch(epoch)}


def test_replay_is_chosen_and_said(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    keys = {"data": str(files["qa"]), "model": str(base), "replay": str(files["text"]), "max_steps": 2}
    started = next(train(Recipe.model_validate({**QUICK, **keys}), tmp_path / "run"))
    assert isinstance(started, Started)
    assert started.choices["replay_ratio"].value == 0.1
    assert started.recipe.replay_ratio == 0.1


def test_replay_that_nothing_would_read_is_refused(base: Path, files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="nothing to forget"):
        prepare(Recipe.model_validate({**TINY, "data": str(files["qa"]), "replay": str(files["text"])}))
    with pytest.raises(UserError, match="with replay alone"):
        prepare(Recipe.model_validate({"data": str(files["qa"]), "model": str(base), "replay_ratio": 0.2}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no example"),
        ("x", "too little"),
        ('{"prompt": "a", "completion": ""}\n', "no example"),
        ('{"prompt": "a", "completion": NaN}\n', "no example"),
    ],
)
def test_a_useless_replay_file_stops_before_anything_is_written(
    content: str, said: str, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / ("general.jsonl" if content.startswith("{") else "general.txt")
    file.write_text(content, encoding="utf-8")
    recipe = Recipe.model_validate({"data": str(files["qa"]), "model": str(base), "replay": str(file)})
    with pytest.raises(UserError, match=said):
        list(train(recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_replay_file_that_holds_the_evaluations_answers_is_refused(base: Path, files: dict[str, Path]) -> None:
    keys = {"data": str(files["qa"]), "model": str(base), "replay": str(files["qa"])}
    with pytest.raises(DataError) as caught:
        prepare(Recipe.model_validate(keys))
    assert {finding.code for finding in caught.value.findings} == {"D401"}


def test_resuming_on_another_replay_file_is_refused(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    general = tmp_path / "general.txt"
    general.write_text(text(100), encoding="utf-8")
    keys = {"data": str(files["qa"]), "model": str(base), "replay": str(general), "max_steps": 4, "save_steps": 2}
    recipe = Recipe.model_validate({**QUICK, **keys})
    for event in (events := train(recipe, tmp_path / "run")):
        if isinstance(event, Saved):
            events.close()
    general.write_text(text(90), encoding="utf-8")
    with pytest.raises(UserError, match=r"general\.txt has changed"):
        list(train(recipe, tmp_path / "run", resume=True))


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the stories260K model")
def test_a_foreign_model_forgets_less_with_replay(files: dict[str, Path], tmp_path: Path) -> None:
    told = plume.load(STORIES)
    assert told.model.context_length >= 64
    (tmp_path / "stories.txt").write_text(_stories(), encoding="utf-8")
    keys = {"data": str(files["qa"]), "model": str(STORIES), "replay": str(tmp_path / "stories.txt"), "max_steps": 20}
    keys["eval_steps"] = 20
    alone = run(tmp_path / "alone", **keys, replay_ratio=0).forgetting
    mixed = run(tmp_path / "mixed", **keys, replay_ratio=0.5).forgetting
    assert alone is not None
    assert mixed is not None
    assert mixed.perplexity_after < alone.perplexity_after


def _stories() -> str:
    """The model's own words: what it finds likely."""
    from plume.generation.engine import Engine
    from plume.types import Sampling

    engine = Engine(plume.load(STORIES))
    ids = engine.bundle.tokenizer.encode("Once upon a time", add_special_tokens=True)
    drawn = [
        "".join(c.text for c in engine.stream(ids, Sampling(max_new_tokens=120, temperature=1.0, seed=s), reply=False))
        for s in range(3)
    ]
    return "\n".join("Once upon a time" + story for story in drawn)


def _trained(row: Encoded) -> int:
    return sum(row.trained[1:])


def test_asking_the_base_about_other_rows_does_not_stop_a_run_on_it(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    keys = {"data": str(files["qa"]), "model": str(base), "max_steps": 2}
    events = train(Recipe.model_validate({**QUICK, **keys}), tmp_path / "run")
    next(events)
    events.close()
    (base / "eval" / "more.json").write_text("{}", encoding="utf-8")
    try:
        assert isinstance(list(train(Recipe(), tmp_path / "run", resume=True))[-1], Finished)
    finally:
        (base / "eval" / "more.json").unlink()
