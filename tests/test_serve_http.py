"""What holds for every request: errors, keys, limits, sizes and times, clients that go away, and the end."""

import asyncio
import http.client
import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from plume.errors import UserError
from plume.memory import open_store
from plume.memory.keys import create_key, revoke_key
from plume.serving import sse
from plume.serving.app import create_app
from plume.serving.settings import Settings
from plume.types import Chunk
from serving import SECONDS, Running, running, untrained

ASKED: Any = [{"role": "user", "content": "Où est « le phare » ?"}]
ENDLESS: Any = {"model": "any", "messages": ASKED, "logit_bias": {str(untrained().tokenizer.eos_id): -100}}
LONG: Any = {**ENDLESS, "max_tokens": 2000}

Serve = Callable[..., Running]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Servers with settings of their own, ended with the test."""
    ended: list[Any] = []

    def start(**settings: Any) -> Running:
        context = running(tmp_path / str(len(ended)), {"any": untrained()}, **settings)
        ended.append(context)
        return context.__enter__()

    yield start
    for context in reversed(ended):
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings: Any = {"max_body_nbytes": 20_000, "header_seconds": 0.3, "body_seconds": 0.3, "rows": 4, "queue": 4}
    with running(tmp_path_factory.mktemp("http"), {"any": untrained()}, **settings) as server:
        yield server


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error


# --- errors ---


def test_errors_are_of_the_classes_that_clients_know(served: Running) -> None:
    with served.client() as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="nobody", messages=ASKED)
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        assert unknown.value.request_id is not None
        with pytest.raises(openai.BadRequestError) as wrong:
            client.chat.completions.create(model="any", messages=ASKED, extra_body={"verbosity": "low"})
        assert (wrong.value.code, wrong.value.param) == ("unsupported_parameter", "verbosity")
        with pytest.raises(openai.BadRequestError) as bare:
            client.chat.completions.create(model="gpt", messages=ASKED)
        assert bare.value.code == "model_not_trained"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/models/any", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/any", 403, "model_not_yours"),
        ("DELETE", "/v1/models/gpt", 403, "model_not_yours"),
        ("DELETE", "/v1/models/ft:nobody", 404, "model_not_found"),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404, "model_not_found"),
        ("GET", "/tokenizer_info?model=%00", 404, "model_not_found"),
    ],
)
def test_every_refusal_has_the_shape_of_an_error(
    served: Running, method: str, path: str, status: int, code: str
) -> None:
    answer = httpx.request(method, served.url + path)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"\xff", b'{"model": "any", "messages": NaN}', b"[" * 9000, b'{"model": "\\ud800"}'],
)
def test_what_is_no_request_is_refused(served: Running, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{served.url}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    error_of(answer)


def test_a_fault_of_the_server_shows_no_traceback(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fails(name: str, tenant: str) -> None:
        raise RuntimeError(f"the secret place of {name}, {tenant}")

    monkeypatch.setattr(served.service.models, "open", fails)
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"model": "any", "messages": ASKED})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert error_of(answer)["code"] == "internal_error"
    assert answer.headers["x-should-retry"] == "false"
    assert "secret place" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


def test_a_model_that_fails_ends_its_answers_with_an_error_and_goes_on(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.client() as client:
        client.chat.completions.create(model="any", messages=ASKED)
        (loaded,) = served.service.models.loaded

        def fails() -> None:
            raise MemoryError("no memory")

        with monkeypatch.context() as patched:
            patched.setattr(loaded.worker._batch, "step", fails)
            with pytest.raises(openai.InternalServerError, match="model failed"):
                client.chat.completions.create(model="any", messages=ASKED)
            stream = client.chat.completions.create(model="any", messages=ASKED, stream=True)
            with stream, pytest.raises(openai.APIError, match="model failed"):
                list(stream)
            loaded.worker._batch.__init__(  # type: ignore[misc]
                loaded.bundle, rows=4, cache_nbytes=2**24, prefix_nbytes=0
            )
        assert client.chat.completions.create(model="any", messages=ASKED).choices[0].message.content is not None


# --- keys ---


def test_on_this_machine_any_key_is_taken_and_none_too(served: Running) -> None:
    with served.client("whatever") as client:
        assert client.models.list().data
    for header in ({}, {"authorization": "Bearer"}, {"authorization": "Basic x"}):
        assert httpx.get(f"{served.url}/v1/models", headers=header).status_code == 200


def test_where_a_key_is_needed_only_a_known_one_opens(serve: Serve) -> None:
    store = open_store("memory:")
    secret, key = create_key(store, "anna")
    reading, _ = create_key(store, "bert", scopes=["read"])
    served = serve(store=store, require_key=True)
    with served.client(secret) as client:
        assert client.chat.completions.create(model="any", messages=ASKED).choices
    with served.client(reading) as client:
        assert client.models.retrieve("any").id == "any"
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model="any", messages=ASKED)
        assert refused.value.code == "insufficient_scope"
    for wrong in ("any", secret[:-1] + "x", secret + "x", "plume-0-0"):
        with served.client(wrong) as client, pytest.raises(openai.AuthenticationError) as refused_key:
            client.models.list()
        assert refused_key.value.code == "invalid_api_key"
    answer = httpx.get(f"{served.url}/v1/models")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.get(f"{served.url}/healthz").status_code == 200
    revoke_key(store, key.prefix)
    with served.client(secret) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.mark.parametrize(
    ("host", "needs"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True), ("box", True)],
)
def test_beyond_this_machine_keys_are_needed(host: str, needs: bool) -> None:
    assert Settings(host=host).needs_key is needs
    assert Settings(host=host, require_key=True).needs_key


def test_pages_from_elsewhere_are_not_answered(served: Running) -> None:
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}, {"origin": "null"}):
        answer = httpx.get(f"{served.url}/v1/models", headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{served.url}/v1/chat/completions", headers=asked)
    assert answer.status_code == 403
    assert httpx.get(f"{served.url}/v1/models", headers={"origin": served.url}).status_code == 200
    plain = httpx.post(
        f"{served.url}/v1/chat/completions", content=json.dumps(LONG), headers={"content-type": "text/plain"}
    )
    assert plain.status_code == 400  # what a page may send without asking first


# --- limits ---


def refusal_of(ask: Callable[[], Any]) -> openai.RateLimitError:
    """What the limit says at last; a minute may end in between, hence the many times."""
    for _ in range(8):
        try:
            ask()
        except openai.RateLimitError as error:
            return error
    pytest.fail("there is no limit")


def test_too_many_requests_a_minute_are_put_off(serve: Serve) -> None:
    store = open_store("memory:")
    (anna, _), (bert, _) = create_key(store, "anna"), create_key(store, "bert")
    served = serve(store=store, requests_per_minute=3)
    with served.client(anna) as client:
        client.models.list()
        refused = refusal_of(client.models.list)
    headers = refused.response.headers
    assert 1 <= int(headers["retry-after"]) <= 61
    assert 0 < int(headers["retry-after-ms"]) <= 60_000
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    with served.client(bert) as client:
        assert client.models.list().data


def test_too_many_tokens_a_minute_are_put_off(serve: Serve) -> None:
    served = serve(tokens_per_minute=100)
    with served.client() as client:
        client.chat.completions.create(**{**LONG, "max_tokens": 500})  # begun within the limit, and not cut for it
        refused = refusal_of(partial(client.chat.completions.create, **{**LONG, "max_tokens": 80}))
        assert refused.response.headers["x-ratelimit-limit-tokens"] == "100"
        with pytest.raises(openai.RateLimitError) as never:
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": "x " * 200}])
        assert never.value.response.headers["x-should-retry"] == "false"


def test_a_full_queue_puts_off_and_the_client_comes_back_by_itself(served: Running) -> None:
    async def crowd() -> None:
        async with served.asynchronous() as client:
            streams = [await client.chat.completions.create(**LONG, stream=True) for _ in range(8)]
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(**LONG)
            assert refused.value.code == "queue_full"
            assert int(refused.value.response.headers["retry-after"]) >= 1
            assert int(refused.value.response.headers["retry-after-ms"]) >= 1
            patient = client.with_options(max_retries=5)
            waiting = asyncio.ensure_future(patient.chat.completions.create(model="any", messages=ASKED))
            for stream in streams:
                await stream.close()
            assert (await waiting).choices

    asyncio.run(crowd())
    served.until(lambda: served.outstanding == 0)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused(served: Running, declared: bool) -> None:
    large = json.dumps({"model": "any", "messages": [{"role": "user", "content": "x" * 30_000}]}).encode()
    content: Any = large if declared else iter([large[at : at + 1000] for at in range(0, len(large), 1000)])
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{served.url}/v1/chat/completions", content=content, headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")


def test_an_answer_may_take_so_long_and_no_longer(serve: Serve) -> None:
    served = serve(request_seconds=0.2)
    with served.client(max_retries=3) as client:
        with pytest.raises(openai.InternalServerError) as late:
            client.chat.completions.create(**LONG)
        assert (late.value.status_code, late.value.code) == (504, "timeout")
        stream = client.chat.completions.create(**LONG, stream=True)
        with stream, pytest.raises(openai.APIError, match="more than"):
            list(stream)
    served.until(lambda: served.outstanding == 0)


# --- clients that say little or go away ---


def test_headers_that_do_not_come_close_the_connection(served: Running) -> None:
    for begun in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "):
        with closing(socket.create_connection(("127.0.0.1", served.port), SECONDS)) as connection:
            connection.sendall(begun)
            assert connection.recv(1000) == b""


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_client_that_drips_is_not_waited_for(served: Running, part: str) -> None:
    """Slow-loris: a byte now and then keeps nothing open, because the time is that of the whole."""
    begun = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "
    if part == "body":
        begun += b"no\r\ncontent-type: application/json\r\ncontent-length: 10000\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", served.port), SECONDS)) as connection:
        connection.sendall(begun)
        for _ in range(50 * SECONDS):
            if select.select([connection], [], [], 0.02)[0]:
                break
            connection.sendall(b" ")
        else:
            pytest.fail("it is still waited for")
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408" if part == "body" else b"")
    assert bool(answer) == (part == "body")
    assert httpx.get(f"{served.url}/healthz").status_code == 200


def test_what_is_no_http_is_told_so(served: Running) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port), SECONDS)) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = connection.recv(10_000).decode()
    assert answer.startswith("HTTP/1.1 400")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_half_a_body_is_not_waited_for(served: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
    with closing(connection):
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", "1000")
        connection.endheaders(b'{"model": ')
        answer = connection.getresponse()
        assert answer.status == 408
        assert answer.getheader("connection") == "close"
        assert json.loads(answer.read())["error"]["code"] == "request_timeout"
    assert httpx.get(f"{served.url}/healthz").status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_decoding_stops_when_nobody_listens_any_more(served: Running, stream: bool) -> None:
    body = json.dumps({**LONG, "stream": stream}).encode()
    lines = ("POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", "content-type: application/json")
    head = "".join(f"{line}\r\n" for line in (*lines, f"content-length: {len(body)}", ""))
    with closing(socket.create_connection(("127.0.0.1", served.port), SECONDS)) as connection:
        connection.sendall(head.encode() + body)
        served.until(lambda: any(loaded.worker.running for loaded in served.service.models.loaded))
        (ticket,) = [ticket for loaded in served.service.models.loaded for ticket in loaded.worker._open]
    served.until(lambda: served.outstanding == 0)
    (loaded,) = served.service.models.loaded
    assert ticket.written < 1900
    served.do(loaded.worker.run(lambda: None))  # a turn of the thread later, no row of it is left
    assert (loaded.worker.running, loaded.worker.waiting) == (0, 0)


def test_a_storm_of_disconnects_leaves_nothing_behind(served: Running) -> None:
    async def storm() -> None:
        async with served.asynchronous(max_retries=0) as client:
            for _ in range(5):
                opened = await asyncio.gather(
                    *(client.chat.completions.create(**LONG, stream=True) for _ in range(12)), return_exceptions=True
                )
                for stream in opened:
                    if isinstance(stream, openai.AsyncStream):
                        await stream.close()

    asyncio.run(storm())
    served.until(lambda: served.outstanding == 0 and served.service.active == 0)
    with served.client() as client:
        assert client.chat.completions.create(model="any", messages=ASKED).choices


# --- the end ---


def test_what_is_under_way_comes_to_its_end_and_nothing_new_begins(serve: Serve) -> None:
    served = serve()
    with served.client(max_retries=2) as client:
        with client.chat.completions.create(**{**LONG, "max_tokens": 700}, stream=True) as stream:
            next(iter(stream))
            served.loop.call_soon_threadsafe(served.server.stop)
            served.until(served.service.draining.is_set)
            refused = httpx.post(f"{served.url}/v1/chat/completions", json=LONG)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "shutting_down")
            assert refused.headers["x-should-retry"] == "false"
            assert httpx.get(f"{served.url}/readyz").status_code == 503
            assert httpx.get(f"{served.url}/healthz").status_code == 200
            rest = list(stream)
        assert rest[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [True, False])
def test_what_takes_too_long_is_ended_with_an_error(serve: Serve, stream: bool) -> None:
    served = serve(drain_seconds=0.1)

    async def ask() -> None:
        async with served.asynchronous(max_retries=2) as client:
            if stream:
                chunks = await client.chat.completions.create(**LONG, stream=True)
                await anext(aiter(chunks))
                served.loop.call_soon_threadsafe(served.server.stop)
                with pytest.raises(openai.APIError) as cut:
                    async for _ in chunks:
                        pass
                assert cut.value.code == "shutting_down"
            else:
                asking = asyncio.ensure_future(client.chat.completions.create(**LONG))
                await asyncio.to_thread(served.until, lambda: served.outstanding == 1)
                served.loop.call_soon_threadsafe(served.server.stop)
                with pytest.raises(openai.InternalServerError) as refused:
                    await asking
                assert (refused.value.status_code, refused.value.code) == (503, "shutting_down")

    asyncio.run(ask())


# --- the rest ---


def test_silence_is_filled_with_comments_that_clients_pass_over(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(ping_seconds=0.02)
    with served.client() as client:
        client.chat.completions.create(model="any", messages=ASKED)
        (loaded,) = served.service.models.loaded
        step, gate = loaded.worker._batch.step, threading.Event()

        def slow() -> list[tuple[int, Chunk]]:
            gate.wait(SECONDS)
            return step()  # type: ignore[return-value]

        monkeypatch.setattr(loaded.worker._batch, "step", slow)
        body = {"model": "any", "messages": ASKED, "stream": True}
        with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert any(line == ": ping" for line in lines)
            gate.set()
            assert "data: [DONE]" in list(lines)


def test_capabilities_list_what_is_honoured(served: Running) -> None:
    told = httpx.get(f"{served.url}/v1/capabilities").json()
    endpoints = {(one["method"], one["path"]): one["parameters"] for one in told["endpoints"]}
    assert {"messages", "tools", "response_format", "top_k"} <= set(endpoints["POST", "/v1/chat/completions"])
    assert "suffix" not in endpoints["POST", "/v1/completions"]
    assert ("GET", "/v1/models/{model}") in endpoints
    assert {"file", "purpose"} <= set(endpoints["POST", "/v1/files"])
    assert "enum" in told["json_schema"]["keywords"]
    assert told["limits"]["max_body_bytes"] == 20_000


def test_a_log_line_says_what_was_asked_of_whom_and_never_what(served: Running, caplog: Any) -> None:
    caplog.set_level("INFO", "plume.serving.requests")
    secret = "a very particular question"
    body = {"model": "any", "messages": [{"role": "user", "content": secret}], "max_tokens": 3}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body)
    served.until(lambda: served.service.active == 0)
    (record,) = [
        one for one in caplog.records if getattr(one, "fields", {}).get("request_id") == answer.headers["x-request-id"]
    ]
    assert record.fields["model"] == "any"
    assert record.fields["status"] == 200
    assert record.fields["completion_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert secret not in json.dumps(record.fields)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"queue": -1}, {"requests_per_minute": 0}, {"request_seconds": 0}])
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        create_app(Settings(data_dir=tmp_path, **wrong), open_store("memory:"))


def test_an_event_is_one_line_for_whoever_splits_lines() -> None:
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"
    data = sse.event(json.dumps({"text": text}, ensure_ascii=False)).removesuffix("\n\n")
    assert len(data.splitlines()) == 1
    assert json.loads(data.removeprefix("data: ")) == {"text": text}
