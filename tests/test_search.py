"""Beams find what transformers finds; guesses from the prompt change how soon an answer comes, never the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from plume.errors import PlumeError, UserError
from plume.generation import constrain
from plume.generation.beams import beam_search
from plume.generation.lookup import Guesser, prompt_lookup
from plume.generation.reply import Reply, Request
from plume.models import bigram, gpt, gru, hf
from plume.models.bundle import Bundle, bundle
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer
from plume.types import Chunk, Sampling

TEXTS = ["Où est le phare ? « Au large », dit-elle. 漢字 🦉 L’été.", "Where is the boat? In the harbour."]
TOKENIZER = train_tokenizer("bpe", TEXTS, 400)


def lively(model: Any, spread: float) -> Any:
    """Weights large enough that no two tokens are nearly equally likely."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=spread)
    return model.eval()


@pytest.fixture(scope="module")
def ours() -> Bundle:
    config = gpt.GPTConfig(TOKENIZER.vocab_size, 32, 64, 2, 4, 2, 8, 128, qk_norm=False)
    return bundle(lively(gpt.GPT(config), 0.4), TOKENIZER, TEMPLATES["raw"], 20)


@pytest.fixture(scope="module")
def theirs(ours: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same weights in transformers' Llama."""
    folder = tmp_path_factory.mktemp("llama")
    ours.model.save(folder)
    return AutoModelForCausalLM.from_pretrained(folder)


def searched(made: Bundle, ids: Sequence[int], sampling: Sampling) -> list[Chunk]:
    return [chunk for chunk in beam_search(made, Request(tuple(ids), sampling)) if chunk]


STOPS = tuple(range(270, 320))  # many, so that beams end at different lengths


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.5])
@pytest.mark.parametrize(("num_beams", "n", "stops"), [(2, 1, STOPS), (4, 4, STOPS), (5, 2, STOPS[:3]), (3, 3, ())])
def test_beams_are_those_of_transformers(
    ours: Bundle,
    theirs: Any,
    early_stopping: bool | Literal["never"],
    length_penalty: float,
    num_beams: int,
    n: int,
    stops: tuple[int, ...],
) -> None:
    ids = TOKENIZER.encode(TEXTS[n % 2])
    sampling = Sampling(
        max_new_tokens=12,
        num_beams=num_beams,
        n=n,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        stop_token_ids=stops,
    )
    expected = theirs.generate(
        torch.tensor([ids]),
        max_new_tokens=12,
        num_beams=num_beams,
        num_return_sequences=n,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        do_sample=False,
        eos_token_id=[TOKENIZER.eos_id, *stops],
        pad_token_id=TOKENIZER.pad_id,
    )
    found = searched(ours, ids, sampling)
    assert [chunk.choice for chunk in found] == list(range(n))
    for chunk, row in zip(found, expected[:, len(ids) :].tolist(), strict=True):
        assert list(chunk.ids) == row[: len(chunk.ids)]
        assert set(row[len(chunk.ids) :]) <= {TOKENIZER.pad_id, TOKENIZER.eos_id}
        assert chunk.finish == ("stop" if chunk.ids[-1] in (TOKENIZER.eos_id, *stops) else "length")


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 2.0}, {"encoder_no_repeat_ngram_size": 1}, {"logit_bias": {65: 4.0, 70: -9.0}}]
)
def test_beams_heed_penalties_as_transformers_does(ours: Bundle, theirs: Any, settings: dict[str, Any]) -> None:
    ids = list(searched(ours, TOKENIZER.encode(TEXTS[1]), Sampling(max_new_tokens=40, num_beams=4))[0].ids)
    given = dict(settings)
    if bias := given.pop("logit_bias", None):
        given["sequence_bias"] = [[[id], value] for id, value in bias.items()]
    kwargs = {"do_sample": False, "pad_token_id": TOKENIZER.pad_id, "eos_token_id": TOKENIZER.eos_id, **given}
    expected = theirs.generate(torch.tensor([ids]), max_new_tokens=10, num_beams=4, **kwargs)
    found = searched(ours, ids, Sampling(max_new_tokens=10, num_beams=4, **settings))
    assert list(found[0].ids) == expected[0, len(ids) :].tolist()
    assert found[0].ids != searched(ours, ids, Sampling(max_new_tokens=10, num_beams=4))[0].ids


