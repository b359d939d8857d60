"""What an operator can set about the HTTP layer; the service's settings embed `HttpSettings`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from opsapi.accounts.addresses import AddressSet
from opsapi.kit.endpoint import LIMIT_CLASSES
from opsapi.kit.secret import Secret

Seconds = Annotated[float, Meta(gt=0, le=3600)]
PositiveInt = Annotated[int, Meta(ge=1)]


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TlsSettings(_Settings, frozen=True, kw_only=True):
    """PEM files. With `client_ca`, clients must show a certificate that it signed (mutual TLS)."""

    certificate: Path
    """The certificate with its chain, PEM."""
    private_key: Path
    """Its private key, PEM, not encrypted."""
    client_ca: Path | None = None
    """With it, clients must show a certificate that it signed (mutual TLS)."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest TLS version that is spoken."""


class MetricsSettings(_Settings, frozen=True, kw_only=True):
    """Who may read /metrics: `loopback` (a direct connection from this machine, not one that a proxy forwarded),
    `token` (`Authorization: Bearer <token>`), or nobody (`off`)."""

    access: Literal["loopback", "token", "off"] = "loopback"
    """Who may read /metrics."""
    token: Secret | None = None
    """What `access: token` asks for."""

    def __post_init__(self) -> None:
        if (self.access == "token") != (self.token is not None):
            raise ValueError("access `token` and a token belong together")


class TracingSettings(_Settings, frozen=True, kw_only=True):
    """`endpoint` is an OTLP/HTTP traces URL such as `http://collector:4318/v1/traces`."""

    endpoint: str
    """An OTLP/HTTP traces URL such as `http://collector:4318/v1/traces`."""
    service_name: str = "opsapi"
    """The `service.name` of the spans."""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """The share of requests that are traced when the caller does not say."""


class HttpSettings(_Settings, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    """The address to listen on; beyond loopback TLS is needed, or `tls_terminated_by_proxy`."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8443
    """0 takes a free one."""
    public_url: str = ""
    """What the OpenAPI document names as its server; empty for the address that the document came from."""
    tls: TlsSettings | None = None
    tls_terminated_by_proxy: bool = False
    """Says that a proxy in front speaks TLS, so that plain HTTP beyond loopback is meant."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or CIDRs whose X-Forwarded-For is believed."""
    body_max_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    """A larger body is answered 413."""
    body_max_depth: Annotated[int, Meta(ge=4, le=256)] = 64
    """JSON that nests deeper is refused."""
    header_max_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 16 * 1024
    """A larger request head is answered 431."""
    header_max_count: Annotated[int, Meta(ge=10, le=1000)] = 100
    """More headers are answered 431."""
    header_timeout_seconds: Seconds = 10
    """How long a request head may take to arrive."""
    body_timeout_seconds: Seconds = 30
    """How long a body may take to arrive; then 408."""
    handler_timeout_seconds: Seconds = 60
    """How long an answer may take; then 503."""
    keep_alive_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30
    """How long an idle connection is held."""
    drain_seconds: Annotated[int, Meta(ge=0, le=3600)] = 20
    """How long a stopping server lets requests finish before it cuts them off."""
    max_connections: PositiveInt = 2000
    """Further connections are answered 503."""
    failed_logins_per_minute: PositiveInt = 10
    """Per client address; beyond it a failed login answers 429. Valid credentials always pass."""
    unknown_per_minute: PositiveInt = 60
    """Per account, over all paths and ids that are unknown or that it may not see."""
    limits: dict[str, PositiveInt] = msgspec.field(default_factory=dict)
    """Requests a minute by limit class (`health`, `workspace_operations`, …) in place of the defaults."""
    idempotency_wait_seconds: Seconds = 10
    """How long a call waits for its twin with the same Idempotency-Key before it answers 409."""
    docs: Literal["public", "accounts", "off"] = "public"
    """Who may read the OpenAPI document; `public` also serves the docs page (browsers cannot send the headers)."""
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings | None = None
    request_log: Literal["all", "errors", "off"] = "all"
    """Which requests are logged, a JSON line each."""

    def __post_init__(self) -> None:
        AddressSet(self.trusted_proxies)
        known = [limit.name for limit in LIMIT_CLASSES]
        unknown = sorted(set(self.limits) - set(known))
        if unknown:
            raise ValueError(f"limits: unknown class {', '.join(unknown)}; there are: {', '.join(known)}")
