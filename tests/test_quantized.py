"""Weights in 8 and 4 bits: every architecture answers nearly as before, in less memory, row by row."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoConfig, LlamaConfig, PhiConfig

from plume.errors import UserError
from plume.models import bigram, gpt, gru, hf, memory
from plume.models.adapter import base_fingerprint
from plume.models.catalog import load_model
from plume.models.lowbit import Int4Linear, Int8Linear, int4_of, int8_of
from plume.models.quantized import write_quantized
from plume.models.weights import quantized_file
from plume.types import LanguageModel

SIZES: dict[str, Any] = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 1, "dropout": 0.0, "max_length": 64}
FOREIGN: dict[str, Any] = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}


def foreign(config: Any) -> LanguageModel:
    return hf.HFModel(AutoModelForCausalLM.from_config(config))


MODELS: dict[str, Any] = {
    "bigram": lambda: bigram.build(SIZES),
    "gru": lambda: gru.build(SIZES),
    "gru with clusters": lambda: gru.build({**SIZES, "vocab_size": 5000}),
    "gpt": lambda: gpt.GPT(gpt.GPTConfig(300, 64, 128, 2, 4, 2, 16, 64)),
    "gpt untied": lambda: gpt.GPT(gpt.GPTConfig(300, 64, 128, 2, 4, 4, 16, 64, tie_word_embeddings=False)),
    "gpt2": lambda: foreign(GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=64)),
    "llama": lambda: foreign(LlamaConfig(**FOREIGN, intermediate_size=128, num_attention_heads=4)),
    "phi": lambda: foreign(PhiConfig(**FOREIGN, intermediate_size=128, num_attention_heads=4)),
    "gpt_neo": lambda: foreign(
        GPTNeoConfig(
            vocab_size=300,
            hidden_size=64,
            num_layers=2,
            num_heads=4,
            max_position_embeddings=64,
            window_size=8,
            attention_types=[[["global", "local"], 1]],
        )
    ),
}


@pytest.fixture(params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LanguageModel, Path]:
    torch.manual_seed(0)
    model: LanguageModel = MODELS[request.param]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    model.train(False)
    model.save(tmp_path)
    return model, tmp_path


@torch.inference_mode()
def logits(model: LanguageModel, ids_BT: Tensor) -> Tensor:
    model.train(False)
    hidden_BTC, _ = model(ids_BT)
    return model.head(hidden_BTC).log_softmax(dim=-1)


@pytest.mark.parametrize(("kind", "most"), [("int8", 5e-4), ("int4", 6e-2)])
def test_probabilities_stay_nearly_what_they_were(saved: tuple[LanguageModel, Path], kind: Any, most: float) -> None:
    model, directory = saved
    ids_BT = torch.arange(40).view(2, 20) * 7 % 300
    before = logits(model, ids_BT)
    write_quantized(model, kind, directory, quantized_file(directory, kind))
    assert torch.equal(logits(model, ids_BT), before)  # the original is what it was
    loaded = load_model(directory, kind)
    assert any(isinstance(module, Int8Linear | Int4Linear) for module in loaded.modules())  # type: ignore[attr-defined]
    after = logits(loaded, ids_BT)
    divergence = (before.exp() * (before - after)).sum(dim=-1).mean()
    assert 0 < float(divergence.abs()) < most
    assert loaded.vocab_size == model.vocab_size


def test_one_row_does_not_depend_on_the_others(saved: tuple[LanguageModel, Path]) -> None:
    model, directory = saved
    write_quantized(model, "int8", directory, quantized_file(directory, "int8"))
    loaded = load_model(directory, "int8")
    ids_BT = torch.arange(60).view(3, 20) * 11 % 300
    together = logits(loaded, ids_BT)
    for row in range(3):
        assert torch.allclose(logits(loaded, ids_BT[row : row + 1])[0], together[row], atol=2e-4)


@pytest.mark.parametrize(("inputs", "outputs"), [(33, 17), (64, 100), (8, 300), (768, 64)])
def test_int8_is_as_exact_as_its_weights(inputs: int, outputs: int) -> None:
    torch.manual_seed(1)
    matrix_NK, bias_N = torch.randn(outputs, inputs), torch.randn(outputs)
    layer = Int8Linear(inputs, outputs, bias=True)
    layer.load_state_dict({**int8_of(matrix_NK), "bias": bias_N}, assign=True)
    rounded_NK = layer.weight.double() * layer.scale.double()[:, None]
    assert float((rounded_NK - matrix_NK).abs().max()) <= float(layer.scale.max()) / 2 * 1.0001
    layer.pack()
    x = torch.randn(2, 5, inputs)
    x[0, 0, 0] = 40.0  # one value far beyond the others
    x[1, 4] = 0.0
    expected = x.double() @ rounded_NK.t() + bias_N
    assert float((layer(x) - expected).abs().max() / expected.abs().max()) < 5e-4


def test_what_is_not_finite_stays_so() -> None:
    layer = Int8Linear(32, 16, bias=False)
    layer.load_state_dict(int8_of(torch.randn(16, 32)), assign=True)
    layer.pack()
    x = torch.zeros(2, 32)
    x[0, 3] = float("nan")
    assert layer(x)[0].isnan().all()
    assert not layer(x)[1].any()


@pytest.mark.parametrize(("inputs", "outputs"), [(768, 200), (3072, 96), (100, 5000)])
def test_an_int8_row_alone_is_what_it_is_among_others(inputs: int, outputs: int) -> None:
    torch.manual_seed(2)
    layer = Int8Linear(inputs, outputs, bias=True)
    layer.load_state_dict({**int8_of(torch.randn(outputs, inputs)), "bias": torch.randn(outputs)}, assign=True)
    layer.pack()
    x = torch.randn(7, inputs)
    together = layer(x)
    alone = torch.cat([layer(row[None]) for row in x])
    assert float((together - alone).abs().max() / together.abs().max()) < 5e-6


def test_int4_keeps_the_least_and_the_largest_of_a_group() -> None:
    torch.manual_seed(1)
    matrix_NK = torch.randn(16, 64)
    made = int4_of(matrix_NK)
    assert made["weight"].shape == (16, 32)
    layer = Int4Linear(64, 16, bias=False)
    layer.load_state_dict(made, assign=True)
    layer.pack()
    read_NK = layer(torch.eye(64)).t()
    spread = matrix_NK.max() - matrix_NK.min()
    assert float((read_NK - matrix_NK).abs().max()) < float(spread) / 15
    assert len(read_NK[0, :32].unique()) <= 16


def test_the_file_holds_whole_numbers_where_the_model_had_fractions(tmp_path: Path) -> None:
    model = MODELS["gpt"]()
    model.save(tmp_path)
    write_quantized(model, "int8", tmp_path, quantized_file(tmp_path, "int8"))
    tensors = load_file(quantized_file(tmp_path, "int8"))
    assert tensors["lm_head.weight"].dtype == torch.int8  # tied before: its own copy now
    assert tensors["model.embed_tokens.weight"].dtype == torch.float32
    matrices = [tensor for name, tensor in tensors.items() if "_proj.weight" in name]
    assert len(matrices) == 14
    assert {tensor.dtype for tensor in matrices} == {torch.int8}


def test_a_quantised_file_alone_is_enough(tmp_path: Path) -> None:
    model = MODELS["gpt"]()
    model.save(tmp_path)
    write_quantized(model, "int8", tmp_path, quantized_file(tmp_path, "int8"))
    (tmp_path / "model.safetensors").unlink()
    assert load_model(tmp_path, "int8").vocab_size == 300


def test_a_file_made_of_other_weights_is_refused(tmp_path: Path) -> None:
    model = MODELS["gpt"]()
    model.save(tmp_path)
    write_quantized(model, "int8", tmp_path, quantized_file(tmp_path, "int8"))
    MODELS["gpt"]().save(tmp_path)
    with pytest.raises(UserError, match="other weights"):
        load_model(tmp_path, "int8")


def test_what_was_not_exported_cannot_be_opened(tmp_path: Path) -> None:
    MODELS["gpt"]().save(tmp_path)
    with pytest.raises(UserError, match="has no int8 weights") as caught:
        load_model(tmp_path, "int8")
    assert "plume export" in str(caught.value.hint)
    with pytest.raises(UserError, match="unknown quantization 'int2'"):
        load_model(tmp_path, "int2")


def test_an_export_does_not_make_the_weights_other_ones(tmp_path: Path) -> None:
    """An adapter opens only over the weights it was trained on."""
    model = MODELS["gpt"]()
    model.save(tmp_path)
    before = base_fingerprint(tmp_path)
    write_quantized(model, "int8", tmp_path, quantized_file(tmp_path, "int8"))
    assert base_fingerprint(tmp_path) == before


# --- memory --------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_refused_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt.GPT(gpt.GPTConfig(2000, 256, 512, 4, 4, 4, 64, 64))
    model.save(tmp_path)
    write_quantized(model, "int8", tmp_path, quantized_file(tmp_path, "int8"))
    whole, small = memory.need(tmp_path), memory.need(tmp_path, quantized_file(tmp_path, "int8"))
    weights = sum(parameter.nbytes for parameter in load_model(tmp_path).parameters())
    assert whole - memory._WORKING == weights
    assert small < whole
    monkeypatch.setattr(memory, "free", lambda: (small + whole) // 2)
    with pytest.raises(UserError, match=r"needs \d.* of memory, .* are available") as caught:
        load_model(tmp_path)
    assert "--quantization int8 needs" in str(caught.value.hint)
    load_model(tmp_path, "int8")
    monkeypatch.setattr(memory, "free", lambda: small - 1)
    with pytest.raises(UserError, match="of memory") as caught:
        load_model(tmp_path, "int8")
    assert "--quantization" not in str(caught.value.hint)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not say how much was held")
def test_answering_takes_no_more_than_was_estimated_and_less_in_int8(tmp_path: Path) -> None:
    """In processes of their own, whose peak the kernel tells; what torch imports on the way is not counted."""
    model = gpt.GPT(gpt.GPTConfig(1000, 1024, 2816, 2, 8, 8, 128, 64))
    model.save(tmp_path)
    write_quantized(model, "int8", tmp_path, quantized_file(tmp_path, "int8"))
    code = (
        "import re, sys, pathlib, torch\n"
        "from plume.models import gpt, lowbit\n"
        "from plume.models.catalog import load_model\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "layer = lowbit.Int8Linear(256, 256, bias=False)\n"
        "layer.pack(), layer(torch.ones(2, 256)), gpt.empty(pathlib.Path(sys.argv[1]))\n"
        "before = peak()\n"
        "model = load_model(pathlib.Path(sys.argv[1]), sys.argv[2] or None)\n"
        "with torch.inference_mode(): model.head(model(torch.tensor([[1, 2]]))[0])\n"
        "print(peak() - before)\n"
    )
    peaks = {}
    for kind in ("", "int8"):
        command = [sys.executable, "-c", code, str(tmp_path), kind]
        peaks[kind] = int(subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert weights * 0.9 < peaks[""] < memory.need(tmp_path)
    assert peaks["int8"] < memory.need(tmp_path, quantized_file(tmp_path, "int8"))
    assert peaks["int8"] < weights * 0.75
