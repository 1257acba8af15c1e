"""Responses by OpenAI's own client: whole, streamed, chained, in a required shape, with tools; kept and forgotten."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from plume.memory import open_store
from plume.memory.keys import create_key
from serving import CONTEXT, FIND, Running, caller, running, untrained

ASKED = "Où est « le phare » ?"
BOAT = "Where is the boat?"
TOOL: Any = {"type": "function", **FIND["function"]}
NOT = {"type": "object", "properties": {"a": {"uniqueItems": True}}}  # no engine here enforces it
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta*",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


class Place(BaseModel):
    name: str
    lit: bool


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {"any": untrained(), "caller": caller(), "raw": untrained("raw")}
    with running(tmp_path_factory.mktemp("responses"), models, rows=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def post(served: Running, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/responses", json={"input": ASKED, "model": "any", **body}, timeout=30)


def events_of(answer: httpx.Response) -> list[ResponseStreamEvent]:
    """Every event, checked against the client's own types; its name and its type must agree."""
    found = []
    for number, event in enumerate(answer.text.strip().split("\n\n")):
        name, data = event.split("\n")
        made = EVENTS.validate_json(data.removeprefix("data: "), strict=True)
        assert name.removeprefix("event: ") == made.type
        assert made.sequence_number == number
        found.append(made)
    return found


def names(events: list[ResponseStreamEvent]) -> list[str]:
    """Their types, a run of one kind of delta as one."""
    found: list[str] = []
    for event in events:
        name = f"{event.type}*" if event.type.endswith(".delta") else event.type
        if found[-1:] != [name] or not name.endswith("*"):
            found.append(name)
    return found


# --- shape ---


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"max_output_tokens": 3, "instructions": "Be short.", "metadata": {"a": "b"}, "user": "u"},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "max_output_tokens": 8},
        {"text": {"format": {"type": "json_object"}}, "max_output_tokens": 30},
        {"model": "caller", "input": BOAT, "tools": [TOOL], "tool_choice": {"type": "function", "name": "find"}},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Où ?"}]}], "store": False},
    ],
)
def test_responses_and_their_events_are_what_the_client_expects_to_the_letter(
    served: Running, body: dict[str, Any]
) -> None:
    whole = post(served, **body)
    made = Response.model_validate_json(whole.text, strict=True)
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    events = events_of(post(served, **body, stream=True))
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.status == last.type.removeprefix("response.")
    assert last.response.output_text == made.output_text


def test_events_of_a_text_come_in_order(served: Running) -> None:
    events = events_of(post(served, stream=True, max_output_tokens=4))
    assert names(events) == [*TEXT_EVENTS, "response.incomplete"]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    done = next(event for event in events if event.type == "response.output_text.done")
    assert deltas == done.text == events[-1].response.output_text  # type: ignore[union-attr]


def test_the_oldest_turns_are_left_out_where_that_is_asked_for(client: openai.OpenAI) -> None:
    """The model answers what it would answer to the instructions and the newest turns alone."""

    def turn(number: int) -> list[Any]:
        said = f"Question {number} : où est le phare ? " * 6
        return [{"role": "user", "content": said}, {"role": "assistant", "content": "Au large. " * 6}]

    told: list[Any] = [item for number in range(40) for item in turn(number)]
    question: Any = {"role": "user", "content": ASKED}
    asked: Any = {"model": "caller", "instructions": "Réponds.", "max_output_tokens": 20}
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**asked, input=[*told, question])
    assert (refused.value.param, refused.value.code) == ("input", "context_length_exceeded")
    made = client.responses.create(**asked, input=[*told, question], truncation="auto")
    assert made.truncation == "auto"
    assert made.usage is not None
    counted = client.responses.input_tokens.count(
        model="caller", instructions="Réponds.", input=[*told, question], truncation="auto"
    )
    assert abs(counted.input_tokens - made.usage.input_tokens) < 512
    fitting = [
        client.responses.create(**asked, input=[*told[-2 * kept :], question])
        for kept in range(1, 5)
        if client.responses.input_tokens.count(
            model="caller", instructions="Réponds.", input=[*told[-2 * kept :], question]
        ).input_tokens
        <= 512 - 20
    ]
    assert (fitting[-1].output_text, fitting[-1].usage) != ("", None)
    assert made.output_text == fitting[-1].output_text
    assert made.usage.input_tokens == fitting[-1].usage.input_tokens
    conversation = client.conversations.create(items=told[:20]).id
    for items in (told[20:40], told[40:60]):
        client.conversations.items.create(conversation, items=items)
    going = client.responses.create(**asked, input=[question], conversation=conversation, truncation="auto")
    assert going.usage is not None
    assert going.usage.input_tokens <= 512 - 20
    assert len(list(client.conversations.items.list(conversation))) == 62
    huge: Any = {"role": "user", "content": "x " * 3000}
    with pytest.raises(openai.BadRequestError) as never:
        client.responses.create(**asked, input=[huge], truncation="auto")
    assert (never.value.param, never.value.code) == ("input", "context_length_exceeded")


