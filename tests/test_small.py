"""The NumPy steps of small models give what torch gives, and remember the same."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from plume.models import gpt, hf
from plume.models.prepacked import threads_for, weights_nbytes

OWN = {"vocab_size": 70, "num_hidden_layers": 2, "num_attention_heads": 4, "dropout": 0.0, "max_length": 96}


def own(width: int = 48) -> Any:
    return gpt.build({**OWN, "hidden_size": width})


def llama() -> Any:
    """Without norms of queries and keys, several heads of queries for one of keys."""
    sizes: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 70}
    return hf.HFModel(AutoModelForCausalLM.from_config(LlamaConfig(**sizes, **heads, max_position_embeddings=96)))


@pytest.mark.parametrize("made", [own, llama])
@torch.inference_mode()
def test_single_tokens_are_those_of_the_model_read_at_once(made: Any) -> None:
    torch.manual_seed(2)
    model = made()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.4, 0.6)
    model.train(False)
    ids_1T = torch.randint(0, 70, (1, 90))
    whole_1TC, _ = model(ids_1T)
    model = model.for_answering()
    hidden_1TC, state = model(ids_1T[:, :7])
    found = [hidden_1TC]
    for place in range(7, 80):  # over the edge of a block of the memory
        hidden_11C, state = model(ids_1T[:, place : place + 1], state)
        found.append(hidden_11C)
    hidden_1TC, state = model(ids_1T[:, 80:], state)  # and torch goes on from what NumPy has written
    torch.testing.assert_close(torch.cat([*found, hidden_1TC], dim=1), whole_1TC, atol=1e-4, rtol=1e-4)


def test_matrices_that_threads_would_share_stay_with_torch() -> None:
    assert own(48).for_answering()._one_token is not None
    assert own(512).for_answering()._one_token is None


def test_a_server_decodes_a_row_alone_as_it_does_in_company() -> None:
    assert own(48).for_answering(batched=True)._one_token is None


def test_small_weights_are_read_by_one_thread() -> None:
    for model in (own(48), own(48).for_answering(batched=True)):
        assert weights_nbytes(model) >= sum(parameter.nbytes for parameter in own(48).parameters())
        assert threads_for(model) == 1
    assert threads_for(own(1056)) == torch.get_num_threads()
