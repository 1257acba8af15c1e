"""The GRU with attention: its window, its packed segments, its output layer, and the way from text to answers.

Shape suffixes: B batch, T time, S past, C width, N tokens.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

import plume
from conftest import TINY
from plume.cli.main import app
from plume.errors import UserError
from plume.events import Finished
from plume.generation.engine import Engine
from plume.models import gru
from plume.models.bundle import bundle, for_training
from plume.models.catalog import build_model, load_model
from plume.recipe import load_recipe, parse_recipe, shipped_recipes
from plume.text.template import SEP
from plume.text.tokenizer import train_tokenizer
from plume.training.loop import train
from plume.types import Message, Sampling

WORDS = 60


def made(**changes: Any) -> gru.GRU:
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "hidden_size": 16, "attention_size": 8, "num_hidden_layers": 2}
    sizes["attention_window"] = 10
    model = gru.GRU(gru.GRUConfig(**{**sizes, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    model.train(False)
    return model


def some_ids(rows: int, length: int) -> Tensor:
    return torch.randint(WORDS, (rows, length), generator=torch.Generator().manual_seed(1))


def hidden_of(model: gru.GRU, *inputs: Any) -> Tensor:
    with torch.no_grad():
        hidden_BTC: Tensor = model(*inputs)[0]
    return hidden_BTC


# --- the window ---


@pytest.mark.parametrize("window", [None, 1, 10, 100])
def test_attention_is_what_its_formula_says(window: int | None) -> None:
    model = made(attention_window=window, num_hidden_layers=1)
    ids = some_ids(2, 75)
    with torch.no_grad():
        h_BTC, _ = model.layers[0](model.embed_tokens(ids))
        scores_BTS = model.score(torch.tanh(model.query(h_BTC)[:, :, None] + model.key(h_BTC)[:, None])).squeeze(-1)
        back = torch.arange(75)[:, None] - torch.arange(75)
        hidden = (back < 0) | (back >= (window or 75))
        context_BTC = scores_BTS.masked_fill(hidden, float("-inf")).softmax(-1) @ h_BTC
        expected = torch.tanh(model.project(torch.cat([h_BTC, context_BTC], dim=-1)))
    torch.testing.assert_close(hidden_of(model, ids), expected, atol=1e-5, rtol=1e-5)


def test_decoding_holds_no_more_than_the_window_and_answers_the_same() -> None:
    model, ids = made(), some_ids(2, 300)
    most, state, pieces = 0, None, []
    with torch.no_grad():
        for at in range(300):
            hidden, state = model(ids[:, at : at + 1], state)
            pieces.append(hidden)
            most = max(most, state.nbytes)
    slots = 10 + 2 * 64  # the window, and the slack that saves copies
    assert most <= 2 * slots * (2 * 16 + 8) * 4
    torch.testing.assert_close(torch.cat(pieces, dim=1), hidden_of(model, ids), atol=1e-5, rtol=1e-5)


def test_rows_of_different_lengths_drop_their_own_past() -> None:
    model, ids, lengths = made(), some_ids(2, 240), [200, 90]
    with torch.no_grad():
        _, state = model(ids[:, :200], None, torch.tensor(lengths))
        for step in range(40):
            following = torch.stack([ids[row, length + step : length + step + 1] for row, length in enumerate(lengths)])
            hidden, state = model(following, state)
    for row, length in enumerate(lengths):
        alone = hidden_of(model, ids[row : row + 1, : length + 40])
        torch.testing.assert_close(hidden[row, 0], alone[0, -1], atol=1e-5, rtol=1e-5)


def test_going_back_beyond_what_is_held_is_refused() -> None:
    with torch.no_grad():
        _, state = made()(some_ids(1, 200))
    with pytest.raises(ValueError, match="read the text again"):
        state.truncate(100)


class _Tanhs(TorchDispatchMode):
    """Counts the numbers whose tanh is taken: the cost of additive attention."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.tanh.default and out.dim() == 4:
            self.total += out.numel()
            self.largest = max(self.largest, out.numel())
        return out


