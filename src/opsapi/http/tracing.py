"""OpenTelemetry traces: a server span a request, only where an OTLP endpoint is configured.

Attributes follow the HTTP semantic conventions (https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
"""

from importlib.metadata import version
from typing import Any

from opentelemetry.context import attach
from opentelemetry.trace import set_span_in_context

from opsapi.http.exchange import Answer, Exchange
from opsapi.http.settings import TracingSettings


class TracingUnavailable(Exception):
    """Traces are configured, but their packages are not installed."""


class Tracing:
    def __init__(self, settings: TracingSettings) -> None:
        """Raises TracingUnavailable."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise TracingUnavailable(
                "http.tracing is set, but OpenTelemetry's SDK is not installed: pip install 'opsapi[tracing]'"
            ) from None
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": settings.service_name, "service.version": version("opsapi")}),
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint)))
        self._tracer = self._provider.get_tracer("opsapi.http")
        self._propagator = TraceContextTextMapPropagator()
        self._server = SpanKind.SERVER

    def start(self, exchange: Exchange) -> Any:
        """Continues the caller's `traceparent`."""
        carrier = {
            name: exchange.headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in exchange.headers
        }
        span = self._tracer.start_span(
            exchange.method, context=self._propagator.extract(carrier), kind=self._server, attributes=_known(exchange)
        )
        # Each request has a task and so a context of its own: what it starts becomes this span's child.
        attach(set_span_in_context(span))
        return span

    def end(self, span: Any, exchange: Exchange, answer: Answer) -> None:
        if exchange.route is not None:
            route = exchange.route.declaration.path
            span.update_name(f"{exchange.method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", answer.status)
        span.set_attribute("client.address", exchange.address)
        if exchange.caller is not None:
            span.set_attribute("enduser.id", exchange.caller.account_id)
        if answer.status >= 500:
            from opentelemetry.trace import Status, StatusCode

            span.set_attribute("error.type", answer.code or str(answer.status))
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def shutdown(self) -> None:
        """Sends what is still queued."""
        self._provider.shutdown()


def _known(exchange: Exchange) -> dict[str, str]:
    return {
        "http.request.method": exchange.method,
        "url.path": exchange.path,
        "network.peer.address": exchange.peer,
        "opsapi.request_id": exchange.request_id,
    }
