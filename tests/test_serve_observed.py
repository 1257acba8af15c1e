"""What a server tells of itself: metrics for Prometheus, traces for OpenTelemetry, lines for the log."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from plume.memory import open_store
from plume.memory.keys import create_key
from plume.serving import logs
from plume.serving.genai import SCHEMA_URL
from serving import FIND, SECONDS, Running, caller, running, untrained

SECRET = "la clé de la porte est sous le pot bleu, à gauche"
ASKED: Any = [{"role": "user", "content": f"Où est « le phare » ? {SECRET}"}]
ENDLESS: Any = {"logit_bias": {str(untrained().tokenizer.eos_id): -100}}
DASHBOARD = Path(__file__).parents[1] / "examples" / "grafana.json"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("seen"), {"any": untrained(), "caller": caller()}, rows=4, queue=4) as server:
        yield server


def figures(served: Running, **headers: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, as Prometheus's own parser reads them."""
    answer = httpx.get(f"{served.url}/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def grown(served: Running, before: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    now = figures(served)
    return {name: now[name] - before.get(name, 0) for name in now if now[name] != before.get(name, 0)}


# --- metrics ---


def test_an_answer_is_counted_and_timed(served: Running) -> None:
    with served.client() as client:
        client.chat.completions.create(model="any", messages=ASKED)
        before = figures(served)
        usage = client.chat.completions.create(model="any", messages=ASKED, n=2, max_tokens=9, **body(ENDLESS)).usage
    assert usage is not None
    more = grown(served, before)
    assert more["vllm:prompt_tokens_total", "any"] == usage.prompt_tokens
    assert more["vllm:generation_tokens_total", "any"] == usage.completion_tokens == 18
    assert more["vllm:request_success_total", "length", "any"] == 2
    assert more["plume:http_requests_total", "POST", "/v1/chat/completions", "200"] == 1
    assert more["vllm:inter_token_latency_seconds_count", "any"] == 16
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time", "request_prefill_time"):
        assert more[f"vllm:{name}_seconds_count", "any"] == 1
    whole = more["vllm:e2e_request_latency_seconds_sum", "any"]
    parts = ("request_queue_time", "request_prefill_time", "request_decode_time")
    assert 0 < sum(more[f"vllm:{part}_seconds_sum", "any"] for part in parts) <= whole
    assert more["vllm:time_to_first_token_seconds_sum", "any"] < whole
    # The second time the prompt was known, but for its last token.
    assert more["vllm:prefix_cache_queries_total", "any"] == usage.prompt_tokens
    assert more["vllm:prefix_cache_hits_total", "any"] == usage.prompt_tokens - 1


def body(extra: dict[str, Any]) -> dict[str, Any]:
    return {"extra_body": extra}


def test_what_runs_and_what_waits_is_seen_while_it_does(served: Running) -> None:
    with served.client() as client:
        stream = client.chat.completions.create(
            model="any", messages=ASKED, n=4, stream=True, max_tokens=1900, **body(ENDLESS)
        )
        second = client.chat.completions.create(
            model="any", messages=ASKED, stream=True, max_tokens=1900, **body(ENDLESS)
        )
        with stream, second:
            next(iter(stream))
            served.until(lambda: any(loaded.worker.running for loaded in served.service.models.loaded))
            now = figures(served)
            assert now["vllm:num_requests_running", "any"] == 4
            assert now["vllm:num_requests_waiting", "any"] == 1
            assert 0 < now["vllm:kv_cache_usage_perc", "any"] <= 1
            assert now["plume:model_memory_bytes", "any"] > 0
        before = now
        served.until(lambda: served.outstanding == 0)
    more = grown(served, before)
    assert more["vllm:num_requests_running", "any"] == -4
    assert more["vllm:request_success_total", "abort", "any"] == 5
    assert ("vllm:e2e_request_latency_seconds_count", "any") not in more


def test_what_the_queue_refuses_is_no_answer(served: Running) -> None:
    asked: Any = {"model": "any", "messages": ASKED, "n": 4, "stream": True, "max_tokens": 1900, **body(ENDLESS)}
    with served.client() as client:
        with client.chat.completions.create(**asked), client.chat.completions.create(**asked):
            before = figures(served)
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(model="any", messages=ASKED)
            more = grown(served, before)
        served.until(lambda: served.outstanding == 0)
    assert more["plume:http_requests_total", "POST", "/v1/chat/completions", "429"] == 1
    assert ("vllm:prompt_tokens_total", "any") not in more


def test_a_call_is_one_answer_however_it_is_decoded(served: Running) -> None:
    with served.client() as client:
        client.models.list()
        before = figures(served)
        answer = client.chat.completions.create(
            model="caller", messages=[{"role": "user", "content": "Where is the boat?"}], tools=[FIND], temperature=0
        )
    assert answer.choices[0].finish_reason == "tool_calls"
    more = grown(served, before)
    assert more["vllm:request_success_total", "tool_calls", "caller"] == 1
    assert more["vllm:e2e_request_latency_seconds_count", "caller"] == 1
    assert answer.usage is not None
    assert more["vllm:generation_tokens_total", "caller"] == answer.usage.completion_tokens


def test_no_client_can_make_series_without_end(served: Running) -> None:
    figures(served)
    before = figures(served)
    for number in range(3):
        httpx.get(f"{served.url}/nowhere/{number}")
        httpx.request("PROPFIND", f"{served.url}/v1/models")
        httpx.post(f"{served.url}/v1/chat/completions", json={"model": f"m{number}", "messages": ASKED})
        httpx.get(f"{served.url}/v1/models/nobody-{number}")
    new = {name for name in grown(served, before) if name[0] == "plume:http_requests_total"}
    assert {name[1:] for name in new} == {
        ("GET", "unknown", "404"),
        ("other", "/v1/models", "405"),
        ("POST", "/v1/chat/completions", "404"),
        ("GET", "/v1/models/{model:path}", "404"),
        ("GET", "/metrics", "200"),
    }


def test_jobs_are_told_by_state(served: Running) -> None:
    served.service.metrics.watch_jobs(lambda: {"running": 1, "succeeded": 3})
    now = figures(served)
    assert now["plume:fine_tuning_jobs", "running"] == 1
    assert now["plume:fine_tuning_jobs", "succeeded"] == 3


def test_figures_are_for_whoever_runs_the_server(tmp_path: Path) -> None:
    store = open_store("memory:")
    reading, running_it = (create_key(store, "anna", scopes=[scope])[0] for scope in ("read", "admin"))
    with running(tmp_path, {"any": untrained()}, store=store, require_key=True) as served:
        assert httpx.get(f"{served.url}/metrics").status_code == 401
        refused = httpx.get(f"{served.url}/metrics", headers={"authorization": f"Bearer {reading}"})
        assert refused.status_code == 403  # they name the models of every tenant
        assert figures(served, authorization=f"Bearer {running_it}")


def test_the_dashboard_asks_for_figures_that_there_are(served: Running) -> None:
    with served.client() as client:
        client.chat.completions.create(model="any", messages=ASKED)
    families = {name[0] for name in figures(served)} | {"plume:fine_tuning_jobs"}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked = {name for expression in expressions for name in re.findall(r"(?:vllm:|plume:|process_)\w+", expression)}
    assert len(asked) > 12
    assert asked <= families
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)


