"""One key creates once, whoever asks twice: with OpenAI's own client, which sends the key when it is told to."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from plume.memory import open_store
from plume.memory.keys import create_key
from plume.memory.store import LOCAL
from plume.serving.idempotency import digest_of
from plume.serving.items import MessageItem
from serving import Running, running, untrained

KEY = "2f1c0a"
SAID: Any = {"type": "message", "role": "user", "content": "Où est le phare ?"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("once"), {"any": untrained()}) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def keyed(key: str = KEY) -> Any:
    return {"extra_headers": {"Idempotency-Key": key}}


def file(client: openai.OpenAI, content: bytes = b"{}\n", name: str = "a.jsonl", **more: Any) -> Any:
    return client.files.create(file=(name, content), purpose="batch", **more)


def conversation(client: openai.OpenAI, text: str = "a", **more: Any) -> Any:
    return client.conversations.create(items=[SAID], metadata={"about": text}, **more)


def response(client: openai.OpenAI, text: str = "a", **more: Any) -> Any:
    return client.responses.create(model="any", input=text, max_output_tokens=4, temperature=1, **more)


MAKERS: list[tuple[Callable[..., Any], Any]] = [(file, b"[]\n"), (conversation, "b"), (response, "b")]
NAMES = ["file", "conversation", "response"]


@pytest.mark.parametrize(("make", "other"), MAKERS, ids=NAMES)
def test_the_same_request_gives_the_same_object(client: openai.OpenAI, make: Callable[..., Any], other: Any) -> None:
    key = keyed(make.__name__)
    first = make(client, **key)
    assert make(client, **key).to_dict() == first.to_dict()
    with pytest.raises(openai.BadRequestError) as refused:
        make(client, other, **key)
    assert (refused.value.code, refused.value.param) == ("idempotency_key_reused", "Idempotency-Key")
    assert first.id in refused.value.message
    ids = {first.id, make(client, **keyed(f"another {make.__name__}")).id, make(client).id, make(client).id}
    assert len(ids) == 4


@pytest.mark.parametrize(("make", "other"), MAKERS, ids=NAMES)
def test_requests_at_one_moment_create_one_thing(served: Running, make: Callable[..., Any], other: Any) -> None:
    with served.client() as client, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(client, other, **keyed(f"at once {make.__name__}")), range(8)))
    assert len({one.id for one in made}) == 1


def test_one_key_is_for_one_kind_of_thing_in_the_store(client: openai.OpenAI) -> None:
    conversation(client, **keyed("both"))
    with pytest.raises(openai.BadRequestError):
        response(client, **keyed("both"))


def test_a_file_is_stored_once(client: openai.OpenAI) -> None:
    content, before = b"{}\n" * 3, len(list(client.files.list()))
    made = {file(client, content, **keyed("once")).id for _ in range(3)}
    assert len(made) == 1
    assert len(list(client.files.list())) == before + 1
    for other, name in ((content[:3], "a.jsonl"), (content, "b.jsonl")):
        with pytest.raises(openai.BadRequestError):
            file(client, other, name, **keyed("once"))
    client.files.delete(made.copy().pop())
    assert file(client, content, **keyed("once")).id not in made


def test_items_are_added_once(client: openai.OpenAI) -> None:
    id = conversation(client).id
    added = [client.conversations.items.create(id, items=[SAID, SAID], **keyed("items")) for _ in range(3)]
    assert added[0].data == added[2].data
    assert len(list(client.conversations.items.list(id))) == 3
    for where, items in ((id, [SAID]), (conversation(client).id, [SAID, SAID])):
        with pytest.raises(openai.BadRequestError):
            client.conversations.items.create(where, items=items, **keyed("items"))


def test_a_conversation_goes_on_once(client: openai.OpenAI) -> None:
    id = conversation(client).id
    made = [response(client, "b", conversation=id, **keyed("turn")) for _ in range(3)]
    assert len({one.output_text for one in made}) == 1
    assert len(list(client.conversations.items.list(id))) == 3


def test_a_key_that_could_not_be_honoured_is_refused(client: openai.OpenAI) -> None:
    changes: list[Any] = [{"stream": True}, {"store": False}]
    for change in changes:
        with pytest.raises(openai.BadRequestError) as refused:
            response(client, **change, **keyed("never"))
        assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "Idempotency-Key")


def test_what_is_kept_of_a_request_goes_with_the_person_and_tells_nothing(tmp_path: Path) -> None:
    with open_store("memory:") as store, running(tmp_path, {"any": untrained()}, store=store) as server:
        with server.client() as client:
            asked: Any = {"items": [SAID], "extra_body": {"user": "zoé"}}
            id = client.conversations.create(**asked, **keyed("made")).id
            client.conversations.items.create(id, items=[SAID], **keyed("more"))
            response(client, "phare", user="zoé", **keyed("one"))
            response(client, "phare", safety_identifier="zoé", **keyed("two"))
        tenant = store.tenant(LOCAL)
        kept = [one.body for one in tenant.documents("idempotency_key")]
        assert [one.user for one in tenant.documents("idempotency_key")] == ["zoé"] * 4
        said = {"path": id, "items": [MessageItem.model_validate(SAID).model_dump()]}
        assert not {digest_of(said), digest_of({})} & {body["request"] for body in kept}
        assert len({body["request"] for body in kept}) == 4
        tenant.erase("zoé")
        assert not tenant.kinds()


def test_keys_belong_to_a_tenant(tmp_path: Path) -> None:
    with (
        open_store("memory:") as store,
        running(tmp_path, {"any": untrained()}, store=store, require_key=True) as server,
    ):
        secrets = [create_key(store, tenant, scopes=["admin"])[0] for tenant in ("ours", "theirs")]
        with server.client(secrets[0]) as ours, server.client(secrets[1]) as theirs:
            for make, other in MAKERS:
                assert make(ours, **keyed(make.__name__)).id != make(theirs, other, **keyed(make.__name__)).id
