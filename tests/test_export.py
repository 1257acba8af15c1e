"""`plume export`: 8 and 4 bits with a replay of questions, and gguf files that say what the directory says."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, PhiConfig
from typer.testing import CliRunner

from conftest import write_rows
from plume.cli.main import app
from plume.evaluation.agreement import Agreement
from plume.models import gpt, gru, hf
from plume.models.bundle import Bundle, bundle, save
from plume.models.gguf import write_gguf
from plume.text.template import TEMPLATES
from plume.text.tokenizer import TextTokenizer, train_tokenizer
from plume.types import LanguageModel

TEXTS = ["Où est le phare ? « Au large », dit-elle. L’été 2026, 漢字 🦉.", "Where is the boat? In the harbour."]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def lively(model: LanguageModel) -> LanguageModel:
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def saved(directory: Path, model: LanguageModel, tokenizer: TextTokenizer, template: str = "chat") -> Bundle:
    made = bundle(lively(model), tokenizer, TEMPLATES[template], 12)
    directory.mkdir(parents=True, exist_ok=True)
    save(made, directory, "card")
    return made


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer("bpe", TEXTS, 400)


def small_gpt(size: int, **changes: Any) -> LanguageModel:
    return gpt.GPT(gpt.GPTConfig(size, 64, 128, 2, 4, 2, 16, 128, **changes))


def foreign(name: str, size: int) -> LanguageModel:
    common: dict[str, Any] = {"vocab_size": size, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    common |= {"intermediate_size": 128, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 2}
    configs: dict[str, Any] = {
        "llama": lambda: LlamaConfig(**common, num_key_value_heads=2),
        "phi": lambda: PhiConfig(**common),
        "gpt2": lambda: GPT2Config(vocab_size=size, n_embd=64, n_layer=2, n_head=4, n_positions=128),
    }
    return hf.HFModel(AutoModelForCausalLM.from_config(configs[name]()))


# --- 8 and 4 bits --------------------------------------------------------------------------------


@pytest.fixture
def trained(qa_file: Path, settings: Callable[..., list[str]], tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    done = run("train", str(qa_file), "--output-dir", str(directory), *settings())
    assert done.exit_code == 0, done.output
    return directory


def test_a_run_is_quantised_replayed_and_asked(trained: Path, qa_file: Path) -> None:
    done = run("export", str(trained), "--format", "int8", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    file = trained / "model" / "model.int8.safetensors"
    assert result["file"] == str(file)
    assert result["bytes"] == file.stat().st_size < (trained / "model" / "model.safetensors").stat().st_size
    assert json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) == result
    held_out = json.loads((trained / "run.json").read_text(encoding="utf-8"))["held_out"]
    assert result["questions"] == len(held_out) > 0
    assert result["questions_from"] == "held_out"
    assert result["agreement"] == 1 - len(result["differing"]) / result["questions"]
    assert result["original"]["perplexity"] != result["quantized"]["perplexity"]
    question = "Where is the lamp?"
    answers = [run("ask", str(trained), question, *more).stdout for more in ((), ("--quantization", "int8"))]
    assert answers[0] == answers[1] != ""
    scores = run("eval", str(trained), str(qa_file), "--quantization", "int8", "--json")
    assert json.loads(scores.stdout)["scores"]["exact_match"] is not None
    more = run("generate", str(trained), "--prompt", "Where", "--quantization", "int8", "--set", "max_new_tokens=4")
    assert more.exit_code == 0
    assert run("ask", str(trained), question).stdout == answers[0]  # the run itself is what it was


def test_a_table_says_what_it_costs(trained: Path, qa_file: Path) -> None:
    done = run("export", str(trained), "--format", "int8", "--questions", str(qa_file))
    assert done.stdout.strip() == str(trained / "model" / "model.int8.safetensors")
    for word in ("exact_match", "perplexity", "original", "the same answer to", "of 15 questions"):
        assert word in done.stderr


def test_int4_that_loses_too_much_is_not_kept(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    saved(tmp_path / "m", small_gpt(tokenizer.vocab_size), tokenizer)
    rows = [{"prompt": "Where?", "completion": "In the harbour, said she."}]
    asked = write_rows(tmp_path / "asked.jsonl", rows)
    done = run("export", str(tmp_path / "m"), "--format", "int4", "--questions", str(asked))
    written = sorted(file.name for file in (tmp_path / "m").glob("*int4*"))
    if done.exit_code == 0:
        assert written == ["model.int4.json", "model.int4.safetensors"]
    else:
        assert done.exit_code == 1
        assert "int4 loses too much" in done.stderr
        assert written == []


@pytest.mark.parametrize(("alike", "passed"), [(0.0, False), (0.4, False), (0.5, True), (None, True)])
def test_a_copy_that_is_wrong_in_another_way_does_not_pass(alike: float | None, passed: bool) -> None:
    scores: dict[str, float | None] = {"exact_match": 0.0, "token_f1": 0.0, "perplexity": 20.0}
    assert Agreement(10, alike, scores, scores, []).passed == passed


@pytest.mark.parametrize("format", ["int8", "gguf"])
def test_a_model_that_is_not_there_is_said_to_be_none(format: str) -> None:
    done = run("export", "nosuch", "--format", format)
    assert done.exit_code == 2
    assert "unknown model 'nosuch': no such directory" in done.stderr


def test_plain_text_gives_a_change_of_perplexity_alone(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    saved(tmp_path / "m", small_gpt(tokenizer.vocab_size), tokenizer, "raw")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    done = run("export", str(tmp_path / "m"), "--format", "int8", "--questions", str(tmp_path / "t.txt"), "--json")
    result = json.loads(done.stdout)
    assert result["agreement"] is None
    assert result["original"]["exact_match"] is None
    assert result["quantized"]["perplexity"] == pytest.approx(result["original"]["perplexity"], rel=0.05)


@pytest.mark.parametrize(
    ("format", "name", "said"),
    [
        ("int8", "model.safetensors", "exists already"),
        ("gguf", "model.safetensors", "exists already"),
        ("int8", "config.safetensors", "config.json exists already"),
        ("int8", "copy.json", "would hold safetensors"),
    ],
)
def test_an_export_replaces_no_file_of_the_model(
    tmp_path: Path, tokenizer: TextTokenizer, qa_file: Path, format: str, name: str, said: str
) -> None:
    saved(tmp_path / "m", small_gpt(tokenizer.vocab_size), tokenizer)
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    asked = ["--questions", str(qa_file)] if format == "int8" else []
    done = run("export", str(tmp_path / "m"), "--format", format, "--output", str(tmp_path / "m" / name), *asked)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()} == before


def test_a_directory_needs_questions(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    saved(tmp_path / "m", small_gpt(tokenizer.vocab_size), tokenizer)
    done = run("export", str(tmp_path / "m"), "--format", "int8")
    assert done.exit_code == 2
    assert "--questions" in done.stderr


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for arguments in (("--format", "gguf", "--questions", "x"), ("--format", "int8", "--outtype", "f32")):
        done = run("export", str(tmp_path), *arguments)
        assert done.exit_code == 2
        assert "does not go with this format" in done.stderr


# --- gguf ----------------------------------------------------------------------------------------


def field(reader: Any, name: str) -> Any:
    return reader.get_field(name).contents()


def test_the_file_has_the_tokens_and_the_template_of_the_directory(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    made = saved(tmp_path / "m", small_gpt(tokenizer.vocab_size + 3), tokenizer)
    done = run("export", str(tmp_path / "m"), "--format", "gguf", "--json")
    assert done.exit_code == 0, done.output
    reader: Any = gguf.GGUFReader(json.loads(done.stdout)["file"])
    backend = Backend.from_str(tokenizer.source)
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert tokens[: tokenizer.vocab_size] == [backend.id_to_token(id) for id in range(tokenizer.vocab_size)]
    assert len(tokens) == tokenizer.vocab_size + 3
    merges = json.loads(tokenizer.source)["model"]["merges"]
    assert field(reader, "tokenizer.ggml.merges") == [" ".join(pair) for pair in merges]
    types = field(reader, "tokenizer.ggml.token_type")
    control = {id for id, kind in enumerate(types) if kind == gguf.TokenType.CONTROL}
    assert control == set(tokenizer.special_tokens.values())
    assert field(reader, "tokenizer.chat_template") == made.template.source
    assert field(reader, "tokenizer.ggml.eos_token_id") == tokenizer.eos_id
    assert field(reader, "tokenizer.ggml.pre") == "gpt-2"
    assert field(reader, "general.architecture") == "qwen3"
    assert field(reader, "qwen3.attention.key_length") == 16


def undone(name: str, values: Any, heads: int) -> Any:
    """A row order of llama.cpp's llama, taken back: even rows of a head were its first half."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return values
    per_head = values.reshape(heads, -1, 2, values.shape[-1])
    return per_head.transpose(0, 2, 1, 3).reshape(values.shape)