def test_a_long_chain_keeps_the_persona_that_it_began_with(client: openai.OpenAI) -> None:
    """The context is 512 tokens; the chain has more messages than that, so that its beginning is not read."""
    asked: dict[str, Any] = {"model": "caller", "max_output_tokens": 1, "truncation": "auto"}
    persona: Any = {"role": "developer", "content": "Tu gardes le phare de l’îlot, et tu réponds en vers. " * 3}
    first = client.responses.create(**asked, input=[persona, {"role": "user", "content": "Bonjour"}])
    many: list[Any] = [{"role": "user", "content": f"{number}"} for number in range(520)]
    aside: Any = {"role": "developer", "content": "Rien que pour cette fois."}
    second = client.responses.create(**asked, input=[aside, *many], previous_response_id=first.id)
    third = client.responses.create(**asked, input=ASKED, previous_response_id=second.id)
    fourth = client.responses.create(**asked, input=ASKED, previous_response_id=third.id)

    def said(response: Any) -> Any:
        return {"role": "assistant", "content": response.output_text}

    question: Any = {"role": "user", "content": ASKED}
    whole = [persona, *many, said(second), question]
    for made, given in ((third, whole), (fourth, [*whole, said(third), question])):
        once = client.responses.create(**asked, input=given)
        assert made.usage is not None
        assert once.usage is not None
        assert (made.usage.input_tokens, made.output_text) == (once.usage.input_tokens, once.output_text)
    client.responses.delete(first.id)
    forgotten = client.responses.create(**asked, input=ASKED, previous_response_id=third.id)
    once = client.responses.create(**asked, input=[*many, said(second), question, said(third), question])
    assert forgotten.usage is not None
    assert once.usage is not None
    assert forgotten.usage.input_tokens == once.usage.input_tokens


def test_input_is_counted_as_it_would_be_read(served: Running, client: openai.OpenAI) -> None:
    first = client.responses.create(model="caller", input=BOAT, tools=[TOOL])
    asked: list[Any] = [
        {"input": ASKED},
        {"input": ASKED, "instructions": "Réponds."},
        {"input": BOAT, "tools": [TOOL]},
        {"input": BOAT, "tools": [TOOL], "tool_choice": "required"},
        {"input": "Et ?", "tools": [TOOL], "previous_response_id": first.id},
        {"input": "Et ?", "conversation": client.conversations.create(items=[{"role": "user", "content": BOAT}]).id},
    ]
    for body in asked:
        counted = client.responses.input_tokens.count(model="caller", **body)
        assert counted.object == "response.input_tokens"
        usage = client.responses.create(model="caller", **body).usage
        assert usage is not None
        assert counted.input_tokens == usage.input_tokens
    assert client.responses.input_tokens.count(model="caller", input="x " * 3000).input_tokens > 3000
    answer = httpx.post(f"{served.url}/v1/responses/compact", json={"model": "any", "input": ASKED})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_endpoint")


