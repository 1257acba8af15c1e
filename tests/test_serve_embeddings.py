"""Embeddings by OpenAI's own client: as it asks for them, and as they must be."""

import asyncio
import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import torch
from openai.types import CreateEmbeddingResponse

from plume.models import gpt
from plume.models.bundle import bundle
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer
from serving import CONTEXT, Running, running, untrained

TEXTS = ["Où est « le phare » ?", "Une chouette 🦉", "x", "It’s in the harbour, isn’t it? " * 20]


def small() -> Any:
    tokenizer = train_tokenizer("bpe", ["Où est le phare ? « Au large »."] * 3, 300)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0, "max_length": 32}
    return bundle(gpt.build({"vocab_size": tokenizer.vocab_size, **sizes}), tokenizer, TEMPLATES["chat"], 20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("embeddings"), {"any": untrained(), "small": small()}) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def post(served: Running, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/embeddings", json={"model": "any", "input": "phare", **body}, timeout=30)


def by_hand(text: str) -> list[float]:
    """The mean of the last hidden states, one text at a time, without padding."""
    made = untrained()
    with torch.inference_mode():
        hidden, _ = made.model(torch.tensor([made.tokenizer.encode(text, add_special_tokens=True)]))
    mean = hidden[0].mean(dim=0)
    return [float(value) for value in mean / mean.norm()]


def test_vectors_are_the_mean_of_the_last_hidden_states(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="any", input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    for one, text in zip(answer.data, TEXTS, strict=True):
        assert one.embedding == pytest.approx(by_hand(text), abs=1e-5)
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens == sum(len(untrained().tokenizer.encode(text)) for text in TEXTS)


def test_numbers_and_bytes_say_the_same(served: Running, client: openai.OpenAI) -> None:
    plain = client.embeddings.create(model="any", input=TEXTS, encoding_format="float")
    asked = client.embeddings.create(model="any", input=TEXTS)  # the client asks for base64
    raw = post(served, input=TEXTS, encoding_format="base64").json()["data"]
    for number, one in enumerate(plain.data):
        code = base64.b64decode(raw[number]["embedding"])
        assert list(struct.unpack(f"<{len(code) // 4}f", code)) == one.embedding == asked.data[number].embedding


def test_the_answer_is_what_the_client_expects_to_the_letter(served: Running) -> None:
    answer = post(served)
    CreateEmbeddingResponse.model_validate_json(answer.text, strict=True)
    assert answer.json().keys() == {"object", "data", "model", "usage"}


def test_ids_and_their_text_are_the_same_input(client: openai.OpenAI) -> None:
    ids = [untrained().tokenizer.encode(text, add_special_tokens=True) for text in TEXTS]
    texts = [one.embedding for one in client.embeddings.create(model="any", input=TEXTS).data]
    rows = [one.embedding for one in client.embeddings.create(model="any", input=ids).data]
    single = client.embeddings.create(model="any", input=ids[0]).data
    assert rows == texts
    assert len(single) == 1
    assert single[0].embedding == pytest.approx(texts[0], abs=1e-5)


def test_fewer_dimensions_are_the_first_ones_at_length_one(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="any", input="phare").data[0].embedding
    cut = client.embeddings.create(model="any", input="phare", dimensions=8).data[0].embedding
    length = math.hypot(*whole[:8])
    assert cut == pytest.approx([value / length for value in whole[:8]], abs=1e-6)


def test_many_texts_are_read_in_several_batches_in_their_order(client: openai.OpenAI) -> None:
    texts = [f"{'phare ' * (number % 40)}{number}" for number in range(300)]
    answer = client.embeddings.create(model="any", input=texts)
    for number in (0, 39, 150, 299):
        assert answer.data[number].embedding == pytest.approx(by_hand(texts[number]), abs=1e-5)


def test_the_asynchronous_client(served: Running) -> None:
    async def ask() -> CreateEmbeddingResponse:
        async with served.asynchronous() as many:
            return await many.embeddings.create(model="any", input="x")

    assert asyncio.run(ask()).data[0].embedding == pytest.approx(by_hand("x"), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": [[]]}, "input[0]", "invalid_value"),
        ({"input": ["a"] * 2049}, "input", "invalid_value"),
        ({"input": [10**6]}, "input", "invalid_value"),
        ({"input": [[1], [10**6]]}, "input[1]", "invalid_value"),
        ({"input": [-1]}, "input[0]", "invalid_value"),
        ({"input": {"text": "a"}}, "input", "invalid_value"),
        ({"input": [1] * (CONTEXT + 1)}, "input", "context_length_exceeded"),
        ({"dimensions": 0}, "dimensions", "invalid_value"),
        ({"dimensions": 33}, "dimensions", "invalid_value"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"truncate": True}, "truncate", "unsupported_parameter"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(served: Running, body: dict[str, Any], param: str, code: str) -> None:
    answer = post(served, **body)
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


def test_errors_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context is 32 tokens"):
        client.embeddings.create(model="small", input="Où est le phare ? " * 20)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nothing", input="x")
