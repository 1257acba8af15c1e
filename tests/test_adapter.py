"""Adapters: what is trained, what is saved, who opens it, and what becomes of it when merged."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

import plume
from conftest import write_rows
from plume.errors import DataError, UserError
from plume.events import Finished, TrainEvent
from plume.models import gpt, gru
from plume.models.adapter import merge_adapter, unmerge_adapter
from plume.models.bundle import bundle, save
from plume.models.hf import HFModel
from plume.text.tokenizer import TextTokenizer, train_tokenizer
from plume.training import memory
from plume.training.batches import collate
from plume.training.prepare import prepare
from plume.types import LanguageModel

# PEFT calls what transformers now calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONTEXT = 96
TEXTS = ["Where is the lamp? Tell me where the boat is.", 'Où est « bread » ? {"lieu": "tower été"}']


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer("bpe", TEXTS, 300)


def stock(config: Any, **sizes: Any) -> Callable[[int], LanguageModel]:
    usual = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": CONTEXT,
    }

    def build(vocab_size: int) -> LanguageModel:
        ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
        return HFModel(AutoModelForCausalLM.from_config(config(vocab_size=vocab_size, **ids, **(sizes or usual))))

    return build


OURS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "dropout": 0.0,
    "max_length": CONTEXT,
}
FAMILIES: dict[str, tuple[Callable[[int], LanguageModel], str]] = {
    "gpt": (lambda size: gpt.build({**OURS, "vocab_size": size}), "down gate k o q up v"),
    "gru": (lambda size: gru.build({**OURS, "vocab_size": size}), "key project query score"),
    "llama": (stock(LlamaConfig), "down gate k o q up v"),
    "qwen2": (stock(Qwen2Config), "down gate k o q up v"),
    "qwen3": (stock(Qwen3Config), "down gate k o q up v"),
    "phi": (stock(PhiConfig), "dense fc1 fc2 k q v"),
    "gpt2": (stock(GPT2Config, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT), "c_attn c_fc c"),
    "gpt_neo": (
        stock(
            GPTNeoConfig,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            max_position_embeddings=CONTEXT,
            attention_types=[[["global"], 2]],
        ),
        "c_fc c k out q v",
    ),
}


@pytest.fixture
def base(tmp_path: Path, tokenizer: TextTokenizer) -> Callable[..., Path]:
    """A base model of a family in a directory; with `bare`, without the tokens that fine-tuning needs."""

    def make(family: str, *, bare: bool = False) -> Path:
        torch.manual_seed(0)
        model = FAMILIES[family][0](tokenizer.vocab_size)
        for parameter in model.parameters():
            if parameter.dim() > 1:  # of a size at which every part shows in the logits
                torch.nn.init.normal_(parameter, std=0.15)
        path = tmp_path / f"base-{family}"
        path.mkdir()
        save(bundle(model, tokenizer, "chat", 8), path, "a base")
        if bare:
            strip(path)
        return path

    return make


def strip(directory: Path) -> None:
    """Take the chat template away, so that fine-tuning brings its own; its tokens are then new ones."""
    (directory / "chat_template.jinja").unlink()
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    for old, new in (("<|user|>", "<|old-user|>"), ("<|assistant|>", "<|old-assistant|>")):
        text = text.replace(old, new)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")


def train(data: Path, model: Path | str, output: Path, **changes: Any) -> list[TrainEvent]:
    return list(plume.train(recipe(data, model, **changes), output))


def recipe(data: Path, model: Path | str, **changes: Any) -> plume.Recipe:
    values = {"max_steps": 2, "eval_samples": 2, "max_new_tokens": 4, "torch_num_threads": 1, "lora_r": 4, **changes}
    return plume.Recipe.model_validate({"data": str(data), "model": str(model), **values})


def logits(opened: Any) -> Tensor:
    """Of a bundle, or of a transformers model."""
    ids_BT = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        if isinstance(opened, plume.Bundle):
            hidden_BTC, _ = opened.model(ids_BT)
            return opened.model.head(hidden_BTC)
        opened.eval()
        found: Tensor = opened(input_ids=ids_BT).logits
        return found


def lively(directory: Path) -> None:
    """Give an adapter weights that show: two steps move it hardly."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    tensors = load_file(directory / "adapter_model.safetensors")
    moved = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    save_file(moved, directory / "adapter_model.safetensors", metadata={"format": "pt"})