def test_a_limit_makes_a_response_incomplete(client: openai.OpenAI) -> None:
    made = client.responses.create(model="any", input=ASKED, max_output_tokens=3)
    assert (made.status, made.output[0].status) == ("incomplete", "incomplete")  # type: ignore[union-attr]
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.usage is not None
    assert made.usage.output_tokens == 3


def test_a_response_says_what_a_chat_completion_says(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": ASKED}]
    made = client.responses.create(model="any", input=ASKED, instructions="Be short.")
    chat = client.chat.completions.create(model="any", messages=messages)
    assert made.output_text == chat.choices[0].message.content
    assert client.responses.create(model="caller", input="Hello", tools=[TOOL]).status == "completed"


def test_the_clients_own_reading_of_a_stream(client: openai.OpenAI) -> None:
    said = ""
    with client.responses.stream(model="caller", input="Hello", tools=[TOOL]) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                said += event.delta
        final = stream.get_final_response()
    assert said == final.output_text == "Good day. It’s été!"


def test_an_asynchronous_stream(served: Running, client: openai.OpenAI) -> None:
    async def read() -> str:
        async with served.asynchronous() as many:
            stream = await many.responses.create(model="any", input=ASKED, stream=True)
            return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

    assert asyncio.run(read()) == client.responses.create(model="any", input=ASKED).output_text


def test_logprobs_make_the_text(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="any", input=ASKED, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=8
    )
    content: Any = made.output[0].content  # type: ignore[union-attr]
    told = content[0].logprobs
    assert b"".join(bytes(one.bytes) for one in told).decode(errors="replace") == made.output_text
    assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in told)


# --- shapes of answers and tools ---


def test_parse_gives_an_object_of_the_schema(client: openai.OpenAI) -> None:
    made = client.responses.parse(model="any", input=ASKED, text_format=Place, temperature=1, max_output_tokens=60)
    assert isinstance(made.output_parsed, Place)
    with client.responses.stream(model="any", input=ASKED, text_format=Place, max_output_tokens=60) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Place)


def test_a_tool_is_called_and_its_result_is_read(client: openai.OpenAI) -> None:
    first = client.responses.create(model="caller", input=BOAT, tools=[TOOL])
    text, call = first.output
    assert (text.type, first.output_text) == ("message", "Let me look.")
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"what": "boat"}
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "harbour"}
    second = client.responses.create(model="caller", input=[result], tools=[TOOL], previous_response_id=first.id)
    assert second.output_text == "In the harbour."
    resent: Any = [{"role": "user", "content": BOAT}, *first.output, result]
    again = client.responses.create(model="caller", input=resent, tools=[TOOL])
    assert again.output_text == second.output_text
    assert again.usage
    assert second.usage
    assert again.usage.input_tokens == second.usage.input_tokens  # of which more are known by now


def test_events_of_a_call_come_in_order(served: Running, client: openai.OpenAI) -> None:
    events = events_of(post(served, model="caller", input=BOAT, tools=[TOOL], stream=True))
    assert names(events) == [
        *TEXT_EVENTS,
        "response.output_item.added",
        "response.function_call_arguments.delta*",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    done = next(event for event in events if event.type == "response.function_call_arguments.done")
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == done.arguments
    with client.responses.stream(model="caller", input=BOAT, tools=[TOOL]) as stream:
        call = stream.get_final_response().output[1]
    assert call.arguments == done.arguments  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "find"}])
def test_a_required_call_satisfies_its_schema_whatever_the_model(client: openai.OpenAI, choice: Any) -> None:
    made = client.responses.create(model="raw", input=ASKED, tools=[TOOL], tool_choice=choice)
    (call,) = made.output
    assert call.type == "function_call"
    assert call.name == "find"
    assert json.loads(call.arguments)["what"] in ("boat", "bell")


# --- what is kept ---


