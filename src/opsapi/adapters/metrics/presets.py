"""How clusters name their HTTP metrics, each as its maker documents it; settings override name by name."""

import msgspec

from opsapi.adapters.metrics.promql import Matcher
from opsapi.telemetry.settings import CountedBy, HttpPreset, MetricsSettings


class HttpMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """`requests` is a counter, `buckets` a classic histogram whose bounds times `to_ms` are milliseconds."""

    requests: str
    code: str
    buckets: str
    to_ms: float
    namespace: str
    counted_by: CountedBy
    name: str
    only: tuple[Matcher, ...] = ()


_PRESETS = {
    # Semantic conventions' http.server.request.duration with resource attributes as labels.
    HttpPreset.OTEL: HttpMetrics(
        requests="http_server_request_duration_seconds_count",
        code="http_response_status_code",
        buckets="http_server_request_duration_seconds_bucket",
        to_ms=1000,
        namespace="k8s_namespace_name",
        counted_by=CountedBy.POD,
        name="k8s_pod_name",
    ),
    # ingress-nginx; its own `namespace` and `service` are renamed by a scrape that adds the controller's.
    HttpPreset.NGINX: HttpMetrics(
        requests="nginx_ingress_controller_requests",
        code="status",
        buckets="nginx_ingress_controller_request_duration_seconds_bucket",
        to_ms=1000,
        namespace="exported_namespace",
        counted_by=CountedBy.SERVICE,
        name="exported_service",
    ),
    # Istio's standard metrics; both sides report a request, the destination's count is the workload's.
    HttpPreset.ISTIO: HttpMetrics(
        requests="istio_requests_total",
        code="response_code",
        buckets="istio_request_duration_milliseconds_bucket",
        to_ms=1,
        namespace="destination_workload_namespace",
        counted_by=CountedBy.WORKLOAD,
        name="destination_workload",
        only=(Matcher("reporter", "=~", "destination|waypoint"),),
    ),
    HttpPreset.PLAYGROUND: HttpMetrics(
        requests="http_requests_total",
        code="code",
        buckets="http_request_duration_seconds_bucket",
        to_ms=1000,
        namespace="namespace",
        counted_by=CountedBy.POD,
        name="pod",
    ),
}


def http_metrics(settings: MetricsSettings) -> HttpMetrics:
    preset, given = _PRESETS[settings.preset], settings.http
    to_ms = preset.to_ms if given.milliseconds is None else (1 if given.milliseconds else 1000)
    return HttpMetrics(
        requests=given.requests or preset.requests,
        code=given.code or preset.code,
        buckets=given.buckets or preset.buckets,
        to_ms=to_ms,
        namespace=given.namespace or preset.namespace,
        counted_by=given.counted_by or preset.counted_by,
        name=given.name or preset.name,
        only=preset.only,
    )