def test_beams_find_answers_at_least_as_likely_as_the_greedy_one(ours: Bundle) -> None:
    ids = TOKENIZER.encode(TEXTS[0])

    def likelihood(reply: Sequence[int]) -> float:
        with torch.no_grad():
            hidden, _ = ours.model(torch.tensor([[*ids, *reply]]))
            logprobs = ours.model.head(hidden)[0].log_softmax(dim=-1)
        return sum(float(logprobs[len(ids) - 1 + place, id]) for place, id in enumerate(reply))

    (greedy,) = searched(ours, ids, Sampling(max_new_tokens=8, num_beams=1))
    wide = searched(ours, ids, Sampling(max_new_tokens=8, num_beams=8, n=8))
    values = [likelihood(chunk.ids) / len(chunk.ids) for chunk in wide]
    assert values == sorted(values, reverse=True)
    assert values[0] > likelihood(greedy.ids) / len(greedy.ids)


def test_a_stop_string_ends_a_beam(ours: Bundle) -> None:
    ids = TOKENIZER.encode(TEXTS[0])
    whole = searched(ours, ids, Sampling(max_new_tokens=10, num_beams=3))[0]
    stop = whole.text[3]
    chunks = searched(ours, ids, Sampling(max_new_tokens=10, num_beams=3, n=3, stop=(stop,)))
    assert any(chunk.finish == "stop" for chunk in chunks)
    assert all(stop not in chunk.text for chunk in chunks)


def test_beams_that_would_leave_the_context_are_refused(ours: Bundle) -> None:
    request = Request(tuple(TOKENIZER.encode(TEXTS[0])), Sampling(max_new_tokens=128, num_beams=2), reply=False)
    with pytest.raises(UserError, match="beyond the model's context of 128"):
        next(beam_search(ours, request))


def test_beams_over_broken_logits_are_an_error(ours: Bundle) -> None:
    broken = replace(ours, model=gpt.GPT(gpt.GPTConfig(TOKENIZER.vocab_size, 32, 64, 1, 4, 4, 8, 128)))
    torch.nn.init.constant_(broken.model.model.embed_tokens.weight, float("nan"))  # type: ignore[attr-defined]
    for search, settings in ((beam_search, {"num_beams": 2}), (prompt_lookup, {"prompt_lookup_num_tokens": 2})):
        with pytest.raises(PlumeError, match="not a number"):
            list(search(broken, Request((1, 2), Sampling(**settings))))  # type: ignore[arg-type]


# --- constraints ---


@dataclass
class OneOf:
    """A constraint of the plainest kind: the answer is one of some texts, given as ids."""

    texts: tuple[tuple[int, ...], ...]
    said: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def _left(self) -> list[tuple[int, ...]]:
        count = len(self.said)
        return [ids[count:] for ids in self.texts if ids[:count] == self.said]

    @property
    def shortest(self) -> int:
        return min(map(len, self.texts))

    def start(self) -> OneOf:
        return OneOf(self.texts)

    def valid(self, text: str) -> bool:
        return text in {TOKENIZER.decode(ids) for ids in self.texts}

    @property
    def accepting(self) -> bool:
        return self.said in self.texts

    @property
    def done(self) -> bool:
        return self._left() == [()]

    def allowed_V(self) -> Tensor:
        allowed = torch.zeros(TOKENIZER.vocab_size, dtype=torch.bool)
        allowed[[ids[0] if ids else TOKENIZER.eos_id for ids in self._left()]] = True
        return allowed

    def advance(self, id: int) -> None:
        self.said = (*self.said, id)

    def shortest_end(self) -> Sequence[int]:
        return min(self._left(), key=len)

    def fits(self, id: int, room: int) -> bool:
        return any(len(ids) - 1 <= room for ids in self._left() if ids[:1] == (id,))

    def fork(self) -> OneOf:
        return replace(self)


PLACES = tuple(tuple(TOKENIZER.encode(text)) for text in ("le phare", "le port", "le phare du large", "la mer", "漢字"))