def test_a_response_is_kept_and_forgotten(served: Running, client: openai.OpenAI) -> None:
    made = client.responses.create(model="any", input=ASKED, max_output_tokens=4)
    again = client.responses.retrieve(made.id)
    assert again == made
    Response.model_validate_json(httpx.get(f"{served.url}/v1/responses/{made.id}").text, strict=True)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)


def test_a_streamed_response_is_kept_before_its_last_event(client: openai.OpenAI) -> None:
    with client.responses.create(model="any", input=ASKED, max_output_tokens=4, stream=True) as stream:
        for event in stream:
            if event.type == "response.incomplete":
                assert client.responses.retrieve(event.response.id).output == event.response.output
                return
    raise AssertionError("the stream had no end")


def test_what_is_not_to_be_kept_is_not(client: openai.OpenAI) -> None:
    made = client.responses.create(model="any", input=ASKED, max_output_tokens=4, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_input_items_come_in_pages(served: Running, client: openai.OpenAI) -> None:
    given: Any = [{"role": "user", "content": f"{number}"} for number in range(5)]
    made = client.responses.create(model="any", input=given, max_output_tokens=2)
    items = list(client.responses.input_items.list(made.id, limit=2, order="asc"))
    contents: list[Any] = [item.content for item in items]  # type: ignore[union-attr]
    assert [content[0].text for content in contents] == list("01234")
    assert [item.id for item in client.responses.input_items.list(made.id)] == [item.id for item in items][::-1]
    answer = httpx.get(f"{served.url}/v1/responses/{made.id}/input_items?limit=2")
    ResponseItemList.model_validate_json(answer.text, strict=True)
    with pytest.raises(openai.NotFoundError):
        list(client.responses.input_items.list(made.id, after="msg_none"))


def test_a_chain_reads_all_that_was_said_without_earlier_instructions(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "max_output_tokens": 5}
    first = client.responses.create(input="un", instructions="Never carried over.", **asked)
    second = client.responses.create(input="deux", previous_response_id=first.id, **asked)
    third = client.responses.create(input="trois", previous_response_id=second.id, instructions="Short.", **asked)
    spelled: Any = [
        {"role": "system", "content": "Short."},
        {"role": "user", "content": "un"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "deux"},
        {"role": "assistant", "content": second.output_text},
        {"role": "user", "content": "trois"},
    ]
    whole = client.responses.create(input=spelled, **asked)
    assert third.usage is not None
    assert whole.usage is not None
    assert (third.output_text, third.usage.input_tokens) == (whole.output_text, whole.usage.input_tokens)
    assert third.previous_response_id == second.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=first.id):
        client.responses.create(input="quatre", previous_response_id=third.id, **asked)


def test_what_was_said_survives_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'plume.db'}"
    with running(tmp_path / "a", {"any": untrained()}, store=open_store(url)) as server, server.client() as client:
        first = client.responses.create(model="any", input="un", max_output_tokens=5)
        conversation = client.conversations.create(items=[{"role": "user", "content": "Où ?"}])
    with running(tmp_path / "b", {"any": untrained()}, store=open_store(url)) as server, server.client() as client:
        assert client.responses.retrieve(first.id) == first
        second = client.responses.create(model="any", input="deux", previous_response_id=first.id, max_output_tokens=5)
        assert second.usage is not None
        assert first.usage is not None
        assert second.usage.input_tokens > first.usage.total_tokens
        assert len(list(client.conversations.items.list(conversation.id))) == 1


