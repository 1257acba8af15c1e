"""Which precision is chosen where, and that products in bfloat16 give nearly the same loss and gradients."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from plume.models.catalog import build_model
from plume.training.batches import collate
from plume.training.devices import choose_bf16
from plume.training.learner import Objective
from plume.types import Encoded, LanguageModel

CPU = torch.device("cpu")
SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.0}


def sized(parameters: int, *more: nn.Module) -> LanguageModel:
    with torch.device("meta"):
        return cast(LanguageModel, nn.Sequential(nn.Linear(1, parameters, bias=False), *more))


def processor(folder: Path, flags: str) -> Path:
    (folder / "proc").mkdir()
    (folder / "proc" / "cpuinfo").write_text(f"flags : {flags}\n", encoding="utf-8")
    return folder


def test_a_large_model_takes_bfloat16_on_a_processor_with_units_for_it(tmp_path: Path) -> None:
    able = processor(tmp_path, "fpu avx512_bf16")
    assert choose_bf16(sized(10_000_000), CPU, able).value is True
    assert choose_bf16(sized(9_999_999), CPU, able).value is False
    assert choose_bf16(sized(10_000_000, nn.GRU(2, 2)), CPU, able).value is False


def test_no_model_takes_bfloat16_on_a_processor_without_units_for_it(tmp_path: Path) -> None:
    chosen = choose_bf16(sized(10_000_000), CPU, processor(tmp_path, "fpu avx512f"))
    assert chosen.value is False
    assert chosen.reason == "it has no units for bfloat16"


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("longest", [20, 300])
def test_bfloat16_gives_nearly_the_same_loss_and_gradients(longest: int, packing: bool) -> None:
    """Short rows and long ones: their attention is computed in different ways."""
    torch.manual_seed(0)
    model: Any = build_model("gpt", {**SIZES, "max_length": 512})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    rows = [[(7 * n + 3 * row) % 60 for n in range(count)] for row, count in enumerate((longest, 9, 5))]
    batch = collate([Encoded(tuple(ids), (False, *[True] * (len(ids) - 1))) for ids in rows], 0, packing=packing)
    losses, gradients = [], []
    for bf16 in (False, True):
        model.zero_grad()
        loss = Objective(model, bf16=bf16)(batch)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.995
