"""Chat completions by OpenAI's own client: whole and streamed, in a required shape, with tools."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from plume.serving.said import CallReader
from serving import CALLED, FIND, Running, caller, running, untrained

ASKED: Any = [{"role": "user", "content": "Où est « le phare » ?"}]
BOAT: Any = [{"role": "user", "content": "Where is the boat?"}]
FIND_TWO: Any = [
    FIND,
    {
        "type": "function",
        "function": {"name": "ring", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
    },
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {"any": untrained(), "caller": caller(), "raw": untrained("raw")}
    with running(tmp_path_factory.mktemp("chat"), models, rows=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def post(served: Running, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/chat/completions", json={"messages": ASKED, "model": "any", **body}, timeout=30)


def refusal(served: Running, **body: Any) -> dict[str, Any]:
    answer = post(served, **body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


# --- shape ---


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"n": 3, "temperature": 1, "seed": 1},
        {"logprobs": True, "top_logprobs": 3},
        {"response_format": {"type": "json_object"}, "max_tokens": 30},
        {"model": "caller", "messages": BOAT, "tools": [FIND]},
    ],
)
def test_answers_are_what_the_client_expects_to_the_letter(served: Running, body: dict[str, Any]) -> None:
    answer = post(served, **body)
    ChatCompletion.model_validate_json(answer.text, strict=True)
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"


def test_every_chunk_is_what_the_client_expects_to_the_letter(served: Running) -> None:
    body = {"stream": True, "n": 2, "temperature": 1, "logprobs": True, "stream_options": {"include_usage": True}}
    answer = post(served, **body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [ChatCompletionChunk.model_validate_json(event.removeprefix("data: "), strict=True) for event in events]
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", "assistant"]
    assert all("usage" in json.loads(event.removeprefix("data: ")) for event in events)
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert len(finishes) == 2


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "messages": ASKED, "temperature": 0.9, "seed": 7, "max_completion_tokens": 30, "n": 2}
    whole = client.chat.completions.create(**asked)
    texts = ["", ""]
    finish: list[str | None] = [None, None]
    with client.chat.completions.create(**asked, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                finish[choice.index] = choice.finish_reason or finish[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert finish == [choice.finish_reason for choice in whole.choices]
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert texts[0] != texts[1]


def test_what_was_known_of_a_prompt_is_counted(client: openai.OpenAI) -> None:
    """Of a prompt that was read before all but the last token is known, to those with the same key alone."""
    story = "Il était une fois un phare, une barque et une cloche. " * 4
    messages: Any = [{"role": "user", "content": story}]
    asked: Any = {"model": "any", "messages": messages, "max_tokens": 3, "prompt_cache_key": "known"}
    streaming: Any = {"stream": True, "stream_options": {"include_usage": True}}

    def cached(usage: CompletionUsage | None) -> tuple[int, int]:
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens is not None
        return usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens

    prompt, first = cached(client.chat.completions.create(**asked).usage)
    assert (prompt > 100, first) == (True, 0)
    assert cached(client.chat.completions.create(**asked, n=2, temperature=1).usage) == (prompt, prompt - 1)
    assert cached([*client.chat.completions.create(**asked, **streaming)][-1].usage) == (prompt, prompt - 1)
    assert cached(client.chat.completions.create(**{**asked, "prompt_cache_key": "other"}).usage) == (prompt, 0)
    longer: Any = {
        **asked,
        "messages": [*messages, {"role": "assistant", "content": "…"}, {"role": "user", "content": "Et ?"}],
    }
    grown, known = cached(client.chat.completions.create(**longer).usage)
    assert 0 < known <= prompt < grown
    other: Any = {"model": "any", "extra_body": {"prompt_cache_key": "others"}}
    text, none = cached(client.completions.create(**other, prompt=story, max_tokens=1).usage)
    assert none == 0
    assert cached(client.completions.create(**other, prompt=[story, story], max_tokens=1).usage) == (
        2 * text,
        2 * text - 2,
    )
    for known in (0, 1):
        usage = client.responses.create(**other, instructions="Réponds.", input=story, max_output_tokens=2).usage
        assert usage is not None
        assert usage.input_tokens_details.cached_tokens == known * (usage.input_tokens - 1)


def test_many_at_once_each_get_their_own_answer(served: Running, client: openai.OpenAI) -> None:
    def asked(seed: int) -> Any:
        return {"model": "any", "messages": ASKED, "temperature": 1, "seed": seed, "max_tokens": 12}

    async def all_at_once() -> list[str | None]:
        async with served.asynchronous() as many:
            answers = await asyncio.gather(*(many.chat.completions.create(**asked(seed)) for seed in range(24)))
            return [answer.choices[0].message.content for answer in answers]

    alone = [client.chat.completions.create(**asked(seed)).choices[0].message.content for seed in range(24)]
    assert asyncio.run(all_at_once()) == alone
    assert len(set(alone)) > 10


def test_an_asynchronous_stream(served: Running) -> None:
    async def read() -> str:
        async with served.asynchronous() as many:
            stream = await many.chat.completions.create(model="any", messages=ASKED, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    with served.client() as plain:
        answer = plain.chat.completions.create(model="any", messages=ASKED)
    assert asyncio.run(read()) == answer.choices[0].message.content


# --- settings ---


def test_without_a_temperature_the_model_is_asked_as_it_wants_to_be(client: openai.OpenAI) -> None:
    first, second = (client.chat.completions.create(model="any", messages=ASKED) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content


def test_without_a_seed_chance_is_new_each_time(client: openai.OpenAI) -> None:
    answers = {
        client.chat.completions.create(model="any", messages=ASKED, temperature=1).choices[0].message.content
        for _ in range(4)
    }
    assert len(answers) > 1


def test_stop_ends_an_answer_and_is_no_part_of_it(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "messages": ASKED, "max_tokens": 30}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    assert whole is not None
    mark = whole[4:6]
    cut = client.chat.completions.create(**asked, stop=[mark, "never said"]).choices[0]
    assert cut.message.content == whole[: whole.index(mark)]
    assert cut.finish_reason == "stop"


def test_a_limit_cuts_an_answer_and_says_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any", messages=ASKED, max_completion_tokens=3, logit_bias={str(untrained().tokenizer.eos_id): -100}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_bias_forces_and_forbids(client: openai.OpenAI) -> None:
    id = untrained().tokenizer.encode("x")[0]
    answer = client.chat.completions.create(model="any", messages=ASKED, max_tokens=4, logit_bias={str(id): 100})
    assert answer.choices[0].message.content == "xxxx"


def test_logprobs_are_the_models_own_and_their_bytes_make_the_text(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        model="any", messages=ASKED, logprobs=True, top_logprobs=4, max_tokens=15
    ).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content
    told = choice.logprobs.content
    assert b"".join(bytes(token.bytes or []) for token in told).decode(errors="replace") == choice.message.content
    for token in told:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 4
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)  # greedy: the likeliest was taken


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"surprise": 1}, "surprise", "unsupported_parameter"),
        ({"store": True}, "store", "invalid_value"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
        ({"audio": {"voice": "a", "format": "wav"}}, "audio", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name", "unsupported_parameter"),
        ({"messages": [{"role": "nobody", "content": "a"}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop[0]", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unsupported_parameter"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (
            {"tools": [FIND], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "invalid_value",
        ),
        ({"tools": [FIND, FIND]}, "tools", "invalid_value"),
        ({"tools": [FIND], "response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"model": "raw", "tools": [FIND]}, "tools", "unsupported_parameter"),
        (
            {
                "tools": [
                    FIND,
                    {"type": "function", "function": {"name": "no", "parameters": {"type": "object", "if": {}}}},
                ]
            },
            "tools[1].function.parameters",
            "unsupported_schema",
        ),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(served: Running, body: dict[str, Any], param: str, code: str) -> None:
    error = refusal(served, **body)
    assert (error["param"], error["code"]) == (param, code), error


def test_an_image_is_refused_by_its_place(served: Running) -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    error = refusal(served, messages=[{"role": "user", "content": parts}])
    assert error["param"].startswith("messages[0].content[1]")


def test_parts_of_text_are_one_text(client: openai.OpenAI) -> None:
    parts: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Où est "}, {"type": "text", "text": "« le phare » ?"}]}
    ]
    answers = [client.chat.completions.create(model="any", messages=asked) for asked in (ASKED, parts)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    usages = [answer.usage for answer in answers]
    assert len({(usage.prompt_tokens, usage.completion_tokens) for usage in usages if usage}) == 1


def test_a_question_longer_than_the_context_is_refused(served: Running) -> None:
    error = refusal(served, messages=[{"role": "user", "content": "x " * 3000}])
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")


# --- required shapes ---

PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"lieu": {"type": "string"}, "zone": {"$ref": "#/$defs/zone"}, "stories": {"type": "integer"}},
    "required": ["lieu", "zone", "stories"],
    "additionalProperties": False,
    "$defs": {"zone": {"enum": ["île", "port"]}},
}


class Place(BaseModel):
    lieu: str
    stories: int


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("most", [40, 80, 300])
def test_a_schema_holds_at_every_length(client: openai.OpenAI, most: int, temperature: float) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
    answer = client.chat.completions.create(
        model="any", messages=ASKED, response_format=schema, max_tokens=most, temperature=temperature, seed=most
    ).choices[0]
    assert answer.finish_reason == "stop"
    value = json.loads(answer.message.content or "")
    assert value.keys() == {"lieu", "zone", "stories"}
    assert value["zone"] in ("île", "port")
    assert type(value["stories"]) is int


def test_json_mode_is_json_also_as_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="any", messages=ASKED, response_format={"type": "json_object"}, max_tokens=30, stream=True
    ) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert isinstance(json.loads(text), dict)


def test_parsing_into_a_class(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model="any", messages=ASKED, response_format=Place, max_tokens=60)
    assert isinstance(parsed.choices[0].message.parsed, Place)


def test_a_keyword_that_cannot_be_enforced_is_named(served: Running) -> None:
    schema = {"name": "s", "schema": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}
    error = refusal(served, response_format={"type": "json_schema", "json_schema": schema})
    assert (error["param"], error["code"]) == ("response_format.json_schema.schema", "unsupported_schema")
    assert "uniqueItems" in error["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": "a"},
        {"type": 5},
        {"pattern": 5},
        {"anyOf": 1},
        {"$ref": "#/nowhere"},
        {"required": "a"},
        {"enum": 1},
    ],
)
def test_what_is_no_schema_is_refused(served: Running, schema: dict[str, Any]) -> None:
    refusal(served, response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}},
    }
    refusal(served, tools=[tool], tool_choice="required")


def test_references_within_a_tools_parameters_are_followed(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"zone": {"$ref": "#/$defs/zone"}, "const": {"$ref": "#/$defs/zone"}},
        "required": ["zone", "const"],
        "additionalProperties": False,
        "$defs": {"zone": {"enum": ["île", "port"]}},
    }
    tools: Any = [*FIND_TWO, {"type": "function", "function": {"name": "walk", "parameters": parameters}}]
    named = {"type": "function", "function": {"name": "walk"}}
    for choice, offered in ((named, tools), ("required", tools[2:])):
        asked: Any = {"model": "any", "messages": BOAT, "tools": offered, "tool_choice": choice}
        name, arguments, _ = whole_call(client, asked)
        assert name == "walk"
        assert set(json.loads(arguments).values()) <= {"île", "port"}


def test_a_limit_below_the_shortest_answer_is_refused(served: Running) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": PLACE}}
    error = refusal(served, response_format=schema, max_completion_tokens=3)
    assert error["param"] == "max_completion_tokens"
    assert "shortest" in error["message"]


# --- tools ---


@pytest.mark.parametrize("model", ["any", "caller", "raw"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "tools", "finish"),
    [
        ("required", FIND_TWO, "tool_calls"),
        ({"type": "function", "function": {"name": "find"}}, FIND_TWO, "stop"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "find"}}]},
            },
            FIND_TWO,
            "tool_calls",
        ),
    ],
)
def test_a_required_call_satisfies_its_schema(
    client: openai.OpenAI, model: str, stream: bool, choice: Any, tools: Any, finish: str
) -> None:
    asked: Any = {"model": model, "messages": BOAT, "tools": tools, "tool_choice": choice}
    name, arguments, reason = streamed_call(client, asked) if stream else whole_call(client, asked)
    assert reason == finish
    assert name in ("find", "ring")
    if choice != "required":
        assert name == "find"
    value = json.loads(arguments)
    assert value == {} if name == "ring" else value["what"] in ("boat", "bell")


def whole_call(client: openai.OpenAI, asked: Any) -> tuple[str, str, str]:
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.id.startswith("call_")
    return call.function.name, call.function.arguments, choice.finish_reason


def streamed_call(client: openai.OpenAI, asked: Any) -> tuple[str, str, str]:
    names, ids, arguments, finish = [], [], "", ""
    with client.chat.completions.create(**asked, stream=True) as stream:
        for chunk in stream:
            finish = chunk.choices[0].finish_reason or finish
            for call in chunk.choices[0].delta.tool_calls or ():
                assert call.index == 0
                names += [call.function.name] if call.function.name is not None else []
                ids += [call.id] if call.id is not None else []
                arguments += call.function.arguments
    assert len(names) == len(ids) == 1
    return names[0], arguments, finish


@pytest.mark.parametrize("stream", [False, True])
def test_the_model_chooses_between_text_and_a_call(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {"model": "caller", "messages": BOAT, "tools": [FIND]}
    if stream:
        with client.chat.completions.create(**asked, stream=True) as chunks:
            deltas = [chunk.choices[0].delta for chunk in chunks]
        assert "".join(delta.content or "" for delta in deltas) == CALLED.content
        name, arguments, finish = streamed_call(client, asked)
        assert finish == "tool_calls"
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == CALLED.content
        (call,) = choice.message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert (name, json.loads(arguments)) == ("find", {"what": "boat"})
    hello = client.chat.completions.create(
        model="caller", messages=[{"role": "user", "content": "Hello"}], tools=[FIND]
    )
    assert (hello.choices[0].finish_reason, hello.choices[0].message.content) == ("stop", "Good day. It’s été!")
    assert hello.choices[0].message.tool_calls is None


def test_the_result_of_a_call_is_read(client: openai.OpenAI) -> None:
    first: Any = client.chat.completions.create(model="caller", messages=BOAT, tools=[FIND]).choices[0].message
    (call,) = first.tool_calls
    history = [*BOAT, first.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "harbour"}]
    answer = client.chat.completions.create(model="caller", messages=history, tools=[FIND])
    assert answer.choices[0].message.content == "In the harbour."


def test_several_choices_call_each_for_itself(client: openai.OpenAI) -> None:
    asked: Any = {"model": "caller", "messages": BOAT, "tools": [FIND], "n": 3, "temperature": 0.01, "seed": 3}
    answer: Any = client.chat.completions.create(**asked)
    assert [len(choice.message.tool_calls or ()) for choice in answer.choices] == [1, 1, 1]
    assert len({choice.message.tool_calls[0].id for choice in answer.choices}) == 3


def test_a_template_that_knows_no_calls_is_not_given_any(served: Running) -> None:
    history = [*BOAT, {"role": "tool", "tool_call_id": "call_1", "content": "harbour"}]
    error = refusal(served, model="raw", messages=history)
    assert error["param"] == "messages"
    assert "calls" in error["message"]


def test_a_limit_within_a_call_cuts_before_it(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="caller", messages=BOAT, tools=[FIND], max_tokens=12).choices[0]
    assert answer.finish_reason == "length"
    assert answer.message.tool_calls is None


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_call_is_read_in_pieces_of_any_size(size: int) -> None:
    arguments = '{"a": "}\\"{", "b": [{"c": "é"}], "d": {}}'
    text = f'{{"name": "f-1", "arguments": {arguments}}}'
    reader = CallReader("arguments")
    pieces = [piece for at in range(0, len(text), size) if (piece := reader.push(text[at : at + size]))]
    assert [piece.name for piece in pieces if piece.name] == ["f-1"]
    assert "".join(piece.arguments for piece in pieces) == arguments
