"""Conversations by OpenAI's own client: their items, responses that go on with them, several at once, tenants."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    ConversationItem,
    ConversationItemList,
)
from pydantic import TypeAdapter

from plume.memory import open_store
from plume.memory.keys import create_key
from plume.memory.store import Store
from plume.serving.sweeping import forgetting, sweeping
from plume.text.template import with_persona
from plume.text.window import Window, fit_window
from plume.types import Message
from serving import FIND, Running, caller, running, untrained

PERSONA = "Tu gardes « le phare »."
ASKED = "Où est « le phare » ?"
TOOL: Any = {"type": "function", **FIND["function"]}


@pytest.fixture(scope="module")
def store() -> Store:
    return open_store("memory:")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Running]:
    plain = untrained()
    keeper = replace(plain, template=with_persona(plain.template, plain.tokenizer, PERSONA))
    models = {"any": plain, "caller": caller(), "keeper": keeper}
    with running(tmp_path_factory.mktemp("conversations"), models, store=store, rows=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def texts(client: openai.OpenAI, id: str) -> list[str]:
    items: list[Any] = list(client.conversations.items.list(id, order="asc"))
    return [item.content[0].text for item in items]


def user(*said: str) -> Any:
    return [{"role": "user", "content": text} for text in said]


def test_a_persona_is_set_once_for_a_conversation_or_a_model(client: openai.OpenAI) -> None:
    made = untrained()
    said = (Message("system", PERSONA), Message("user", ASKED))
    told = len(made.template.encode(said, made.tokenizer, reply=True).ids)
    conversation = client.conversations.create(items=[{"role": "system", "content": PERSONA}])
    first = client.responses.create(model="any", conversation=conversation.id, input=ASKED, max_output_tokens=4)
    assert first.usage is not None
    assert first.usage.input_tokens == told
    messages: Any = user(ASKED)
    answered = client.chat.completions.create(model="keeper", messages=messages, max_tokens=4)
    assert answered.usage is not None
    assert answered.usage.prompt_tokens == told


def test_a_conversation_from_beginning_to_end(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"thème": "phares"}, items=user("un"))
    assert client.conversations.retrieve(made.id) == made
    assert made.metadata == {"thème": "phares"}
    assert client.conversations.update(made.id, metadata={"a": "b"}).metadata == {"a": "b"}
    assert client.conversations.retrieve(made.id).metadata == {"a": "b"}
    assert client.conversations.delete(made.id).deleted
    for gone in (
        lambda: client.conversations.retrieve(made.id),
        lambda: client.conversations.items.list(made.id),
        lambda: client.conversations.delete(made.id),
        lambda: client.responses.create(model="any", input="x", conversation=made.id),
    ):
        with pytest.raises(openai.NotFoundError, match=made.id):
            gone()


def test_items_are_added_read_in_pages_and_taken_out(client: openai.OpenAI) -> None:
    id = client.conversations.create().id
    assert client.conversations.items.list(id).data == []
    added = client.conversations.items.create(id, items=user(*map(str, range(7))))
    assert [item.content[0].text for item in added.data] == list(map(str, range(7)))  # type: ignore[union-attr, index]
    asc = [item.id or "" for item in client.conversations.items.list(id, order="asc", limit=3)]
    desc = [item.id or "" for item in client.conversations.items.list(id, limit=2)]
    assert asc == desc[::-1] == [item.id for item in added.data]
    assert client.conversations.items.retrieve(asc[3], conversation_id=id) == added.data[3]
    left = client.conversations.items.delete(asc[3], conversation_id=id)
    assert left.id == id
    assert texts(client, id) == list("012456")
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(asc[3], conversation_id=id)


def test_every_answer_is_what_the_client_expects_to_the_letter(served: Running) -> None:
    url = f"{served.url}/v1/conversations"
    call = {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "harbour"}
    items = [*user("un"), {"role": "assistant", "content": "deux"}, call, output]
    answer = httpx.post(url, json={"items": items})
    made = Conversation.model_validate_json(answer.text, strict=True)
    listed = httpx.get(f"{url}/{made.id}/items?order=asc")
    found = ConversationItemList.model_validate_json(listed.text, strict=True)
    assert [item.type for item in found.data] == ["message", "message", "function_call", "function_call_output"]
    one = httpx.get(f"{url}/{made.id}/items/{found.data[2].id}")
    kind: TypeAdapter[ConversationItem] = TypeAdapter(ConversationItem)
    assert kind.validate_json(one.text, strict=True).name == "find"  # type: ignore[union-attr]
    ConversationItemList.model_validate_json(httpx.post(f"{url}/{made.id}/items", json={"items": items}).text)
    empty = httpx.get(f"{url}/{httpx.post(url, json={}).json()['id']}/items")
    assert ConversationItemList.model_validate_json(empty.text, strict=True).data == []
    ConversationDeletedResource.model_validate_json(httpx.delete(f"{url}/{made.id}").text, strict=True)


def test_responses_go_on_with_a_conversation_and_add_to_it(client: openai.OpenAI) -> None:
    id = client.conversations.create(items=user("un")).id
    asked: Any = {"model": "any", "max_output_tokens": 5}
    first = client.responses.create(input="deux", conversation=id, **asked)
    second = client.responses.create(input="trois", conversation={"id": id}, **asked)
    spelled: Any = [*user("un", "deux"), {"role": "assistant", "content": first.output_text}, *user("trois")]
    whole = client.responses.create(input=spelled, **asked)
    assert second.output_text == whole.output_text
    assert second.usage is not None
    assert whole.usage is not None
    assert second.usage.total_tokens == whole.usage.total_tokens
    assert texts(client, id) == ["un", "deux", first.output_text, "trois", second.output_text]
    assert second.conversation is not None
    assert second.conversation.id == id
    newest = next(iter(client.conversations.items.list(id)))
    assert newest.id == second.output[0].id
    with pytest.raises(openai.BadRequestError, match=id):  # what was said before it is the conversation's
        client.responses.create(input="x", previous_response_id=second.id, **asked)


def test_a_conversation_longer_than_the_context_is_answered_without_its_oldest_turns(tmp_path: Path) -> None:
    """The persona stays, and the model is told what a window of the whole conversation holds."""
    store, small = open_store("memory:"), untrained(context=128)
    tenant, most = store.tenant("local"), 128 - 8
    id = tenant.create(user="zoé").id
    turns = [(Message("user", f"u{number}"), Message("assistant", "oui")) for number in range(100)]
    tenant.append(id, [Message("system", PERSONA), *(one for turn in turns for one in turn)])
    window = fit_window([*tenant.read(id).messages, Message("user", ASKED)], small.template, small.tokenizer, most)
    assert window.messages[0].content == PERSONA
    with running(tmp_path, {"any": small}, store=store) as server, server.client() as client:
        asked: Any = {"model": "any", "max_output_tokens": 8}
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(conversation=id, input=ASKED, **asked)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "conversation")
        made = client.responses.create(conversation=id, input=ASKED, truncation="auto", **asked)
        told: Any = [{"role": one.role, "content": one.content} for one in window.messages]
        again = client.responses.create(input=told, **asked)
        assert made.usage is not None
        assert made.usage.input_tokens == len(window.ids)
        assert (made.output_text, made.usage.input_tokens) == (
            again.output_text,
            again.usage and again.usage.input_tokens,
        )
    assert len(tenant.read(id).items) == 203


def test_older_turns_that_a_question_is_about_are_taken_up_again(tmp_path: Path) -> None:
    """In conversations, in chains and in what is sent whole, the model is told what a window with them holds."""
    store, small = open_store("memory:"), untrained(context=256)
    tenant, question = store.tenant("local"), "Où dort la clé ?"
    turns = [("La clé dort sous la pierre", "oui"), *((f"u{number}", "non") for number in range(60))]
    said = [one for asked, told in turns for one in (Message("user", asked), Message("assistant", told))]
    said = [Message("system", PERSONA), *said]
    id = tenant.create().id
    tenant.append(id, said)

    def window() -> Window:
        whole = [*said, Message("user", question)]
        return fit_window(whole, small.template, small.tokenizer, 256 - 8, recalled=[1])

    def answered(client: openai.OpenAI, input: Any = question, truncation: Any = "auto", **options: Any) -> Any:
        made = client.responses.create(model="any", input=input, truncation=truncation, max_output_tokens=8, **options)
        assert made.usage is not None
        return made.output_text, made.usage.input_tokens

    def spelled(messages: Sequence[Message]) -> Any:
        return [{"role": one.role, "content": one.content} for one in messages]

    assert window().recalled == (1, 2)
    with running(tmp_path / "with", {"any": small}, store=store, recall=True) as server, server.client() as client:
        expected = answered(client, spelled(window().messages), "disabled")
        assert expected[1] == len(window().ids)
        assert answered(client, spelled([*said, Message("user", question)])) == expected
        assert answered(client, conversation=id) == expected
        first = client.responses.create(model="any", input=spelled(said[:-1]), truncation="auto", max_output_tokens=1)
        longer = [*said[:-1], Message("assistant", first.output_text), Message("user", question)]
        chained = answered(client, previous_response_id=first.id)
        assert chained == answered(client, spelled(longer))
    with running(tmp_path / "without", {"any": small}, store=store) as server, server.client() as client:
        plain = fit_window([*said, Message("user", question)], small.template, small.tokenizer, 256 - 8)
        assert answered(client, spelled([*said, Message("user", question)]))[1] == len(plain.ids)
        assert answered(client, spelled(longer)) != chained


def test_calls_and_their_results_are_items(client: openai.OpenAI) -> None:
    id = client.conversations.create().id
    asked: Any = {"model": "caller", "tools": [TOOL], "conversation": id}
    first = client.responses.create(input="Where is the boat?", **asked)
    call: Any = first.output[-1]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "harbour"}
    assert client.responses.create(input=[result], **asked).output_text == "In the harbour."
    kinds = [item.type for item in client.conversations.items.list(id, order="asc")]
    assert kinds == ["message", "message", "function_call", "function_call_output", "message"]


def test_what_a_failed_request_said_is_not_added(client: openai.OpenAI) -> None:
    id = client.conversations.create(items=user("un")).id
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="any", input="x " * 3000, conversation=id)
    wrong: Any = [*user("deux"), {"role": "nobody", "content": "x"}]
    with pytest.raises(openai.BadRequestError):
        client.conversations.items.create(id, items=wrong)
    assert texts(client, id) == ["un"]


def test_of_several_at_once_each_reads_the_one_before(served: Running, client: openai.OpenAI) -> None:
    id = client.conversations.create().id

    async def all_at_once() -> list[int]:
        async with served.asynchronous() as many:
            asked: list[Any] = [
                many.responses.create(model="any", input=f"{number}", conversation=id, max_output_tokens=3)
                for number in range(6)
            ]
            added = many.conversations.items.create(id, items=user("from outside"))
            *made, _ = await asyncio.gather(*asked, added)
            return [one.usage.input_tokens for one in made]

    read = asyncio.run(all_at_once())
    assert len(set(read)) == 6  # no two read the same
    said = texts(client, id)
    assert len(said) == 13
    without = [text for text in said if text != "from outside"]
    assert sorted(without[::2]) == list("012345")  # every question has its answer behind it


def test_a_conversation_that_another_server_went_on_with_is_not_torn(
    served: Running, client: openai.OpenAI, store: Store
) -> None:
    """The answer to what is no longer the end is refused, once, and nothing of it is written."""
    id = client.conversations.create(items=user("un")).id
    tenant = store.tenant("local")
    appended = threading.Event()

    class Meanwhile(type(tenant)):  # type: ignore[misc]
        def read(self, *values: Any, **named: Any) -> Any:
            found = super().read(*values, **named)
            if not appended.is_set():
                appended.set()
                tenant.append(id, [Message("user", "meanwhile")])
            return found

    tenant.__class__ = Meanwhile  # another process writes between the reading and the appending
    try:
        with served.client(max_retries=3) as retrying, pytest.raises(openai.ConflictError) as refused:
            retrying.responses.create(model="any", input="deux", conversation=id, max_output_tokens=3)
    finally:
        tenant.__class__ = Meanwhile.__base__
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert texts(client, id) == ["un", "meanwhile"]


def test_the_list_of_conversations_is_ones_own_and_newest_first(tmp_path: Path) -> None:
    store = open_store("memory:")
    alice, bob = (create_key(store, name)[0] for name in ("alice", "bob"))
    with running(tmp_path, {}, store=store, require_key=True) as server, server.client(alice) as client:
        made = [client.conversations.create().id for _ in range(3)]
        head = {"authorization": f"Bearer {alice}"}
        url = f"{server.url}/v1/conversations"
        first = httpx.get(f"{url}?limit=2", headers=head).json()
        rest = httpx.get(f"{url}?limit=2&after={first['last_id']}", headers=head).json()
        listed = [one["id"] for one in first["data"] + rest["data"]]
        assert sorted(listed) == sorted(made)
        assert (first["has_more"], rest["has_more"]) == (True, False)
        assert httpx.get(url, headers={"authorization": f"Bearer {bob}"}).json()["data"] == []


def test_what_belongs_to_another_is_as_unknown_as_what_nobody_has(tmp_path: Path) -> None:
    store = open_store("memory:")
    alice, bob = (create_key(store, name)[0] for name in ("alice", "bob"))
    with running(tmp_path, {"any": untrained()}, store=store, require_key=True) as server:
        with server.client(alice) as client:
            hers = client.conversations.create(items=user("secret")).id
            item = client.conversations.items.list(hers).data[0].id
        url, head = f"{server.url}/v1/conversations", {"authorization": f"Bearer {bob}"}
        respond = f"{server.url}/v1/responses"

        def answers(id: str) -> list[tuple[int, str]]:
            found = [
                httpx.get(f"{url}/{id}", headers=head),
                httpx.post(f"{url}/{id}", json={"metadata": {}}, headers=head),
                httpx.get(f"{url}/{id}/items", headers=head),
                httpx.get(f"{url}/{id}/items?after={item}", headers=head),
                httpx.post(f"{url}/{id}/items", json={"items": user("x")}, headers=head),
                httpx.get(f"{url}/{id}/items/{item}", headers=head),
                httpx.delete(f"{url}/{id}/items/{item}", headers=head),
                httpx.delete(f"{url}/{id}", headers=head),
                httpx.post(respond, json={"model": "any", "input": "x", "conversation": id}, headers=head),
                httpx.get(f"{url}?after={id}", headers=head),
            ]
            return [(answer.status_code, answer.text.replace(id, "ID")) for answer in found]

        assert answers(hers) == answers(f"conv_{'0' * (len(hers) - 5)}")
        assert {status for status, _ in answers(hers)} == {404}
        with server.client(alice) as client:
            assert texts(client, hers) == ["secret"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": user("a") * 21}, "items"),
        ({"items": [{"type": "reasoning"}]}, "items[0]"),
        (
            {"items": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "items[0].content[0].type",
        ),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"metadata": {"a" * 65: "b"}}, None),
        ({"name": "x"}, "name"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(served: Running, body: dict[str, Any], param: str | None) -> None:
    answer = httpx.post(f"{served.url}/v1/conversations", json=body)
    assert answer.status_code == 400, answer.text
    assert param is None or answer.json()["error"]["param"] == param


def test_what_a_list_does_not_know_is_refused(served: Running, client: openai.OpenAI) -> None:
    id = client.conversations.create().id
    for query, param in (("include=x", "include"), ("limit=101", "limit"), ("limit=0", "limit"), ("order=up", "order")):
        answer = httpx.get(f"{served.url}/v1/conversations/{id}/items?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


# --- lifetime and person ----------------------------------------------------------------------------


def test_what_a_person_said_is_found_by_the_person(client: openai.OpenAI, store: Store) -> None:
    made = client.conversations.create(items=user("un"), extra_body={"user": "zoé"})
    answers = [
        client.responses.create(model="any", input=ASKED, max_output_tokens=4, **{name: "zoé"})  # type: ignore[call-overload]
        for name in ("user", "safety_identifier")
    ]
    tenant = store.tenant("local")
    assert [one.id for one in tenant.conversations(user="zoé")] == [made.id]
    assert {one.id for one in tenant.documents("response", user="zoé")} == {one.id for one in answers}


def test_a_response_is_about_whom_what_came_before_it_is_about(client: openai.OpenAI, store: Store) -> None:
    asked: Any = {"model": "any", "input": ASKED, "max_output_tokens": 4}
    conversation = client.conversations.create(extra_body={"user": "léa"})
    made = [client.responses.create(conversation=conversation.id, **asked)]
    made.append(client.responses.create(user="léa", **asked))
    made.append(client.responses.create(previous_response_id=made[-1].id, **asked))
    made.append(client.responses.create(previous_response_id=made[-1].id, **asked))
    tenant = store.tenant("local")
    assert {one.id for one in tenant.documents("response", user="léa")} == {one.id for one in made}


def test_a_response_lives_no_longer_than_the_tenants_conversations(client: openai.OpenAI, store: Store) -> None:
    tenant = store.tenant("local")
    lives = []
    try:
        for lifetime in (None, 60, 10**8):
            tenant.set_lifetime(lifetime)
            made = client.responses.create(model="any", input=ASKED, max_output_tokens=4)
            kept = tenant.get("response", made.id)
            lives.append(round((kept.expires_at or 0) - kept.created_at))
    finally:
        tenant.set_lifetime(None)
    assert lives == [30 * 86400, 60, 30 * 86400]


def test_a_server_sweeps_what_has_expired_again_and_again(tmp_path: Path) -> None:
    now = 1e9
    with open_store("memory:", clock=lambda: now) as store, running(tmp_path, {}, store=store):
        pass  # a server whose first sweep is cut short ends all the same

    async def swept() -> None:
        task = asyncio.ensure_future(sweeping(store, 0))
        for name in ("a", "b"):
            store.tenant(name).create(ttl=1)
            nonlocal now
            now += 1
            async with asyncio.timeout(30):
                while name in store.tenants():
                    await asyncio.sleep(0)
        task.cancel()

    with open_store("memory:", clock=lambda: now) as store:
        asyncio.run(swept())
        assert [line.entry["conversations"] for line in store.trail()] == [1, 1]
        assert {line.entry["who"] for line in store.trail()} == {"server"}


def test_a_running_server_forgets_what_it_has_read(tmp_path: Path) -> None:
    asked: Any = {"model": "any", "input": 10 * ASKED, "max_output_tokens": 2}
    with running(tmp_path, {"any": untrained()}) as server, server.client() as client:

        def known() -> int:
            usage = client.responses.create(**asked).usage
            assert usage is not None
            cached: int = usage.input_tokens_details.cached_tokens
            return cached

        async def forgotten() -> None:
            (loaded,) = server.service.models.loaded
            task = asyncio.ensure_future(forgetting(server.service.models, 0.01))
            async with asyncio.timeout(30):
                while loaded.worker.nbytes:
                    await asyncio.sleep(0)
            task.cancel()

        assert (known(), known() > 0) == (0, True)
        server.do(forgotten())
        assert known() == 0