THEIRS = {
    "token_embd.weight": ("embed_tokens.weight", "wte.weight"),
    "output.weight": ("lm_head.weight",),
    "blk.1.attn_q.weight": ("layers.1.self_attn.q_proj.weight",),
    "blk.1.attn_k.weight": ("layers.1.self_attn.k_proj.weight",),
    "blk.1.attn_qkv.weight": ("h.1.attn.c_attn.weight",),
    "blk.1.ffn_down.weight": ("layers.1.mlp.down_proj.weight", "h.1.mlp.c_proj.weight", "layers.1.mlp.fc2.weight"),
    "blk.1.ffn_up.bias": ("h.1.mlp.c_fc.bias", "layers.1.mlp.fc1.bias"),
}


@pytest.mark.parametrize("outtype", ["f32", "q8_0"])
@pytest.mark.parametrize("name", ["gpt", "llama", "gpt2", "phi"])
def test_every_tensor_is_there_under_its_name(
    tmp_path: Path, tokenizer: TextTokenizer, name: str, outtype: str
) -> None:
    size = tokenizer.vocab_size
    made = saved(tmp_path / "m", small_gpt(size, qk_norm=False) if name == "gpt" else foreign(name, size), tokenizer)
    write_gguf(made, tmp_path / "m", tmp_path / "m.gguf", outtype)
    reader: Any = gguf.GGUFReader(tmp_path / "m.gguf")
    read = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    root: Any = getattr(made.model, "inner", made.model)
    ours = {key: value.numpy() for key, value in root.state_dict().items()}
    tied = name in ("gpt", "gpt2")
    assert len(read) == len(ours) - (name == "gpt2")
    assert ("output.weight" in read) is not tied
    compared = 0
    for theirs, endings in THEIRS.items():
        key = next((key for key in ours if key.endswith(endings)), None)
        if key is None or theirs not in read:
            continue
        values = ours[key].T if "c_attn.weight" in key or "c_proj.weight" in key else ours[key]
        heads = 2 if ".attn_k." in theirs else 4
        got = undone(theirs, read[theirs], heads) if name in ("gpt", "llama") else read[theirs]
        np.testing.assert_allclose(got, values, atol=0 if outtype == "f32" else np.abs(values).max() / 120)
        compared += 1
    assert compared >= 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["qwen3", "llama", "gpt2"])
