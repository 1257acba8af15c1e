"""GET /metrics: what the server does, for Prometheus, under the names that boards for vLLM know.

What vLLM has no name for begins with `plume:`. Labels are names of models that are served, templates of routes and
words from fixed lists, so that no client can make series without end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.responses import PlainTextResponse, Response

from plume.serving.keys import Admin
from plume.serving.record import Record
from plume.serving.service import ServiceDep

if TYPE_CHECKING:
    from plume.serving.models import Models

router = APIRouter(tags=["health"])
_MODEL = ("model_name",)
# Seconds, and tokens: the bounds that vLLM uses, with finer ones below, for small models are quick.
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20)
_WHOLE = (0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_COUNTS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))


class Metrics:
    """The counters of one server; what is a state and not a sum is looked up when Prometheus asks."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_States(models))
        self._http = self._counter("plume:http_requests", "Requests by route.", ("method", "route", "status"))
        self._prompt = self._counter("vllm:prompt_tokens", "Tokens of prompts.")
        self._generated = self._counter("vllm:generation_tokens", "Tokens written.")
        self._success = self._counter(
            "vllm:request_success", "Answers by why they ended.", (*_MODEL, "finished_reason")
        )
        self._ttft = self._seconds("vllm:time_to_first_token", "From arrival to the first token.", _FIRST)
        self._gap = self._seconds("vllm:inter_token_latency", "Between two tokens of an answer.", _TOKEN)
        self._per_token = self._seconds("vllm:request_time_per_output_token", "Mean of a request's gaps.", _TOKEN)
        self._whole = self._seconds("vllm:e2e_request_latency", "From arrival to the last token.", _WHOLE)
        self._queue = self._seconds("vllm:request_queue_time", "In the model's queue.", _WHOLE)
        self._prefill = self._seconds("vllm:request_prefill_time", "From the queue to the first token.", _WHOLE)
        self._decode = self._seconds("vllm:request_decode_time", "From the first token to the last.", _WHOLE)
        self._prompt_sizes = self._histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", _COUNTS)
        self._answer_sizes = self._histogram("vllm:request_generation_tokens", "Tokens of an answer.", _COUNTS)

    def watch_jobs(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report what this says whenever Prometheus asks: how many fine-tuning jobs are in each state."""
        self.registry.register(_Jobs(count))

    def request(self, method: str, route: str, status: int) -> None:
        """A request was answered; `route` is the template of its URL."""
        self._http.labels(method, route, str(status)).inc()

    def answered(self, record: Record) -> None:
        """A model's part in a request is over; what its queue refused had none."""
        model = record.model
        if model is None or not record.tickets:
            return
        self._prompt.labels(model).inc(record.prompt_tokens)
        self._generated.labels(model).inc(record.written)
        for reason in record.finishes.values():
            self._success.labels(model, reason).inc()
        if record.first is None or record.last is None:
            return
        self._ttft.labels(model).observe(record.first - record.arrived)
        if record.accepted is not None and record.begun is not None:
            self._queue.labels(model).observe(record.begun - record.accepted)
            self._prefill.labels(model).observe(record.first - record.begun)
        if "abort" in record.finishes.values():  # times of what was cut short say nothing
            return
        if record.per_token is not None:
            self._per_token.labels(model).observe(record.per_token)
        gap = self._gap.labels(model)
        for ticket in record.tickets:
            for seconds in ticket.gaps:
                gap.observe(seconds)
        self._whole.labels(model).observe(record.last - record.arrived)
        self._decode.labels(model).observe(record.last - record.first)
        self._prompt_sizes.labels(model).observe(record.prompt_tokens)
        self._answer_sizes.labels(model).observe(record.written)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = _MODEL) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, _MODEL, buckets=bounds, registry=self.registry)

    def _seconds(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return self._histogram(f"{name}_seconds", f"Seconds. {text}", bounds)


class _States:
    """How things stand with each loaded model at this moment."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("vllm:num_requests_running", "Answers that are being written.", labels=_MODEL)
        waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Answers that wait to begin.", labels=_MODEL)
        usage = GaugeMetricFamily("vllm:kv_cache_usage_perc", "Used share of the model's cache, 0 to 1.", labels=_MODEL)
        asked = CounterMetricFamily("vllm:prefix_cache_queries", "Tokens of prompts looked for.", labels=_MODEL)
        found = CounterMetricFamily("vllm:prefix_cache_hits", "Tokens of prompts found in the cache.", labels=_MODEL)
        memory = GaugeMetricFamily("plume:model_memory_bytes", "What the model may come to hold.", labels=_MODEL)
        for loaded in self._models.loaded:
            name, worker = [loaded.entry.id], loaded.worker
            running.add_metric(name, worker.running)
            waiting.add_metric(name, worker.waiting)
            usage.add_metric(name, worker.nbytes / worker.capacity_nbytes)
            asked.add_metric(name, worker.prefix_queries)
            found.add_metric(name, worker.prefix_hits)
            memory.add_metric(name, loaded.nbytes)
        yield from (running, waiting, usage, asked, found, memory)


class _Jobs:
    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("plume:fine_tuning_jobs", "Fine-tuning jobs by state.", labels=("status",))
        for status, number in self._count().items():
            jobs.add_metric([status], number)
        yield jobs


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: ServiceDep, caller: Admin) -> Response:  # noqa: ARG001 - it may ask
    """All that the server measures, the names of everybody's models in it, in Prometheus's text format."""
    return Response(generate_latest(service.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})
