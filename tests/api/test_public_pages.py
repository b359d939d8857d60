"""What is served without an account."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from opsapi.http.settings import MetricsSettings
from opsapi.kit.secret import Secret
from support.http import Raw, call, credentials, world

DOCS = "/internal/v1/docs"
OPENAPI = "/internal/v1/openapi.json"


@dataclass
class Check:
    name: str
    reason: str | None = None
    hangs: bool = False
    asked: int = 0

    async def failure(self) -> str | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return self.reason


class CacheAge(Collector):
    def collect(self) -> Any:
        yield GaugeMetricFamily("opsapi_cache_age_seconds", "Age.", value=3)


def samples(answer: Raw) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_livez_answers_as_long_as_the_process_runs() -> None:
    answer = await call(world().app(), path="/livez", headers={})
    assert (answer.status, answer.json()) == (200, {"status": "alive"})


async def test_readyz_is_ready_when_every_check_is() -> None:
    app = world().app(readiness=(Check("database"), Check("migrations")))
    answer = await call(app, path="/readyz", headers={})
    assert answer.json() == {"status": "ready", "checks": {"database": "ok", "migrations": "ok"}}


async def test_readyz_names_what_fails_but_tells_nobody_why(caplog: pytest.LogCaptureFixture) -> None:
    app = world().app(readiness=(Check("database", "cannot reach db-7.internal"), Check("other")))
    answer = await call(app, path="/readyz", headers={})
    assert answer.status == 503
    assert answer.json() == {"status": "not_ready", "checks": {"database": "failed", "other": "ok"}}
    assert "db-7.internal" in caplog.text


async def test_readyz_asks_its_checks_at_most_once_a_second() -> None:
    check = Check("database")
    app = world().app(readiness=(check,))
    await asyncio.gather(*(call(app, path="/readyz", headers={}) for _ in range(20)))
    assert check.asked == 1


async def test_a_draining_service_is_not_ready() -> None:
    app = world().app()
    app.drain()
    answer = await call(app, path="/readyz", headers={})
    assert (answer.status, answer.json()["status"]) == (503, "draining")


async def test_public_pages_are_neither_audited_nor_limited() -> None:
    w = world()
    answer = await call(w.app(), path="/livez", headers={})
    assert w.audit.entries == []
    assert "x-ratelimit-limit" not in answer.headers


async def test_metrics_count_requests_latencies_and_refusals_and_show_what_wiring_adds() -> None:
    app = world().app(collectors=(CacheAge(),))
    await call(app)
    await call(app)
    await call(app, headers={})
    found = samples(await call(app, path="/metrics", headers={}))
    counted = {("endpoint", "health"), ("method", "GET"), ("status", "200")}
    assert found[("opsapi_http_requests_total", frozenset(counted))] == 2
    refused = {("endpoint", "unknown"), ("code", "INVALID_SERVICE_ACCOUNT")}
    assert found[("opsapi_http_refusals_total", frozenset(refused))] == 1
    endpoint = ("endpoint", "health")
    assert found[("opsapi_http_request_duration_seconds_count", frozenset({endpoint}))] == 2
    assert found[("opsapi_http_request_duration_seconds_bucket", frozenset({endpoint, ("le", "+Inf")}))] == 2
    assert found[("opsapi_http_requests_in_flight", frozenset())] == 1
    assert found[("opsapi_cache_age_seconds", frozenset())] == 3


async def test_callers_cannot_make_new_series() -> None:
    app = world().app()
    for method in ("PROPFIND", "MKCOL", "BREW"):
        await call(app, method, "/internal/v1/anything", headers={})
    found = samples(await call(app, path="/metrics", headers={}))
    methods = {dict(labels).get("method") for (name, labels) in found if name == "opsapi_http_requests_total"}
    assert methods == {"OTHER"}


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.1", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.1"}, 403),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 403),
    ],
)
async def test_metrics_are_by_default_for_direct_connections_from_this_machine(
    peer: str, headers: dict[str, str], status: int
) -> None:
    assert (await call(world().app(), path="/metrics", headers=headers, peer=peer)).status == status


@pytest.mark.parametrize(
    ("authorization", "status"), [("Bearer scrape-me", 200), ("Bearer wrong", 401), ("scrape-me", 401), ("", 401)]
)
async def test_metrics_can_ask_for_a_token_instead(authorization: str, status: int) -> None:
    app = world(metrics=MetricsSettings(access="token", token=Secret("scrape-me"))).app()
    answer = await call(app, path="/metrics", headers={"Authorization": authorization}, peer="192.0.2.1")
    assert answer.status == status
    assert b"scrape-me" not in answer.body


async def test_metrics_can_be_switched_off() -> None:
    assert (await call(world(metrics=MetricsSettings(access="off")).app(), path="/metrics")).status == 404


async def test_the_docs_page_loads_only_from_us() -> None:
    app = world().app()
    page = await call(app, path=DOCS, headers={})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert b"https://" not in page.body
    assert b"<script>" not in page.body
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js", "favicon-32x32.png"):
        assert f"{DOCS}/{name}".encode() in page.body
        file = await call(app, path=f"{DOCS}/{name}", headers={})
        assert (file.status, len(file.body) > 100) == (200, True)


async def test_docs_files_are_sent_once() -> None:
    app = world().app()
    first = await call(app, path=f"{DOCS}/swagger-ui.css", headers={})
    again = await call(app, path=f"{DOCS}/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", [f"{DOCS}/../../../etc/passwd", f"{DOCS}/%2e%2e/settings.py", f"{DOCS}/swagger-ui.js"])
async def test_no_other_file_is_served(path: str) -> None:
    assert (await call(world().app(), path=path)).status == 404


async def test_the_document_can_be_for_accounts_only() -> None:
    w = world(docs="accounts")
    app = w.app()
    assert (await call(app, path=OPENAPI, headers={})).status == 401
    answer = await call(app, path=OPENAPI)
    assert (answer.status, answer.json()["openapi"]) == (200, "3.1.0")
    assert "x-ratelimit-limit" in answer.headers
    assert (await call(app, path=DOCS)).status == 404


async def test_the_document_can_be_switched_off() -> None:
    assert (await call(world(docs="off").app(), path=OPENAPI)).status == 404


async def test_public_pages_are_only_read() -> None:
    answer = await call(world().app(), "POST", "/livez", headers=credentials())
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
