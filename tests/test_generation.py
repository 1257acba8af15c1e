"""Decoding: greedy as transformers does it, seeded, independent of the batch, and whole characters only."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from plume.errors import UserError
from plume.generation.engine import Engine
from plume.generation.stop import TextStream
from plume.models import gpt, hf
from plume.models.bundle import Bundle, bundle, for_answering, for_training, load, save
from plume.text.template import TEMPLATES, ChatTemplate
from plume.text.tokenizer import train_tokenizer
from plume.types import Chunk, Encoded, Message, Sampling

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"
TEXTS = ["Où est le phare ? « Au large », dit-elle. 漢字 🦉 L’été.", "Where is the boat? In the harbour."]


@pytest.fixture(scope="module")
def small() -> Bundle:
    """A lively untrained gpt: what it says is odd, how it says it is what is tested."""
    torch.manual_seed(3)
    tokenizer = train_tokenizer("bpe", TEXTS, 400)
    model = gpt.GPT(gpt.GPTConfig(tokenizer.vocab_size, 32, 64, 2, 4, 4, 8, 64))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return bundle(model, tokenizer, TEMPLATES["chat"], 20)


@pytest.fixture(scope="module")
def prompts(small: Bundle) -> list[tuple[int, ...]]:
    asked = ["Where?", "Où est le phare ?", "a", "Where is the boat? In the harbour, said she."]
    return [Engine(small).prompt([Message("user", text)]) for text in asked]


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_greedy_ids_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer("bpe", TEXTS, 400)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    made = bundle(hf.HFModel(model), tokenizer, TEMPLATES["raw"], 20)
    ids = tokenizer.encode(TEXTS[0])
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=100, do_sample=False)[0, len(ids) :].tolist()
    ours = [id for chunk in Engine(made).stream(ids, Sampling(max_new_tokens=100), reply=False) for id in chunk.ids]
    assert ours == theirs


def test_a_real_model_continues_as_transformers_does() -> None:
    if not STORIES.is_dir():
        pytest.skip("the real model is not here")
    made = load(STORIES)
    ids = made.tokenizer.encode("Once upon a time", add_special_tokens=True)
    chunks = list(Engine(made).stream(ids, Sampling(max_new_tokens=150), reply=False))
    inputs = AutoTokenizer.from_pretrained(STORIES)("Once upon a time", return_tensors="pt")
    model: Any = AutoModelForCausalLM.from_pretrained(STORIES)
    theirs = model.generate(**inputs, max_new_tokens=150, do_sample=False)
    assert [*ids, *(id for chunk in chunks for id in chunk.ids)] == theirs[0].tolist()
    assert text_of(chunks).startswith(", there was")


def test_a_bundle_for_answering_continues_as_transformers_does() -> None:
    """A few of the thousand continuations that `benchmarks/decode.py --stories` compares."""
    if not STORIES.is_dir():
        pytest.skip("the real model is not here")
    made = for_answering(load(STORIES))
    assert isinstance(made.model, gpt.GPT)
    model: Any = AutoModelForCausalLM.from_pretrained(STORIES)
    for text in ("Tom and the lamp", "An old boat and her brother. Lily and a red kite", "The"):
        ids = made.tokenizer.encode(text, add_special_tokens=True)
        chunks = Engine(made).stream(ids, Sampling(max_new_tokens=60), reply=False)
        theirs = model.generate(torch.tensor([ids]), max_new_tokens=60, do_sample=False)[0, len(ids) :].tolist()
        assert [id for chunk in chunks for id in chunk.ids] == theirs


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_answers_do_not_depend_on_the_batch(small: Bundle, prompts: list[tuple[int, ...]], temperature: float) -> None:
    engine, sampling = Engine(small), Sampling(max_new_tokens=20, temperature=temperature, seed=5)
    together = engine.generate(prompts, sampling)
    for row, prompt in enumerate(prompts):
        alone = list(engine.stream(prompt, replace(sampling, seed=5 + row)))
        assert tuple(id for chunk in alone for id in chunk.ids) == together[row].ids
        assert text_of(alone) == together[row].text
        assert alone[-1].finish == together[row].finish


def test_a_seed_repeats_a_sample_and_another_changes_it(small: Bundle, prompts: list[tuple[int, ...]]) -> None:
    engine, sampling = Engine(small), Sampling(max_new_tokens=20, temperature=1.0, seed=1)
    once, again = (text_of(list(engine.stream(prompts[1], sampling))) for _ in range(2))
    assert once == again
    assert text_of(list(engine.stream(prompts[1], replace(sampling, seed=2)))) != once


# --- text that leaves is final ---


def feed(stream: TextStream, ids: Sequence[int]) -> Iterator[str]:
    for id in ids:
        yield stream.push(id)
        if stream.finish:
            return
    yield stream.end("length")


@pytest.mark.parametrize("text", ["漢字", "🦉🦉", "é", "L’été"])
def test_no_half_character_leaves(small: Bundle, text: str) -> None:
    tokenizer = train_tokenizer("bpe", ["plain"], 263)  # bytes only: every character takes several tokens
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)
    pieces = list(feed(TextStream(tokenizer, small.stop_ids), ids))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_cut_character_is_shown_as_such_at_the_end(small: Bundle) -> None:
    ids = small.tokenizer.encode("🦉")
    pieces = list(feed(TextStream(small.tokenizer, small.stop_ids), ids[:-1]))
    assert "".join(pieces) == "\ufffd"


def test_stop_strings_never_leave_not_even_in_part(small: Bundle) -> None:
    ids = small.tokenizer.encode("the harbour END of it")
    stream = TextStream(small.tokenizer, small.stop_ids, ("END", "harbor"))
    assert "".join(feed(stream, ids)) == "the harbour "
    assert stream.finish == "stop"


def test_text_that_only_began_like_a_stop_string_is_given_back(small: Bundle) -> None:
    ids = small.tokenizer.encode("the EN")
    stream = TextStream(small.tokenizer, small.stop_ids, ("END",))
    assert "".join(feed(stream, ids)) == "the EN"
    assert stream.finish == "length"


def test_the_end_token_ends_and_is_no_text(small: Bundle) -> None:
    stream = TextStream(small.tokenizer, small.stop_ids)
    assert "".join(feed(stream, [*small.tokenizer.encode("yes"), small.tokenizer.eos_id])) == "yes"
    assert stream.finish == "stop"


# --- limits ---


def test_max_new_tokens_is_kept_to_the_token(small: Bundle, prompts: list[tuple[int, ...]]) -> None:
    answers = Engine(small).generate(prompts, Sampling(max_new_tokens=3))
    assert all(len(answer.ids) <= 3 for answer in answers)
    assert {answer.finish for answer in answers if len(answer.ids) == 3} <= {"length", "stop"}


def test_a_question_that_fills_the_context_is_refused(small: Bundle) -> None:
    with pytest.raises(UserError, match="context of 64"):
        Engine(small).prompt([Message("user", "Where? " * 60)])


def test_an_answer_never_leaves_the_context(small: Bundle) -> None:
    ids = Engine(small).prompt([Message("user", "Where? " * 18)])
    endless = replace(small, stop_ids=frozenset())
    chunks = list(Engine(endless).stream(ids, Sampling(max_new_tokens=500)))
    assert len(ids) + len(chunks) == 64
    assert chunks[-1].finish == "length"


def test_a_continuation_goes_on_beyond_the_context(small: Bundle) -> None:
    endless = replace(small, stop_ids=frozenset())
    ids = small.tokenizer.encode("Where is the boat? " * 30)
    assert len(list(Engine(endless).stream(ids, Sampling(max_new_tokens=200), reply=False))) == 200


def test_asking_between_chunks_leaves_the_mode_of_the_caller(small: Bundle, prompts: list[tuple[int, ...]]) -> None:
    chunks = Engine(small).stream(prompts[0], Sampling(max_new_tokens=5))
    next(chunks)
    assert not torch.is_inference_mode_enabled()
    chunks.close()


# --- likelihood ---


def test_scores_are_the_sum_over_trained_tokens(small: Bundle) -> None:
    engine = Engine(small)
    row = small.template.encode((Message("user", "Where?"), Message("assistant", "Là-bas.")), small.tokenizer)
    score = engine.score([row, row])[1]
    with torch.no_grad():
        hidden, _ = small.model(torch.tensor([row.ids]))
        losses = -small.model.head(hidden).log_softmax(-1)[0, :-1].gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
    trained = torch.tensor(row.trained[1:])
    assert score.loss == pytest.approx(float(losses[trained].sum()), rel=1e-4)
    assert score.tokens == int(trained.sum())
    assert score.bytes == len("Là-bas.".encode())
    assert score.text_loss < score.loss


def test_text_longer_than_the_context_is_scored_token_by_token_once(small: Bundle) -> None:
    ids = tuple(small.tokenizer.encode(TEXTS[0] * 20))
    score = Engine(small).score([Encoded(ids, (True,) * len(ids))])[0]
    assert score.tokens == len(ids) - 1


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_a_saved_bundle_opens_as_it_was(small: Bundle, name: str, tmp_path: Path) -> None:
    made = bundle(small.model, small.tokenizer, TEMPLATES[name], 17)
    save(made, tmp_path, "# card\n")
    opened = load(tmp_path)
    assert (opened.stop_ids, opened.max_new_tokens, opened.own_template) == (made.stop_ids, 17, True)
    asked = [Message("user", "Where?")]
    assert Engine(opened).prompt(asked) == Engine(made).prompt(asked)


def test_a_directory_without_template_is_asked_as_raw_text_and_says_so(small: Bundle, tmp_path: Path) -> None:
    save(small, tmp_path, "")
    (tmp_path / "chat_template.jinja").unlink()
    opened = load(tmp_path)
    assert opened.own_template is False
    assert opened.template.source == TEMPLATES["raw"]
    tuned = for_training(opened, chat=True)
    assert tuned.template.source == TEMPLATES["chat"]
    assert isinstance(tuned.template, ChatTemplate)