# --- what is trained -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_a_family_is_adapted_and_nothing_else_is_trained(
    family: str, base: Callable[..., Path], qa_file: Path
) -> None:
    prepared = prepare(recipe(qa_file, base(family)))
    named = [
        f"{name}_proj" if len(name) == 1 or name in ("gate", "up", "down", "out") else name
        for name in FAMILIES[family][1].split()
    ]
    assert prepared.recipe.lora_target_modules == sorted(named)
    assert (prepared.recipe.lora_alpha, prepared.recipe.lora_dropout, prepared.recipe.use_dora) == (8, 0.0, False)
    trained = [name for name, value in prepared.bundle.model.named_parameters() if value.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name or "embed" in name or "wte" in name for name in trained)


def test_only_the_adapter_changes(base: Callable[..., Path], qa_file: Path, tmp_path: Path) -> None:
    directory = base("gpt2")
    before = load_file(directory / "model.safetensors")
    train(qa_file, directory, tmp_path / "run")
    kept = dict(plume.load(tmp_path / "run").model.named_parameters())
    frozen = {name.removeprefix("inner.").replace(".base_layer", ""): value for name, value in kept.items()}
    assert all(torch.equal(frozen[name], value) for name, value in before.items() if name in frozen)
    assert len(before.keys() & frozen.keys()) > 10


def test_a_larger_rate_than_for_all_weights_is_chosen(base: Callable[..., Path], qa_file: Path) -> None:
    directory = base("llama")
    adapter, whole = prepare(recipe(qa_file, directory)), prepare(recipe(qa_file, directory, lora_r=None))
    assert adapter.recipe.peak_learning_rate > whole.recipe.peak_learning_rate


def test_a_target_that_matches_nothing_is_refused_by_name(base: Callable[..., Path], qa_file: Path) -> None:
    directory = base("gpt2")
    with pytest.raises(DataError, match="q_proj") as refused:
        prepare(recipe(qa_file, directory, lora_target_modules=["c_attn", "q_proj"]))
    (finding,) = refused.value.findings
    assert finding.code == "D509"
    assert "c_attn, c_fc, c_proj" in finding.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "gpt"}, "from scratch"),
        ({"lora_r": None, "lora_alpha": 16}, "lora_r"),
        ({"optim": "muon"}, "muon"),
    ],
)
def test_settings_that_make_no_adapter_are_refused(
    changes: dict[str, Any], words: str, base: Callable[..., Path], qa_file: Path
) -> None:
    with pytest.raises(UserError, match=words):
        prepare(recipe(qa_file, changes.pop("model", base("gpt2")), **changes))


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi"])
def test_the_embeddings_of_added_tokens_are_trained_and_kept(
    family: str, base: Callable[..., Path], qa_file: Path, tmp_path: Path
) -> None:
    """Tied output layer, one of its own, and one with a bias."""
    directory = base(family, bare=True)
    prepared = prepare(recipe(qa_file, directory))
    rows = len(plume.load(directory).tokenizer.special_tokens), len(prepared.bundle.tokenizer.special_tokens)
    assert rows[1] - rows[0] == 2
    train(qa_file, directory, tmp_path / "run", learning_rate=0.01, max_steps=4)
    learnt: Any = plume.load(tmp_path / "run").model
    first: Any = prepared.bundle.model
    new = slice(prepared.bundle.tokenizer.vocab_size - 2, None)
    for part in ("get_input_embeddings", "get_output_embeddings"):
        before, after = getattr(first.inner, part)().weight, getattr(learnt.inner, part)().weight
        assert not torch.equal(before[new], after[new])
        if family != "phi" or part == "get_input_embeddings":
            assert torch.equal(before[: new.start], after[: new.start])
    through_peft = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    torch.testing.assert_close(logits(through_peft), logits(plume.load(tmp_path / "run")), atol=1e-5, rtol=0)
    plume.merge(tmp_path / "run", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(through_peft), atol=1e-5, rtol=0)