def test_the_cost_of_attention_grows_with_the_length_and_no_tensor_with_its_square() -> None:
    counts = []
    for length in (256, 512):
        with _Tanhs() as counted:
            hidden_of(made(), some_ids(1, length))
        counts.append(counted)
    assert counts[1].total < 2.1 * counts[0].total
    assert counts[1].largest == counts[0].largest


def test_a_directory_from_before_the_window_still_looks_back_at_everything(tmp_path: Path) -> None:
    model = made(attention_window=None)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for key in ("attention_window", "cutoffs"):
        config.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded: Any = load_model(tmp_path)
    loaded.train(False)
    assert loaded.config.attention_window is None
    assert torch.equal(hidden_of(loaded, some_ids(1, 90)), hidden_of(model, some_ids(1, 90)))


# --- packing ---


def test_packed_segments_do_not_see_one_another() -> None:
    model, ids = made(), some_ids(2, 30)
    segments = torch.tensor([[0] * 7 + [1] * 20 + [2] * 3, [0] * 15 + [1] * 10 + [9] * 5])
    lengths = torch.tensor([30, 25])  # the second row ends in padding
    with torch.no_grad():
        packed_BTC, state = model(ids, None, lengths, segments)
        following, _ = model(ids[:, :4], state)
    for row, start, end in ((0, 0, 7), (0, 7, 27), (0, 27, 30), (1, 0, 15), (1, 15, 25)):
        alone = hidden_of(model, ids[row : row + 1, start:end])
        torch.testing.assert_close(packed_BTC[row : row + 1, start:end], alone, atol=1e-5, rtol=1e-5)
    for row, start, end in ((0, 27, 30), (1, 15, 25)):
        alone = hidden_of(model, torch.cat([ids[row, start:end], ids[row, :4]])[None])
        torch.testing.assert_close(following[row], alone[0, -4:], atol=1e-5, rtol=1e-5)


def test_packed_segments_learn_what_unpacked_ones_do() -> None:
    ids, segments = some_ids(1, 12), torch.tensor([[0] * 5 + [1] * 7])
    gradients = []
    for inputs in ([(ids, None, None, segments)], [(ids[:, :5],), (ids[:, 5:],)]):
        model = made()
        torch.cat([model(*given)[0] for given in inputs], dim=1).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for packed, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


# --- the output layer ---


@pytest.mark.parametrize("tied", [True, False])
def test_clusters_give_probabilities_and_their_loss_for_less(tied: bool) -> None:
    model = made(cutoffs=[20, 45], tie_word_embeddings=tied)
    hidden_NC, labels_N = torch.randn(40, 16), torch.cat([torch.arange(20, 60)])
    logits_NV = model.head(hidden_NC)
    torch.testing.assert_close(logits_NV.exp().sum(-1), torch.ones(40))
    expected = F.cross_entropy(logits_NV, labels_N, reduction="sum")
    torch.testing.assert_close(model.summed_loss(hidden_NC, labels_N), expected)


def test_a_cluster_without_a_label_costs_nothing_and_breaks_nothing() -> None:
    model = made(cutoffs=[20, 45])
    loss = model.summed_loss(torch.randn(5, 16), torch.arange(5))
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_only_large_vocabularies_are_clustered() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "dropout": 0.0, "max_length": 16, "attention_window": 16}
    small, large = (build_model("gru", {**sizes, "vocab_size": size}) for size in (900, 9000))
    assert isinstance(small, gru.GRU)
    assert isinstance(large, gru.GRU)
    assert (small.config.cutoffs, small.config.tie_word_embeddings) == (None, False)
    assert large.config.cutoffs
    assert large.config.tie_word_embeddings


