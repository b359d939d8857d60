"""What an operator can set about a workspace's source of metrics."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from opsapi.kit.secret import Secret

MetricName = Annotated[str, Meta(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
LabelName = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class HttpPreset(StrEnum):
    """Who counts the requests: names and labels differ."""

    OTEL = "otel"
    NGINX = "nginx"
    ISTIO = "istio"
    PLAYGROUND = "playground"


class CountedBy(StrEnum):
    """What a request's series tells its workload by."""

    POD = "pod"
    WORKLOAD = "workload"
    SERVICE = "service"


class ContainerNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the container metrics: cAdvisor's and kube-state-metrics' unless said otherwise."""

    cpu: MetricName = "container_cpu_usage_seconds_total"
    """Counter of CPU seconds."""
    memory: MetricName = "container_memory_working_set_bytes"
    """Gauge of the working set."""
    periods: MetricName = "container_cpu_cfs_periods_total"
    """Counter of the scheduler's periods."""
    throttled: MetricName = "container_cpu_cfs_throttled_periods_total"
    """Counter of periods in which the container was throttled."""
    restarts: MetricName = "kube_pod_container_status_restarts_total"
    """Counter of restarts."""
    namespace: LabelName = "namespace"
    """The label that holds the namespace."""
    pod: LabelName = "pod"
    """The label that holds the pod's name."""
    container: LabelName = "container"
    """The label that holds the container's name."""


class HttpNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the request metrics; what is not given is the preset's."""

    requests: MetricName | None = None
    """Counter of requests."""
    code: LabelName | None = None
    """The label that holds the status code; 5xx are errors."""
    buckets: MetricName | None = None
    """The classic histogram of latencies, with its `_bucket`."""
    milliseconds: bool | None = None
    """Whether the buckets' bounds are milliseconds; else seconds."""
    namespace: LabelName | None = None
    """The label that holds the namespace."""
    counted_by: CountedBy | None = None
    """Whether series name the `pod`, the `workload` or the `service`."""
    name: LabelName | None = None
    """The label that holds the name of that pod, workload or service."""


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server of the Prometheus HTTP API: Prometheus, Thanos, Mimir or VictoriaMetrics."""

    url: str
    """Where it is, as `https://prometheus.monitoring.svc:9090`; the API's `/api/v1` comes after it."""
    bearer_token: Secret | None = None
    """Sent as `Authorization: Bearer`."""
    username: str = ""
    """For basic authentication, together with the password."""
    password: Secret | None = None
    """For basic authentication."""
    tenant: str = ""
    """Sent as `X-Scope-OrgID`, as Mimir and Cortex want it."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's, PEM."""
    verify_tls: bool = True
    """False trusts any certificate: for rehearsals only."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=300)] = 10
    """For one query; the server is told of it."""
    scrape_interval_seconds: Annotated[float, Meta(ge=1, le=600)] = 30
    """How often targets are scraped: rates look back over at least four of these."""
    matchers: dict[str, str] = {}
    """Labels that every series must have, as `cluster: production` where a server holds several clusters."""
    preset: HttpPreset = HttpPreset.OTEL
    """Who counts the requests: `otel` (HTTP semantic conventions), `nginx` (ingress-nginx), `istio` or `playground`."""
    http: HttpNames = HttpNames()
    """Names that differ from the preset's."""
    containers: ContainerNames = ContainerNames()
    """Names that differ from cAdvisor's and kube-state-metrics'."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("url: expected http:// or https://, a host and perhaps a path")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url: credentials go into username and password, not into the URL")
        if self.bearer_token is not None and (self.username or self.password is not None):
            raise ValueError("give bearer_token, or username and password, not both")
        if bool(self.username) != (self.password is not None):
            raise ValueError("username and password go together")
        secrets = [one.reveal() for one in (self.bearer_token, self.password) if one is not None]
        if not all(text.isprintable() for text in (self.tenant, self.username, *secrets)) or ":" in self.username:
            raise ValueError("tenant, username and secrets: no control characters, and no colon in username")
        for label in self.matchers:
            if not label.isascii() or not label.replace("_", "a").isalnum() or label[0].isdigit():
                raise ValueError(f"matchers: {label[:60]!r} is no label name")