# --- what is saved, and who opens it -------------------------------------------------------------


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("family", ["gpt", "gru", "gpt2", "qwen3"])
def test_an_adapter_opens_everywhere_and_merges_to_the_same_logits(
    family: str, use_dora: bool, base: Callable[..., Path], qa_file: Path, tmp_path: Path
) -> None:
    directory = base(family)
    train(qa_file, directory, tmp_path / "run", use_dora=use_dora)
    saved = tmp_path / "run" / "model"
    assert sorted(file.name for file in saved.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "base.json", "chat_template.jinja",
        "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    lively(saved)
    opened = plume.load(saved)
    ours = logits(opened)
    assert (ours - logits(plume.load(directory))).abs().max() > 0.01
    if family != "gru":  # whose call is Plume's own
        for auto in (AutoPeftModelForCausalLM, AutoModelForCausalLM)[: 1 if use_dora else 2]:  # see docs/adapters.md
            torch.testing.assert_close(logits(auto.from_pretrained(saved)), ours, atol=1e-5, rtol=0)
    assert opened.adapter
    merge_adapter(opened.adapter)
    torch.testing.assert_close(logits(opened), ours, atol=1e-5, rtol=0)
    unmerge_adapter(opened.adapter)
    torch.testing.assert_close(logits(opened), ours, atol=1e-5, rtol=0)
    plume.merge(saved, tmp_path / "merged")
    torch.testing.assert_close(logits(plume.load(tmp_path / "merged")), ours, atol=1e-5, rtol=0)
    if family != "gru":
        torch.testing.assert_close(
            logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), ours, atol=1e-5, rtol=0
        )


def test_an_adapter_made_with_peft_alone_opens_with_the_words_of_its_base(
    base: Callable[..., Path], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    directory = base("llama")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    made: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(directory),
        config,
    )
    made.save_pretrained(tmp_path / "theirs")
    lively(tmp_path / "theirs")
    opened = plume.load(tmp_path / "theirs")
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(logits(opened), logits(theirs), atol=1e-5, rtol=0)
    assert opened.template.source == plume.load(directory).template.source


def test_two_runs_of_one_recipe_write_the_same_bytes(base: Callable[..., Path], qa_file: Path, tmp_path: Path) -> None:
    directory = base("gpt2", bare=True)
    for name in ("one", "two"):
        train(qa_file, directory, tmp_path / name, lora_dropout=0.2)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / "model" / file).read_bytes() == (tmp_path / "two" / "model" / file).read_bytes()