@pytest.mark.parametrize("limit", [8, 10, 30])
def test_beams_keep_to_a_constraint_at_any_limit(ours: Bundle, limit: int) -> None:
    request = Request((5, 6, 7), Sampling(max_new_tokens=limit, num_beams=4, n=2), OneOf(PLACES))
    found = [chunk for chunk in beam_search(ours, request) if chunk]
    texts = [TOKENIZER.decode(ids) for ids in PLACES if len(ids) <= limit]
    assert len({chunk.text for chunk in found}) == 2
    assert all(chunk.text in texts and chunk.finish == "stop" for chunk in found)


def test_the_best_beam_under_a_constraint_is_the_likeliest_answer_there_is(ours: Bundle) -> None:
    prompt = [5, 6, 7]
    sampling = Sampling(max_new_tokens=40, num_beams=5, early_stopping="never", length_penalty=0.0)
    best = next(filter(None, beam_search(ours, Request(tuple(prompt), sampling, OneOf(PLACES[1:2] + PLACES[3:])))))

    def likelihood(ids: Sequence[int]) -> float:
        with torch.no_grad():
            hidden, _ = ours.model(torch.tensor([[*prompt, *ids]]))
            logprobs = ours.model.head(hidden)[0].log_softmax(dim=-1)
        return sum(float(logprobs[len(prompt) - 1 + place, id]) for place, id in enumerate(ids))

    assert best.text == TOKENIZER.decode(max(PLACES[1:2] + PLACES[3:], key=likelihood))


def test_beams_of_json_are_whole_at_the_shortest_limit_and_beyond(ours: Bundle) -> None:
    schema = {
        "type": "object",
        "properties": {"lieu": {"type": "string"}, "marée": {"enum": ["haute", "basse"]}},
        "required": ["lieu", "marée"],
        "additionalProperties": False,
    }
    grammar = constrain.json_schema(schema, ours)
    for more in (0, 1, 3, 20):
        sampling = Sampling(max_new_tokens=grammar.shortest + more, num_beams=3, n=2)
        for search in (beam_search, prompt_lookup):
            own = (
                sampling
                if search is beam_search
                else Sampling(
                    max_new_tokens=grammar.shortest + more, prompt_lookup_num_tokens=4, temperature=1.5, seed=more
                )
            )
            chunks = [chunk for chunk in search(ours, Request((5, 6, 7), own, grammar)) if chunk]
            for choice in {chunk.choice for chunk in chunks}:
                text = "".join(chunk.text for chunk in chunks if chunk.choice == choice)
                assert set(json.loads(text)) == {"lieu", "marée"}


def test_fewer_answers_than_asked_for_is_said(ours: Bundle) -> None:
    request = Request((5, 6, 7), Sampling(max_new_tokens=40, num_beams=4, n=4), OneOf(PLACES[2:4]))
    with pytest.raises(PlumeError, match="only 2 different answers"):
        list(beam_search(ours, request))


# --- guesses from the prompt ---


def plain(made: Bundle, request: Request) -> list[Chunk]:
    """The same answer, one token and one call of the model at a time."""
    reply = Reply(made, request, 0)
    chunks: list[Chunk] = []
    with torch.inference_mode():
        hidden, state = made.model(torch.tensor([reply.read]))
        while reply.finish is None:
            chunks.append(reply.take(made.model.head(hidden[0, -1])))
            if reply.slide():
                hidden, state = made.model(torch.tensor([reply.read]))
            else:
                hidden, state = made.model(torch.tensor([reply.read[-1:]]), state)
    return chunks


