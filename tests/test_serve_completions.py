"""Completions by OpenAI's own client: token ids, several prompts, likelihoods as evaluation programs need them."""

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from jinja2 import Environment, StrictUndefined
from openai.types import Completion

from plume.generation.scoring import prompt_logprobs, score
from plume.types import Encoded, Message
from serving import Running, running, untrained

TEXT = "Où est « le phare » ? 🦉"
EOS = str(untrained().tokenizer.eos_id)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("completions"), {"any": untrained()}, rows=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def ids(text: str) -> list[int]:
    return untrained().tokenizer.encode(text)


def greedy(client: openai.OpenAI, prompt: Any, **more: Any) -> Any:
    return client.completions.create(model="any", prompt=prompt, temperature=0, **more)


@pytest.mark.parametrize("prompt", [TEXT, [TEXT, "B"], [5, 6, 7], [[5, 6], [7]]])
def test_answers_are_what_the_client_expects_to_the_letter(served: Running, prompt: Any) -> None:
    body = {"model": "any", "prompt": prompt, "logprobs": 2, "n": 2, "temperature": 1, "max_tokens": 4}
    answer = httpx.post(f"{served.url}/v1/completions", json=body)
    told = Completion.model_validate_json(answer.text, strict=True)
    count = 2 * (len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1)
    assert [choice.index for choice in told.choices] == list(range(count))
    body["stream"] = True
    *events, done, _ = httpx.post(f"{served.url}/v1/completions", json=body).text.split("\n\n")
    assert done == "data: [DONE]"
    parts = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {choice["index"] for part in parts for choice in part["choices"]} == set(range(count))
    assert all(part["object"] == "text_completion" for part in parts)


def test_token_ids_are_taken_as_they_are(client: openai.OpenAI) -> None:
    by_ids = greedy(client, ids(TEXT), max_tokens=8)
    by_text = greedy(client, TEXT, max_tokens=8)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_ids.usage.prompt_tokens == len(ids(TEXT))


def test_choices_come_prompt_by_prompt(client: openai.OpenAI) -> None:
    alone = [greedy(client, prompt, max_tokens=5).choices[0].text for prompt in ("A b", "Où", "x")]
    together = greedy(client, ["A b", "Où", "x"], max_tokens=5, n=2)
    assert [choice.text for choice in together.choices] == [text for text in alone for _ in range(2)]


def test_the_default_is_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = greedy(client, TEXT, logit_bias={EOS: -100})
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_the_best_of_several_are_the_likeliest(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "prompt": TEXT, "temperature": 1.2, "seed": 5, "max_tokens": 6, "logprobs": 1}
    asked["logit_bias"] = {EOS: -100}
    drawn = client.completions.create(**asked, n=6).choices
    best = client.completions.create(**asked, n=2, best_of=6).choices

    def mean(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs))

    expected = sorted(drawn, key=mean, reverse=True)[:2]
    assert [choice.text for choice in best] == [choice.text for choice in expected]


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "prompt": [TEXT, "B"], "temperature": 1, "seed": 4, "max_tokens": 12, "echo": True}
    whole = client.completions.create(**asked, logprobs=1)
    texts, tokens = ["", ""], [[], []]  # type: list[str], list[list[str]]
    options: Any = {"include_usage": True}
    with client.completions.create(**asked, logprobs=1, stream=True, stream_options=options) as stream:
        parts = list(stream)
    for part in parts:
        for choice in part.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]
    assert parts[-1].usage == whole.usage
    assert texts[0].startswith(TEXT)


# --- what lm-eval's local-completions asks for ---


def test_echo_tells_how_likely_every_token_of_the_prompt_is_and_exactly_one_more(client: openai.OpenAI) -> None:
    """The request as lm-eval sends it; it reads all places but the last, and compares with the likeliest there."""
    rows = [ids(TEXT), ids("Where is the boat?")]
    answer = greedy(client, rows, max_tokens=1, logprobs=1, seed=1234, echo=True)
    for row, choice in zip(rows, answer.choices, strict=True):
        told = choice.logprobs
        assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(row) + 1
        assert told.token_logprobs[0] is None
        assert told.top_logprobs[0] is None
        loss = score(untrained(), [Encoded(tuple(row), (False, *[True] * (len(row) - 1)))])[0].loss
        assert -sum(told.token_logprobs[1:-1]) == pytest.approx(loss, abs=1e-3)
        for logprob, top in zip(told.token_logprobs[1:], told.top_logprobs[1:], strict=True):
            assert max(top.values()) >= logprob
        assert max(told.top_logprobs[-1].values()) == pytest.approx(told.token_logprobs[-1])


def test_the_one_generated_token_is_there_even_if_it_is_the_end(client: openai.OpenAI) -> None:
    answer = greedy(client, [ids(TEXT)], max_tokens=1, logprobs=1, echo=True, logit_bias={EOS: 100})
    told = answer.choices[0].logprobs
    assert len(told.tokens) == len(ids(TEXT)) + 1
    assert told.tokens[-1] == "<eos>"
    assert answer.choices[0].text == TEXT
    assert answer.choices[0].finish_reason == "stop"