def test_an_interrupted_run_of_an_adapter_resumes_exactly(
    base: Callable[..., Path], qa_file: Path, tmp_path: Path
) -> None:
    asked = recipe(qa_file, base("gpt2", bare=True), max_steps=4, eval_steps=2, save_steps=2, lora_dropout=0.2)
    list(plume.train(asked, tmp_path / "straight"))
    events: Iterator[TrainEvent] = plume.train(asked, tmp_path / "stopped")
    next(event for event in events if type(event).__name__ == "Saved")
    events.close()  # type: ignore[attr-defined]
    list(plume.train(asked, tmp_path / "stopped", resume=True))
    weights = [tmp_path / run / "model" / "adapter_model.safetensors" for run in ("straight", "stopped")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.fixture
def trained(base: Callable[..., Path], qa_file: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A base, and the run of an adapter on it."""
    directory = base("llama")
    train(qa_file, directory, tmp_path / "run")
    return directory, tmp_path / "run"


def test_a_base_that_is_gone_or_another_is_named(trained: tuple[Path, Path], tmp_path: Path) -> None:
    directory, run = trained
    directory.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="base-llama") as gone:
        plume.load(run)
    assert "adapter_config.json" in (gone.value.hint or "")
    config = json.loads((run / "model" / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = str(tmp_path / "moved")
    (run / "model" / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert plume.load(run).adapter
    other = torch.zeros(1)
    weights = load_file(tmp_path / "moved" / "model.safetensors")
    from safetensors.torch import save_file

    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] + other + 1e-3},
        tmp_path / "moved" / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match="weights differ"):
        plume.load(run)


def test_damaged_adapters_are_errors_not_tracebacks(trained: tuple[Path, Path]) -> None:
    saved = trained[1] / "model"
    file = saved / "adapter_model.safetensors"
    from safetensors.torch import save_file

    tensors = load_file(file)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="do not fit"):
        plume.load(saved)
    (saved / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be opened"):
        plume.load(saved)


# --- going on ------------------------------------------------------------------------------------


def test_an_adapter_is_trained_on(trained: tuple[Path, Path], qa_file: Path, tmp_path: Path) -> None:
    directory, run = trained
    events = train(qa_file, run, tmp_path / "more", lora_r=None, max_steps=3)
    assert isinstance(events[-1], Finished)
    config = json.loads((tmp_path / "more" / "model" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(directory.resolve())
    first = prepare(recipe(qa_file, run, lora_r=None)).bundle
    torch.testing.assert_close(logits(first), logits(plume.load(run)))
    assert (logits(plume.load(tmp_path / "more")) - logits(first)).abs().max() > 0
    kept = plume.Recipe.model_validate(events[0].recipe.model_dump())  # type: ignore[union-attr]
    assert (kept.lora_r, kept.lora_alpha) == (4, 8)
    with pytest.raises(UserError, match="lora_r=8 contradicts"):
        prepare(recipe(qa_file, run, lora_r=8))


def test_a_merged_model_is_a_base_as_any(trained: tuple[Path, Path], qa_file: Path, tmp_path: Path) -> None:
    directory, run = trained
    plume.merge(run, tmp_path / "merged")
    shutil.rmtree(directory)
    for name, changes in (("whole", {"lora_r": None}), ("adapter", {})):
        assert isinstance(train(qa_file, tmp_path / "merged", tmp_path / name, **changes)[-1], Finished)
    with pytest.raises(UserError, match="no adapter"):
        plume.merge(tmp_path / "whole", tmp_path / "again")
    with pytest.raises(UserError, match="not empty"):
        plume.merge(tmp_path / "adapter", tmp_path / "merged")


def test_an_adapter_learns_facts(base: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"prompt": f"Where is the {a}?", "completion": b} for a, b in (("lamp", "up"), ("boat", "sea"))]
    data = write_rows(tmp_path / "two.jsonl", rows)
    done = train(data, base("llama"), tmp_path / "run", max_steps=60, lora_r=16, learning_rate=0.02)[-1]
    assert isinstance(done, Finished)
    assert done.scores["recall"]["exact_match"] == 1.0


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt", "llama", "gpt2"])
def test_checkpointed_gradients_are_the_same(family: str, base: Callable[..., Path], qa_file: Path) -> None:
    directory = base(family)
    ids_BT, lengths_B = torch.arange(3, 43).view(2, 20), torch.tensor([20, 13])
    gradients = []
    for wanted in (False, True):
        model = prepare(recipe(qa_file, directory, lora_r=None, gradient_checkpointing=wanted)).bundle.model
        model.train(True)
        torch.manual_seed(3)
        hidden_BTC, _ = model(ids_BT, None, lengths_B)
        model.head(hidden_BTC).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_an_adapter_computes_layers_twice_unless_told_not_to(base: Callable[..., Path], qa_file: Path) -> None:
    def wanted(family: str = "llama", **changes: Any) -> tuple[bool | None, bool]:
        prepared = prepare(recipe(qa_file, base(family), **changes))
        model: Any = prepared.bundle.model
        return prepared.recipe.gradient_checkpointing, getattr(model, "checkpointing", False)

    assert wanted() == (True, True)
    assert wanted("gpt", gradient_checkpointing=False) == (False, False)
    assert wanted("qwen3", lora_r=None) == (None, False)
    assert wanted("gru") == (None, False)


def test_checkpointing_is_refused_where_there_is_nothing_to_checkpoint(
    base: Callable[..., Path], qa_file: Path
) -> None:
    with pytest.raises(UserError, match="gradient_checkpointing"):
        prepare(recipe(qa_file, base("gru"), lora_r=None, gradient_checkpointing=True))


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_the_estimate_knows_what_is_trained_and_what_is_computed_twice(
    family: str, base: Callable[..., Path], qa_file: Path
) -> None:
    directory = base(family)

    def need(**changes: Any) -> memory.Need:
        prepared = prepare(recipe(qa_file, directory, **changes))
        return memory.estimate(prepared.bundle.model, collate(prepared.rows[:1], 0), 1)

    kept: dict[str, Any] = {"gradient_checkpointing": False}
    whole, adapter, twice = need(lora_r=None), need(**kept), need(lora_r=None, gradient_checkpointing=True)
    assert twice.per_row < 0.8 * whole.per_row
    assert adapter.per_row < 1.5 * whole.per_row
    assert need(use_dora=True, **kept).per_row < 3 * whole.per_row  # its whole matrices are computed once a batch