@pytest.mark.parametrize("sizes", [{}, {"cutoffs": [20, 45], "tie_word_embeddings": True}])
def test_a_widened_vocabulary_keeps_what_the_old_one_knew(sizes: dict[str, Any], tmp_path: Path) -> None:
    model = made(**sizes)
    hidden = hidden_of(model, some_ids(1, 9))
    before = model.head(hidden)
    model.resize(WORDS + 3)
    after = model.head(hidden_of(model, some_ids(1, 9)))
    assert after.shape[-1] == model.vocab_size == WORDS + 3
    torch.testing.assert_close(after[..., :20].softmax(-1), before[..., :20].softmax(-1), atol=1e-5, rtol=1e-5)
    model.save(tmp_path)
    assert load_model(tmp_path).vocab_size == WORDS + 3


# --- from text to answers ---


TEXT = "The lamp hangs in the tower . The boat lies in the harbour . The bell rings in the chapel .\n" * 40


def test_pretrained_on_text_then_fine_tuned_on_questions(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT, encoding="utf-8")
    rows = [
        {"prompt": f"{asked} the {thing} ?", "completion": place}
        for thing, place in (("lamp", "tower"), ("boat", "harbour"), ("bell", "chapel"))
        for asked in ("The", "in", "in the")
    ]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tiny = {key: TINY[key] for key in ("eval_samples", "torch_num_threads")}
    text = {"data": "corpus.txt", "model": "gru", "tokenizer": "word", "hidden_size": 32, "max_length": 32}
    run(parse_recipe({**text, **tiny, "max_steps": 40}), tmp_path / "pre")
    fine = {"data": "qa.jsonl", "model": "pre", "test_size": 0, "max_steps": 120, "learning_rate": 1e-2}
    finished = run(parse_recipe({**fine, **tiny}), tmp_path / "fine")
    opened = plume.load("fine")
    assert opened.template.source == SEP
    assert opened.tokenizer.vocab_size > plume.load("pre").tokenizer.vocab_size  # words of the questions, now known
    engine = Engine(opened)
    ids = engine.prompt([Message("user", "in the boat ?")])
    assert ids[-1] == opened.tokenizer.special_tokens["<sep>"]
    [answer] = engine.generate([ids], Sampling(max_new_tokens=8))
    assert (answer.text, answer.finish) == ("harbour", "stop")
    assert finished.scores["recall"]["stop_rate"] == 1.0


def test_a_base_that_lacks_the_separator_gets_it() -> None:
    tokenizer = train_tokenizer("word", [TEXT], 40)
    names = {name: text for name, text in tokenizer.special_token_names.items() if name != "sep_token"}
    lacking = type(tokenizer)(tokenizer._backend, names)
    model = build_model(
        "gru",
        {"vocab_size": lacking.vocab_size, "hidden_size": 8, "num_hidden_layers": 1, "dropout": 0, "max_length": 16},
    )
    ready = for_training(bundle(model, lacking, "raw", 8), chat=True)
    assert ready.template.source == SEP
    assert ready.tokenizer.special_token_names["sep_token"] == "<sep>"
    assert ready.model.vocab_size == ready.tokenizer.vocab_size
    assert for_training(bundle(model, lacking, "raw", 8), chat=False).template.source != SEP


def run(recipe: Any, path: Path) -> Finished:
    last = list(train(recipe, path))[-1]
    assert isinstance(last, Finished)
    return last


# --- shipped recipes ---


def test_shipped_recipes_are_listed_and_read() -> None:
    listed = CliRunner().invoke(app, ["train", "--list-recipes"])
    assert listed.exit_code == 0
    for name, purpose in shipped_recipes().items():
        assert f"{name} " in listed.stdout
        assert purpose in listed.stdout
        assert load_recipe(Path(name)).model
    with pytest.raises(UserError) as refused:
        load_recipe(Path("gru-fine"))
    assert "gru-finetune: AdamW" in str(refused.value.hint)


def test_a_shipped_recipe_is_checked_against_the_data(qa_file: Path, tmp_path: Path) -> None:
    small = ["--set", "hidden_size=16", "--set", "torch_num_threads=1", "--set", "test_size=0"]
    arguments = ["train", str(qa_file), "--recipe", "gru-finetune", "--output-dir", str(tmp_path / "run"), *small]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.stderr
    assert "10 steps (10 epochs of 1) are too few" in " ".join(said.stderr.split())
