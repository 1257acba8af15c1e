"""AdamW and Muon: what a step does, and that nothing of it is lost in a checkpoint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import TINY
from plume.errors import UserError
from plume.events import Finished, Saved
from plume.models.catalog import build_model
from plume.recipe import Recipe, parse_recipe
from plume.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from plume.training.learner import alone
from plume.training.loop import train
from plume.training.muon import Optimizer, orthogonalised
from plume.training.optim import make_optimizer
from plume.training.prepare import prepare
from plume.types import LanguageModel

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "dropout": 0.0,
    "max_length": 64,
}
MUON = Recipe(optim="muon", learning_rate=0.01, muon_learning_rate=0.02, weight_decay=0.0)


def gpt() -> LanguageModel:
    """No matrix is zero, so that every part learns from the first step."""
    torch.manual_seed(0)
    model = build_model("gpt", SIZES)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return model


def learn(model: LanguageModel, optimizer: Optimizer | torch.optim.Optimizer, steps: int, seed: int = 0) -> float:
    """Steps on drawn tokens, at the peak of every rate; returns the last loss."""
    chance = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        ids_BT = torch.randint(0, 5, (4, 9), generator=chance)
        hidden, _ = model(ids_BT[:, :-1])
        loss = nn.functional.cross_entropy(model.head(hidden).flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (1, 1, 8)])
def test_orthogonalised_matrices_keep_directions_and_lose_lengths(shape: tuple[int, int, int]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonalised(drawn)
    lengths = torch.linalg.svdvals(made)
    assert lengths.max() < 1.3
    assert lengths.mean() > 0.65
    left, _, right = torch.linalg.svd(drawn, full_matrices=False)
    towards = left.mT @ made @ right.mT  # the same directions: nothing beside the diagonal
    beside = towards - torch.diag_embed(towards.diagonal(dim1=-2, dim2=-1))
    assert beside.abs().max() < 1e-4


def test_orthogonalised_in_bfloat16_is_nearly_the_same_and_comes_back_in_float32() -> None:
    drawn = torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(0))
    exact, rounded = orthogonalised(drawn), orthogonalised(drawn, torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.03


def test_muon_follows_the_precision_of_the_recipe() -> None:
    """A step in bfloat16 is another one, by less than the rate."""
    moved = {}
    for bf16 in (False, True):
        model = gpt()
        learn(model, make_optimizer(model, MUON.model_copy(update={"bf16": bf16})), 1)
        moved[bf16] = weights(model)
    apart = {name: float((moved[True][name] - value).abs().max()) for name, value in moved[False].items()}
    assert max(apart.values()) > 0
    assert max(apart.values()) < 0.01


def test_a_matrix_alone_and_among_others_turns_alike() -> None:
    drawn = torch.randn(5, 16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalised(drawn)[2:3], orthogonalised(drawn[2:3]), atol=1e-5, rtol=1e-5)


def test_a_step_moves_every_matrix_of_the_layers_by_the_rate() -> None:
    """High matrices move by sqrt(rows / columns) more, whatever the size of their gradient."""
    model = gpt()
    before = weights(model)
    learn(model, make_optimizer(model, MUON), 1)
    moved = {name: (now - before[name]) / 0.02 for name, now in weights(model).items() if "layers" in name}
    for name, way in moved.items():
        if way.dim() == 2:
            rows, columns = way.shape
            assert torch.linalg.matrix_norm(way, 2) / max(1, rows / columns) ** 0.5 == pytest.approx(1, abs=0.3), name


def test_embeddings_and_vectors_are_stepped_by_adamw() -> None:
    """With the matrices held still, the rest goes exactly where AdamW alone takes it."""
    model, other = gpt(), gpt()
    learn(model, make_optimizer(model, MUON.model_copy(update={"muon_learning_rate": 0.0})), 3)
    adam = make_optimizer(other, MUON.model_copy(update={"optim": "adamw"}))
    for name, parameter in other.named_parameters():
        parameter.requires_grad_(not ("layers" in name and parameter.dim() == 2))
    learn(other, adam, 3)
    after, expected, start = weights(model), weights(other), weights(gpt())
    assert all(torch.equal(after[name], expected[name]) for name in after)
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.dim() == 1} | {
        "model.embed_tokens.weight"
    }


def test_muon_learns() -> None:
    model = gpt()
    first = learn(model, make_optimizer(model, MUON), 1)
    assert learn(model, make_optimizer(model, MUON), 60) < first - 1


def test_a_checkpoint_holds_all_of_it(tmp_path: Path) -> None:
    model = gpt()
    optimizer = make_optimizer(model, MUON)
    learn(model, optimizer, 3)
    path = save_checkpoint(tmp_path, alone(model, optimizer), Progress(3))
    again = gpt()
    restored = make_optimizer(again, MUON)
    load_checkpoint(path, alone(again, restored))
    learn(model, optimizer, 3, seed=1)
    learn(again, restored, 3, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_adamw_is_torchs_own_to_the_bit() -> None:
    model, other = gpt(), gpt()
    recipe = MUON.model_copy(update={"optim": "adamw", "weight_decay": 0.1})
    learn(model, make_optimizer(model, recipe), 5)
    groups = [
        {"params": [p for p in other.parameters() if (p.dim() > 1) == matrices], "weight_decay": decay}
        for matrices, decay in ((True, 0.1), (False, 0.0))
    ]
    peer = torch.optim.AdamW(groups, betas=(recipe.adam_beta1, recipe.adam_beta2), fused=True)
    for group in peer.param_groups:
        group["initial_lr"] = recipe.learning_rate
    learn(other, peer, 5)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


# --- in a run ---


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    file = tmp_path / "poem.txt"
    file.write_text("la mer et le phare, le phare et la mer\n" * 200, encoding="utf-8")
    return file


def settings(file: Path, **changes: Any) -> Recipe:
    return parse_recipe({**TINY, "data": str(file), "max_steps": 8, "max_new_tokens": 4, **changes})


def saved_then_closed(recipe: Recipe, path: Path) -> Iterator[int]:
    events = train(recipe, path)
    for event in events:
        if isinstance(event, Saved):
            yield event.step
            events.close()


def test_text_is_learnt_with_muon_and_a_stopped_run_ends_the_same(poem: Path, tmp_path: Path) -> None:
    recipe = settings(poem, save_steps=3, eval_steps=8)
    assert list(saved_then_closed(recipe, tmp_path / "stopped")) == [3]
    assert isinstance(list(train(recipe, tmp_path / "stopped", resume=True))[-1], Finished)
    list(train(recipe, tmp_path / "straight"))
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("stopped", "straight"))
    assert one == other
    assert prepare(recipe).recipe.optim == "muon"


def test_questions_from_scratch_keep_adamw(qa_file: Path) -> None:
    chosen = prepare(settings(qa_file)).recipe
    assert (chosen.optim, chosen.muon_learning_rate) == ("adamw", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optim": "muon", "model": "bigram"}, "no layers"),
        ({"optim": "adamw", "muon_learning_rate": 0.1}, "is read with optim=muon alone"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(poem: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        prepare(settings(poem, **changes))


def test_a_short_run_on_text_gets_half_the_layers(poem: Path) -> None:
    """Depth, dropout and head are functions of how many tokens a run sees, how often, and of the vocabulary."""
    sizes: dict[str, Any] = {"hidden_size": None, "num_hidden_layers": None, "num_attention_heads": None}
    short = prepare(settings(poem, **sizes, max_steps=20)).recipe
    assert (short.num_hidden_layers, short.dropout) == (2, 0.0)
    long = prepare(settings(poem, **sizes, max_steps=2000)).recipe
    assert (long.num_hidden_layers, long.dropout) == (4, 0.1)