def test_the_likeliest_is_found_where_tokens_are_parts_of_characters(client: openai.OpenAI) -> None:
    rows = [ids("🦉漢é") * 20]
    told = greedy(client, rows, max_tokens=1, logprobs=1, echo=True).choices[0].logprobs
    truth = prompt_logprobs(untrained(), rows, 1)[0]
    for said, top, true in zip(told.token_logprobs[1:-1], told.top_logprobs[1:-1], truth[1:], strict=True):
        assert true is not None
        assert said == pytest.approx(true.logprob, abs=1e-4)
        assert max(top.values()) == pytest.approx(max(true.top[0][1], true.logprob), abs=1e-4)


def test_a_prompt_may_be_scored_without_going_on(client: openai.OpenAI) -> None:
    answer = greedy(client, TEXT, max_tokens=0, logprobs=0, echo=True)
    assert answer.choices[0].text == TEXT
    assert len(answer.choices[0].logprobs.tokens) == len(ids(TEXT))
    assert answer.usage.completion_tokens == 0


def test_offsets_say_where_tokens_begin(client: openai.OpenAI) -> None:
    told = greedy(client, "le phare est là", max_tokens=0, logprobs=0, echo=True).choices[0].logprobs
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        if not token.startswith("bytes:"):
            assert "le phare est là"[offset:].startswith(token)


def test_a_model_can_be_asked_through_its_tokenizer_alone(served: Running, client: openai.OpenAI) -> None:
    info = httpx.get(f"{served.url}/tokenizer_info").json()
    assert (info["eos_token"], info["bos_token"], info["pad_token"]) == ("<eos>", "<|assistant|>", "<pad>")
    assert "<|assistant|>" in info["chat_template"]
    told = httpx.post(f"{served.url}/tokenize", json={"prompt": TEXT, "add_special_tokens": False}).json()
    assert told["tokens"] == ids(TEXT)
    back = httpx.post(f"{served.url}/detokenize", json={"tokens": told["tokens"]}).json()
    assert back == {"prompt": TEXT}
    generated = greedy(client, [told["tokens"]], max_tokens=8, stop=["\n", "<eos>"], seed=1234)
    assert generated.choices[0].finish_reason in ("stop", "length")


def test_what_a_template_writes_is_read_back_as_that(served: Running) -> None:
    """lm-eval asks for the id of the end token by its text, and hands conversations over as messages."""
    made = untrained()

    def tokens(prompt: Any) -> tuple[int, ...]:
        told = httpx.post(f"{served.url}/tokenize", json={"prompt": prompt, "add_special_tokens": False}).json()
        return tuple(told["tokens"])

    assert tokens("<eos>") == (made.tokenizer.eos_id,)
    before = httpx.get(f"{served.url}/tokenizer_info").json()["bos_token"]
    text = made.template.encode([Message("assistant", TEXT)], made.tokenizer)
    assert (*tokens(before), *tokens(TEXT), made.tokenizer.eos_id) == text.ids
    asked = made.template.encode([Message("user", TEXT)], made.tokenizer, reply=True).ids
    assert tokens([{"role": "user", "content": TEXT}]) == asked
    bare = Environment(undefined=StrictUndefined)
    source = httpx.get(f"{served.url}/tokenizer_info").json()["chat_template"]
    text = bare.from_string(source).render(messages=[{"role": "user", "content": TEXT}], add_generation_prompt=True)
    assert tokens(text) == asked


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"suffix": "the end"}, "suffix", "unsupported_parameter"),
        ({"suffix": None, "prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [[]]}, "prompt[0]", "invalid_value"),
        ({"prompt": [399_999]}, "prompt", "invalid_value"),
        ({"prompt": [-1]}, "prompt[0]", "invalid_value"),
        ({"prompt": [5] * 3000}, "prompt", "context_length_exceeded"),
        ({"prompt": [5] * 2048}, "prompt", "context_length_exceeded"),
        ({"best_of": 2, "n": 3}, "best_of", "invalid_value"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_value"),
        ({"logprobs": 50}, "logprobs", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(served: Running, body: dict[str, Any], param: str, code: str) -> None:
    answer = httpx.post(f"{served.url}/v1/completions", json={"model": "any", "prompt": "a", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error


def test_a_prompt_that_fills_the_context_can_still_be_scored(client: openai.OpenAI) -> None:
    told = greedy(client, [5] * 2048, max_tokens=0, logprobs=1, echo=True).choices[0].logprobs
    assert len(told.token_logprobs) == 2048
    assert all(math.isfinite(one) for one in told.token_logprobs[1:])


def test_an_answer_ends_where_the_context_does(client: openai.OpenAI) -> None:
    answer = greedy(client, [5] * 2040, max_tokens=100, logit_bias={EOS: -100})
    assert answer.usage.completion_tokens == 8
    assert answer.choices[0].finish_reason == "length"