def models() -> Iterator[Any]:
    sizes = {"vocab_size": TOKENIZER.vocab_size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    built: dict[str, Any] = {**sizes, "dropout": 0.0, "max_length": 96}
    yield pytest.param(lambda: lively(gpt.build(built), 0.3), id="gpt")
    yield pytest.param(lambda: lively(gru.build({**built, "attention_window": None}), 0.3), id="gru")
    yield pytest.param(lambda: lively(gru.build({**built, "attention_window": 8}), 0.3), id="gru-window")
    yield pytest.param(lambda: lively(bigram.build(built), 0.5), id="bigram")


@pytest.mark.parametrize("make", list(models()))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.8, "seed": 3, "top_k": 20},
        {"repetition_penalty": 1.2, "logprobs": 2},
        {"stop": ("phare",)},
    ],
)
def test_guesses_change_no_answer(make: Any, settings: dict[str, Any]) -> None:
    made = bundle(make(), TOKENIZER, TEMPLATES["raw"], 20)
    ids = tuple(TOKENIZER.encode("Where is the boat? In the harbour. " * 2))
    for reply in (True, False):
        sampling = Sampling(max_new_tokens=120, **settings)
        expected = plain(made, Request(ids, sampling, reply=reply))
        guessing = replace(sampling, prompt_lookup_num_tokens=6)
        found = [chunk for chunk in prompt_lookup(made, Request(ids, guessing, reply=reply)) if chunk]
        assert [(c.text, c.ids, c.finish) for c in found] == [(c.text, c.ids, c.finish) for c in expected]
        assert [one.id for c in found for one in c.logprobs] == [one.id for c in expected for one in c.logprobs]


def test_guesses_keep_to_a_constraint(ours: Bundle) -> None:
    ids = tuple(TOKENIZER.encode("le phare du large, le phare du large"))
    request = Request(ids, Sampling(max_new_tokens=40, prompt_lookup_num_tokens=8), OneOf(PLACES[2:3]))
    assert "".join(chunk.text for chunk in prompt_lookup(ours, request) if chunk) == "le phare du large"


def test_right_guesses_save_calls_of_the_model(ours: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = type(ours.model).forward  # type: ignore[attr-defined]

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(ours.model), "forward", counted)
    text = "le phare du large, le port"
    copy = OneOf((tuple(TOKENIZER.encode(text)),))
    ids = tuple(TOKENIZER.encode(f"{text} ; {text} : "))
    chunks = list(prompt_lookup(ours, Request(ids, Sampling(max_new_tokens=90, prompt_lookup_num_tokens=8), copy)))
    assert "".join(chunk.text for chunk in chunks if chunk) == text
    assert len(calls) <= len(chunks) / 3


def test_a_guess_is_what_stood_behind_the_last_tokens_the_latest_time() -> None:
    guesser = Guesser([1, 2, 3, 4, 9, 2, 3, 5, 6, 2, 3])
    assert guesser.guess(2) == [5, 6]
    assert guesser.guess(9) == [5, 6, 2, 3]
    guesser.push(4)  # 2 3 4 stood at the start
    assert guesser.guess(3) == [9, 2, 3]
    guesser.push(7)
    assert guesser.guess(3) == []


def test_a_transformers_model_goes_back_too(theirs: Any) -> None:
    made = bundle(hf.HFModel(theirs), TOKENIZER, TEMPLATES["raw"], 20)
    ids = tuple(TOKENIZER.encode("Where is the boat? In the harbour. " * 2))
    expected = plain(made, Request(ids, Sampling(max_new_tokens=40)))
    found = prompt_lookup(made, Request(ids, Sampling(max_new_tokens=40, prompt_lookup_num_tokens=6)))
    assert [chunk.ids for chunk in found if chunk] == [chunk.ids for chunk in expected]


def test_both_read_a_long_prompt_in_stretches(ours: Bundle) -> None:
    class Recorder:
        def __init__(self, inner: Any) -> None:
            self.inner, self.context_length, self.vocab_size = inner, 2000, inner.vocab_size
            self.lengths: list[int] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, ids_BT: Tensor, *rest: Any) -> Any:
            self.lengths.append(ids_BT.shape[1])
            return self.inner(ids_BT, *rest)

    for search, settings in ((beam_search, {"num_beams": 2}), (prompt_lookup, {"prompt_lookup_num_tokens": 2})):
        recorder: Any = Recorder(ours.model)
        made = replace(ours, model=recorder)
        first = next(search(made, Request((1, 2, 3) * 400, Sampling(max_new_tokens=2, **settings))))  # type: ignore[arg-type]
        assert (first, recorder.lengths) == (None, [512])
