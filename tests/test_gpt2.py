"""GPT-2 for answering computes what transformers' class does, of which it keeps the layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from plume.models import gpt2, hf

SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 64, "vocab_size": 90}


def stock(**settings: Any) -> Any:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(GPT2Config(**SIZES, **settings)).eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.3, 0.35)
    return model


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@torch.inference_mode()
def test_logits_are_those_of_transformers_at_every_length(activation: str) -> None:
    theirs = stock(activation_function=activation)
    ids_BT = torch.randint(0, 90, (3, 64))
    expected_BTV = theirs(ids_BT).logits
    model = hf.HFModel(theirs).for_answering()
    assert isinstance(model, gpt2.GPT2)
    lengths_B = torch.tensor([20, 3, 11])
    hidden_BTC, state = model(ids_BT[:, :20], None, lengths_B)
    for row, length in enumerate(lengths_B.tolist()):
        found_TV = model.head(hidden_BTC[row, :length])
        torch.testing.assert_close(found_TV, expected_BTV[row, :length], atol=1e-4, rtol=1e-4)
    for step in range(30):
        places_B = lengths_B + step
        hidden_B1C, state = model(ids_BT[range(3), places_B][:, None], state)
        expected_BV = expected_BTV[range(3), places_B]
        torch.testing.assert_close(model.head(hidden_B1C[:, 0]), expected_BV, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_packed_documents_do_not_see_each_other() -> None:
    model: Any = hf.HFModel(stock()).for_answering()
    ids_1T = torch.randint(0, 90, (1, 9))
    packed_1TC, _ = model(ids_1T, segments_BT=torch.tensor([[0] * 5 + [1] * 4]))
    alone_1TC, _ = model(ids_1T[:, 5:])
    torch.testing.assert_close(packed_1TC[:, 5:], alone_1TC, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unusual", ["scale_attn_by_inverse_layer_idx", "add_cross_attention"])
def test_unusual_attention_stays_with_transformers(unusual: str) -> None:
    assert gpt2.adopted(stock(**{unusual: True})) is None


def test_it_can_not_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="load the model again"):
        hf.HFModel(stock()).for_answering().save(tmp_path)