# --- traces ---


@contextmanager
def collector() -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """An OpenTelemetry collector that keeps what it is sent, by path."""
    got: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got[self.path].append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join(SECONDS)
        server.server_close()


def attributes(values: Any) -> dict[str, Any]:
    """OTLP's attributes as a dictionary."""
    plain = {}
    for one in values:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        plain[one.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return plain


def test_traces_and_figures_reach_the_collector_without_what_was_said(tmp_path: Path) -> None:
    with collector() as (url, got):
        with running(tmp_path, {"any": untrained()}, otlp_endpoint=url) as served, served.client() as client:
            trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            whole = client.chat.completions.create(
                model="any", messages=ASKED, temperature=0.5, seed=7, max_tokens=5, extra_headers=trace
            )
            text = whole.choices[0].message.content or ""
            assert list(client.completions.create(model="any", prompt=SECRET, stream=True, max_tokens=4))
            client.models.list()
            httpx.post(f"{served.url}/v1/chat/completions", json={"model": SECRET, "messages": ASKED})
        sent = b"".join(got["/v1/traces"] + got["/v1/metrics"])
    for said in (SECRET, "phare", text):
        assert said.encode() not in sent
    traces = [ExportTraceServiceRequest.FromString(one) for one in got["/v1/traces"]]
    scopes = [scope for one in traces for resource in one.resource_spans for scope in resource.scope_spans]
    assert {scope.schema_url for scope in scopes} == {SCHEMA_URL}
    resource = attributes(traces[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "plume"
    chat, completion, refused = (span for scope in scopes for span in scope.spans)
    told = attributes(chat.attributes)
    assert (chat.name, chat.kind) == ("chat any", chat.SPAN_KIND_SERVER)
    assert chat.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert chat.parent_span_id.hex() == "b7ad6b7169203331"
    assert chat.end_time_unix_nano > chat.start_time_unix_nano
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "plume"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "any"
    assert (told["gen_ai.request.temperature"], told["gen_ai.request.seed"]) == (0.5, 7)
    assert whole.usage is not None
    assert told["gen_ai.usage.input_tokens"] == whole.usage.prompt_tokens
    assert told["gen_ai.usage.output_tokens"] == whole.usage.completion_tokens
    assert told["gen_ai.response.finish_reasons"] == [whole.choices[0].finish_reason]
    assert "gen_ai.response.time_to_first_chunk" not in told
    streamed = attributes(completion.attributes)
    assert completion.name == "text_completion any"
    assert streamed["gen_ai.request.stream"] is True
    assert streamed["gen_ai.response.time_to_first_chunk"] > 0
    assert completion.trace_id != chat.trace_id
    assert (refused.name, attributes(refused.attributes)["error.type"]) == ("chat", "404")
    assert refused.status.code == refused.status.STATUS_CODE_ERROR
    points = measured(got["/v1/metrics"])
    assert points["gen_ai.server.request.duration", "chat", ""] == 2
    assert points["gen_ai.server.time_to_first_token", "chat", ""] == 1
    assert points["gen_ai.server.time_per_output_token", "text_completion", ""] == 1
    assert points["gen_ai.client.token.usage", "chat", "input"] == 1
    assert points["gen_ai.client.token.usage", "text_completion", "output"] == 1


def measured(sent: list[bytes]) -> dict[tuple[str, str, str], int]:
    """How often each histogram was fed, by operation and kind of token, at the last export."""
    points: dict[tuple[str, str, str], int] = {}
    for resource in ExportMetricsServiceRequest.FromString(sent[-1]).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.histogram.data_points:
                    told = attributes(point.attributes)
                    name = (metric.name, told["gen_ai.operation.name"], told.get("gen_ai.token.type", ""))
                    points[name] = points.get(name, 0) + point.count
    return points


def test_a_collector_that_is_away_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds
    with collector() as (url, _):
        pass
    with running(tmp_path, {"any": untrained()}, otlp_endpoint=url) as served, served.client() as client:
        assert client.chat.completions.create(model="any", messages=ASKED).choices


# --- the log ---


def test_lines_of_the_log_are_json_and_hold_nothing_that_was_said(served: Running) -> None:
    with capturing() as lines, served.client() as client:
        answer = client.chat.completions.create(model="any", messages=ASKED, max_tokens=6, **body(ENDLESS))
        unknown = httpx.post(f"{served.url}/v1/chat/completions", json={"model": SECRET, "messages": ASKED})
        httpx.get(f"{served.url}/{SECRET}")
    assert SECRET not in lines.getvalue()
    assert (answer.choices[0].message.content or "") not in lines.getvalue()
    first, second, third = [json.loads(line) for line in lines.getvalue().splitlines() if '"request_id"' in line]
    assert answer.usage is not None
    assert first["request_id"] == answer._request_id
    assert first["message"] == "POST /v1/chat/completions 200"
    assert (first["level"], first["logger"]) == ("info", "plume.serving.requests")
    assert first["time"].endswith("+00:00")
    assert (first["model"], first["status"], first["finish_reasons"]) == ("any", 200, ["length"])
    assert first["prompt_tokens"] == answer.usage.prompt_tokens
    assert first["completion_tokens"] == 6
    assert 0 <= first["queue_ms"] <= first["first_token_ms"] <= first["ms"]
    assert second["request_id"] == unknown.headers["x-request-id"]
    assert "model" not in second
    assert (third["route"], third["status"]) == ("unknown", 404)


def test_a_fault_stands_in_the_log_as_one_line(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: str) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(served.service.models, "open", fails)
    with capturing() as lines:
        answer = httpx.post(f"{served.url}/v1/chat/completions", json={"model": "any", "messages": ASKED})
    (fault,) = [line for line in map(json.loads, lines.getvalue().splitlines()) if line["level"] == "error"]
    assert "RuntimeError: the disk is gone" in fault["exception"]
    assert answer.headers["x-request-id"] in fault["message"]


@contextmanager
def capturing() -> Iterator[io.StringIO]:
    """What the server would write on standard error."""
    lines, root, plume = io.StringIO(), logging.getLogger(), logging.getLogger("plume")
    before = (root.handlers[:], root.level, plume.level)
    root.handlers.clear()
    logs.write_to(lines)
    try:
        yield lines
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        plume.setLevel(before[2])