def test_what_belongs_to_another_is_as_unknown_as_what_nobody_has(tmp_path: Path) -> None:
    store = open_store("memory:")
    alice, bob = (create_key(store, name)[0] for name in ("alice", "bob"))
    with running(tmp_path, {"any": untrained()}, store=store, require_key=True) as server:
        with server.client(alice) as client:
            hers = client.responses.create(model="any", input=ASKED, max_output_tokens=2).id
        nobodys = f"resp_{'0' * (len(hers) - 5)}"
        head = {"authorization": f"Bearer {bob}"}

        def answers(id: str) -> list[tuple[int, str]]:
            url = f"{server.url}/v1/responses"
            body = {"model": "any", "input": "x", "previous_response_id": id}
            found = [
                httpx.get(f"{url}/{id}", headers=head),
                httpx.get(f"{url}/{id}/input_items", headers=head),
                httpx.post(f"{url}/{id}/cancel", headers=head),
                httpx.delete(f"{url}/{id}", headers=head),
                httpx.post(url, json=body, headers=head),
            ]
            return [(answer.status_code, answer.text.replace(id, "ID")) for answer in found]

        assert answers(hers) == answers(nobodys)
        assert {status for status, _ in answers(hers)} == {404}
        with server.client(alice) as client:
            assert client.responses.retrieve(hers).id == hers


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"surprise": 1}, "surprise", "unsupported_parameter"),
        ({"background": True}, "background", "invalid_value"),
        ({"max_tool_calls": 1}, "max_tool_calls", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"truncation": "oldest"}, "truncation", "invalid_value"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "invalid_value"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "ring"}}, "tool_choice", "invalid_value"),
        ({"model": "raw", "tools": [TOOL]}, "tools", "unsupported_parameter"),
        (
            {"tools": [TOOL, {**TOOL, "name": "no", "parameters": {"type": "string"}}]},
            "tools[1].parameters",
            "invalid_value",
        ),
        ({"tools": [TOOL, {**TOOL, "name": "no", "parameters": NOT}]}, "tools[1].parameters", "unsupported_schema"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "invalid_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}},
            "text.format.schema",
            "unsupported_schema",
        ),
        (
            {"text": {"format": {"type": "json_object"}}, "tools": [TOOL], "model": "caller"},
            "text.format",
            "unsupported_parameter",
        ),
        ({"text": {"format": {"type": "json_object"}}, "max_output_tokens": 1}, "max_output_tokens", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "invalid_value"),
        ({"input": "a " * CONTEXT}, "input", "context_length_exceeded"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_value"),
        ({"metadata": {f"{n}": "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"conversation": "c", "previous_response_id": "r"}, "previous_response_id", "invalid_value"),
        ({"stream": True, "stream_options": {"include_usage": True}}, "stream_options.include_usage", None),
        ({"stream": True, "input": "a " * CONTEXT}, "input", "context_length_exceeded"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    served: Running, body: dict[str, Any], param: str, code: str | None
) -> None:
    answer = post(served, **body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code or "unsupported_parameter")


def test_half_a_character_is_no_text(served: Running) -> None:
    content = json.dumps({"model": "any", "input": "a\ud800"})
    answer = httpx.post(f"{served.url}/v1/responses", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_only_what_runs_in_the_background_can_be_cancelled(served: Running, client: openai.OpenAI) -> None:
    made = client.responses.create(model="any", input=ASKED, max_output_tokens=2)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.cancel(made.id)
    assert refused.value.code == "response_not_cancellable"
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_none")
    refusal = httpx.get(f"{served.url}/v1/responses/{made.id}?include=reasoning.encrypted_content")
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (400, "include")


def test_leaving_a_stream_ends_its_decoding(served: Running, client: openai.OpenAI) -> None:
    body: Any = {
        "model": "any",
        "input": ASKED,
        "extra_body": {"logit_bias": {str(untrained().tokenizer.eos_id): -100}},
    }
    with client.responses.create(**body, max_output_tokens=1500, stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    served.until(lambda: served.outstanding == 0)


def test_a_failure_on_the_way_is_an_event_and_an_error(served: Running, client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    seen = []

    def read() -> None:
        asked: Any = {"model": "any", "input": ASKED, "max_output_tokens": 30, "conversation": conversation}
        with client.responses.create(**asked, stream=True) as stream:
            for event in stream:
                seen.append(event.type)
                if event.type == "response.created":
                    client.conversations.delete(conversation)

    with pytest.raises(openai.APIError, match="no conversation"):
        read()
    assert seen[-1] == "response.failed"
    assert "response.completed" not in seen
    served.until(lambda: served.outstanding == 0)
