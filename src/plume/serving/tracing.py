"""Traces and metrics over OTLP/HTTP, by OpenTelemetry's conventions for generative AI. Nothing that was said leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource, get_aggregated_resources
from opentelemetry.sdk.resources import OTELResourceDetector as Environment
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from plume.serving import genai
from plume.serving.record import Record

_SCOPE = "plume.serving"
_PROVIDER = "plume"
Value = str | int | float | bool | list[str]


class Tracing:
    """Sends to the collector at `endpoint`, from threads of its own; what the variables OTEL_* say besides holds."""

    def __init__(self, endpoint: str, version: str) -> None:
        base = endpoint.rstrip("/")
        named = Resource({SERVICE_NAME: "plume", "service.version": version})
        resource = get_aggregated_resources([Environment()], named)
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{base}/v1/traces")))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{base}/v1/metrics"))
        self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._tracer = self._traces.get_tracer(_SCOPE, version, schema_url=genai.SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()
        meter = self._meters.get_meter(_SCOPE, version, schema_url=genai.SCHEMA_URL)

        def histogram(name: str, unit: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram(genai.DURATION, "s", genai.DURATION_BOUNDS)
        self._first = histogram(genai.TIME_TO_FIRST_TOKEN, "s", genai.FIRST_BOUNDS)
        self._per_token = histogram(genai.TIME_PER_OUTPUT_TOKEN, "s", genai.TOKEN_BOUNDS)
        self._tokens = histogram(genai.TOKENS, "{token}", genai.TOKENS_BOUNDS)

    def answered(self, record: Record, headers: Mapping[str, str], route: str, status: int) -> None:
        """A request is over; those of models become a span, a child of what its `traceparent` says, and figures."""
        operation = genai.OPERATIONS.get(route)
        if operation is None:
            return
        now, seconds = time.time_ns(), time.monotonic() - record.arrived
        attributes: dict[str, Value] = {genai.OPERATION: operation, genai.PROVIDER: _PROVIDER}
        if record.model is not None:
            attributes |= {genai.REQUEST_MODEL: record.model, genai.RESPONSE_MODEL: record.model}
        fault = _fault(record, status)
        if fault is not None:
            attributes[genai.ERROR_TYPE] = fault
        self._measure(record, attributes, seconds)
        span = self._tracer.start_span(
            f"{operation} {record.model}" if record.model else operation,
            self._propagator.extract(headers),
            SpanKind.SERVER,
            {**attributes, **_asked(record), **_told(record), genai.HTTP_ROUTE: route, genai.HTTP_STATUS: status},
            start_time=now - int(seconds * 1e9),
        )
        if fault is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def close(self) -> None:
        """Send what is left. Takes no longer than the exporters' own time limits."""
        self._traces.shutdown()
        self._meters.shutdown()

    def _measure(self, record: Record, attributes: Mapping[str, Value], seconds: float) -> None:
        self._duration.record(seconds, attributes)
        if record.first is None or genai.ERROR_TYPE in attributes:
            return
        self._first.record(record.first - record.arrived, attributes)
        if record.per_token is not None:
            self._per_token.record(record.per_token, attributes)
        self._tokens.record(record.prompt_tokens, {**attributes, genai.TOKEN_TYPE: "input"})
        self._tokens.record(record.written, {**attributes, genai.TOKEN_TYPE: "output"})


def _fault(record: Record, status: int) -> str | None:
    if status >= 400:
        return str(status)
    return "abort" if "abort" in record.finishes.values() else None


def _asked(record: Record) -> dict[str, Value]:
    sampling = record.sampling
    if sampling is None:
        return {}
    return {
        genai.REQUEST_CHOICES: sampling.n,
        genai.REQUEST_FREQUENCY_PENALTY: sampling.frequency_penalty,
        genai.REQUEST_MAX_TOKENS: sampling.max_new_tokens,
        genai.REQUEST_PRESENCE_PENALTY: sampling.presence_penalty,
        genai.REQUEST_SEED: sampling.seed,
        genai.REQUEST_STREAM: record.streamed,
        genai.REQUEST_TEMPERATURE: sampling.temperature,
        genai.REQUEST_TOP_K: sampling.top_k,
        genai.REQUEST_TOP_P: sampling.top_p,
    }


def _told(record: Record) -> dict[str, Value]:
    if record.sampling is None:
        return {}
    told: dict[str, Value] = {
        genai.RESPONSE_FINISH_REASONS: [reason for _, reason in sorted(record.finishes.items())],
        genai.USAGE_INPUT_TOKENS: record.prompt_tokens,
        genai.USAGE_OUTPUT_TOKENS: record.written,
    }
    if record.first is not None and record.streamed:
        told[genai.RESPONSE_TIME_TO_FIRST_CHUNK] = record.first - record.arrived
    return told