def test_another_reader_computes_the_same(tmp_path: Path, tokenizer: TextTokenizer, name: str) -> None:
    """transformers opens gguf too, by code of its own (which takes for granted how wide heads and contexts are)."""
    size = tokenizer.vocab_size
    if name == "qwen3":
        model: LanguageModel = gpt.GPT(gpt.GPTConfig(size, 64, 128, 2, 2, 1, 128, 128))
    elif name == "gpt2":
        config = GPT2Config(vocab_size=size, n_embd=64, n_layer=2, n_head=4, n_positions=1024)
        model = hf.HFModel(AutoModelForCausalLM.from_config(config))
    else:
        model = foreign(name, size)
    made = saved(tmp_path / "m", model, tokenizer)
    write_gguf(made, tmp_path / "m", tmp_path / "m.gguf", "f32")
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    ids_BT = torch.arange(30)[None] * 7 % size
    with torch.inference_mode():
        expected = made.model.head(made.model(ids_BT)[0])
        assert torch.allclose(theirs.eval()(ids_BT).logits, expected, atol=1e-4)
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert all(read(text)["input_ids"] == tokenizer.encode(text) for text in TEXTS)


def sentencepiece(path: Path) -> TextTokenizer:
    """Byte fallback, a space written as ▁: what Llama's first models have."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcde", "▁a", "ab", "▁ab"]
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    model: Any = models.BPE(
        {piece: id for id, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True
    )
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps: Any = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    path.mkdir()
    return TextTokenizer(backend, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})


def test_sentencepiece_merges_in_the_order_of_its_scores(tmp_path: Path) -> None:
    tokenizer = sentencepiece(tmp_path / "m")
    made = saved(tmp_path / "m", foreign("llama", tokenizer.vocab_size), tokenizer, "raw")
    write_gguf(made, tmp_path / "m", tmp_path / "m.gguf", "f32")
    reader: Any = gguf.GGUFReader(tmp_path / "m.gguf")
    assert field(reader, "tokenizer.ggml.model") == "llama"
    tokens, scores = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.scores")
    by_token = dict(zip(tokens, scores, strict=True))
    assert by_token["▁a"] > by_token["ab"] > by_token["▁ab"] > by_token["c"]
    types = dict(zip(tokens, field(reader, "tokenizer.ggml.token_type"), strict=True))
    assert types["<0x41>"] == gguf.TokenType.BYTE
    assert types["</s>"] == gguf.TokenType.CONTROL
    assert field(reader, "tokenizer.ggml.add_space_prefix") is True
    assert field(reader, "tokenizer.ggml.bos_token_id") == 1


def test_what_llama_cpp_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    sizes = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1, "dropout": 0.0, "max_length": 64}
    saved(tmp_path / "gru", gru.build(sizes), train_tokenizer("word", TEXTS, 400), "sep")
    words = train_tokenizer("word", TEXTS, 400)
    saved(tmp_path / "words", small_gpt(words.vocab_size), words)
    for name, said in (("gru", "plume_gru cannot be written"), ("words", "the kind WordLevel")):
        done = run("export", str(tmp_path / name), "--format", "gguf")
        assert done.exit_code == 2
        assert said in done.stderr
        assert not list((tmp_path / name).glob("*.gguf*"))


def test_without_the_library_the_line_that_installs_it_is_given(
    tmp_path: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "m", small_gpt(tokenizer.vocab_size), tokenizer)
    monkeypatch.setitem(sys.modules, "gguf", None)
    done = run("export", str(tmp_path / "m"), "--format", "gguf")
    assert done.exit_code == 2
    assert "pip install 'plume-lm[gguf]'" in done.stderr
