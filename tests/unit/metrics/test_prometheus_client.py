"""The Prometheus adapter against servers that misbehave: a reason, never a figure that was not measured."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from opsapi.adapters.metrics.client import Failed, PrometheusClient
from opsapi.adapters.metrics.prometheus import PrometheusMetrics
from opsapi.adapters.metrics.server import PrometheusServer
from opsapi.kit.secret import Secret
from opsapi.telemetry.model import Observed, Span, Unobserved, WorkloadSelector
from opsapi.telemetry.settings import HttpPreset, MetricsSettings
from support.certificates import Authority

NOW = 1_700_000_000.0
WEB = WorkloadSelector("Deployment", "shop", "web")
SPAN = Span.ending(datetime.fromtimestamp(NOW, UTC), timedelta(minutes=5), timedelta(minutes=1))
Handler = Callable[["Fake", dict[str, str]], Awaitable[web.StreamResponse]]


class Fake:
    """Notes what it was asked and answers as its handler says."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked.append(form)
        self.headers.append(dict(request.headers))
        self.paths.append(f"{request.method} {request.path}")
        return await self.handler(self, form)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Fake]:
    fake = Fake(handler)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def says(body: Any, status: int = 200) -> Handler:
    async def handler(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(body=raw, status=status, content_type="application/json")

    return handler


def vector(*rows: tuple[dict[str, str], str], warnings: tuple[str, ...] = (), at: float = NOW) -> dict[str, Any]:
    result = [{"metric": labels, "value": [at, value]} for labels, value in rows]
    data = {"resultType": "vector", "result": result}
    return {"status": "success", "data": data, "warnings": list(warnings)}


def matrix(*rows: tuple[dict[str, str], list[tuple[float, str]]]) -> dict[str, Any]:
    result = [{"metric": labels, "values": values} for labels, values in rows]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


@asynccontextmanager
async def client(handler: Handler, **settings: Any) -> AsyncIterator[tuple[Fake, PrometheusClient]]:
    limits = {key: settings.pop(key) for key in ("max_body", "max_points") if key in settings}
    async with serving(handler) as fake:
        made = PrometheusClient(MetricsSettings(url=f"{fake.url}/prefix/", **settings), **limits)
        try:
            yield fake, made
        finally:
            await made.close()


async def reason_of(handler: Handler, **settings: Any) -> str:
    async with client(handler, **settings) as (_, made):
        with pytest.raises(Failed) as caught:
            await made.instant("up")
    return str(caught.value)


async def test_a_question_is_a_form_with_its_time_and_timeout_and_never_a_url() -> None:
    async with client(says(vector(({}, "1"))), tenant="team-a") as (fake, made):
        await made.instant("up", datetime.fromtimestamp(NOW, UTC))
    assert fake.paths == ["POST /prefix/api/v1/query"]
    assert fake.asked == [{"query": "up", "time": f"{NOW:.3f}", "timeout": "10s"}]
    assert fake.headers[0]["X-Scope-OrgID"] == "team-a"
    assert "Authorization" not in fake.headers[0]


async def test_credentials_are_sent_and_shown_nowhere() -> None:
    async with client(says(vector()), bearer_token=Secret("s3cret")) as (fake, made):
        await made.instant("up")
    assert fake.headers[0]["Authorization"] == "Bearer s3cret"
    async with client(says(vector()), username="reader", password=Secret("pä:ss")) as (fake, made):
        await made.instant("up")
    assert fake.headers[0]["Authorization"] == f"Basic {base64.b64encode('reader:pä:ss'.encode()).decode()}"
    shown = repr(MetricsSettings(url="http://x", username="reader", password=Secret("pä:ss")))
    assert "pä:ss" not in shown


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (422, {"status": "error", "errorType": "execution", "error": "leaks"}, "it refuses the query (422 execution)"),
        (400, {"status": "error", "errorType": "bad_data", "error": "leaks"}, "it refuses the query (400 bad_data)"),
        (503, {"errorType": "leaks <script>"}, "it refuses the query (503)"),
        (500, b"<html>leaks</html>", "it refuses the query (500)"),
        (401, b"leaks", "it refuses the credentials (401)"),
        (403, b"", "it refuses the credentials (403)"),
        (404, b"", "the Prometheus HTTP API is not there (404)"),
        (405, b"", "the Prometheus HTTP API is not there (405)"),
        (302, b"", "it redirects (302), which is not followed"),
        (200, b"<html>", "it answers something else than the Prometheus HTTP API"),
        (200, b"\xff\xfe", "it answers something else than the Prometheus HTTP API"),
        (200, b"[" * 100_000, "it answers something else than the Prometheus HTTP API"),
        (200, {"status": "error"}, "it answers something else than was asked"),
        (200, matrix(), "it answers something else than was asked"),
        (200, {"status": "success", "data": {"resultType": "scalar", "result": []}}, "it answers something else than"),
    ],
)
async def test_failures_become_reasons_of_our_own_words(status: int, body: Any, reason: str) -> None:
    said = await reason_of(says(body, status))
    assert said.startswith(reason)
    assert "leaks" not in said


async def test_a_redirect_inward_is_not_followed() -> None:
    async def redirects(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{fake.url}/elsewhere"})

    async with client(redirects) as (fake, made):
        with pytest.raises(Failed, match="redirects"):
            await made.instant("up")
        assert len(fake.asked) == 1


async def test_an_answer_that_is_too_large_is_cut_off() -> None:
    async def floods(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        return web.Response(body=b" " * (3 * 2**20))

    assert await reason_of(floods, max_body=2**20) == "the answer is larger than 1 MiB; ask for less"


async def test_a_small_answer_that_grows_when_unpacked_is_cut_off_too() -> None:
    async def bombs(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        response = web.Response(body=b" " * (8 * 2**20))
        response.enable_compression(web.ContentCoding.gzip)
        return response

    assert await reason_of(bombs, max_body=2**20) == "the answer is larger than 1 MiB; ask for less"


async def test_a_server_that_hangs_is_given_up() -> None:
    async def hangs(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    assert await reason_of(hangs, timeout_seconds=0.05) == "no answer within 0.05 s"


async def test_a_server_that_is_away_is_a_reason() -> None:
    async with serving(says(vector())) as fake:
        url = fake.url
    metrics = PrometheusMetrics({"ws": MetricsSettings(url=url)})
    for answer in (
        await metrics.usage_now("ws", "shop", ["web-1"]),
        await metrics.usage_history("ws", WEB, SPAN),
        await metrics.traffic("ws", WEB, timedelta(minutes=5)),
        await metrics.restarts("ws", WEB, timedelta(minutes=5)),
        await metrics.throttling("ws", WEB, timedelta(minutes=5)),
    ):
        assert isinstance(answer, Unobserved)
        assert answer.source == "prometheus"
        assert answer.reason.startswith("cannot connect: ")
    await metrics.close()


async def test_only_its_own_authority_is_trusted(tmp_path: Path) -> None:
    authority, other = Authority(), Authority("other")
    issued = authority.issue("prometheus")
    (tmp_path / "cert.pem").write_bytes(issued.certificate + issued.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "other.pem").write_bytes(other.pem)
    (tmp_path / "none.pem").write_bytes(b"nothing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem")
    async with serving(says(vector(({}, "1"))), context) as fake:

        async def asks(**settings: Any) -> str:
            made = PrometheusClient(MetricsSettings(url=fake.url, **settings))
            try:
                return f"{(await made.instant('up')).rows[0].value:g}"
            except Failed as failure:
                return str(failure)
            finally:
                await made.close()

        assert await asks(ca_file=tmp_path / "ca.pem") == "1"
        assert await asks(ca_file=tmp_path / "other.pem") == "its certificate is not trusted"
        assert await asks() == "its certificate is not trusted"
        assert await asks(verify_tls=False) == "1"
        assert await asks(ca_file=tmp_path / "none.pem") == "ca_file holds no readable certificates"


async def test_what_is_no_finite_number_is_no_figure() -> None:
    odd = [({"n": text}, text) for text in ("NaN", "+Inf", "-Inf", "1e999", "five", "", "7")]
    async with client(says(vector(*odd))) as (_, made):
        assert [(one.labels["n"], one.value) for one in (await made.instant("up")).rows] == [("7", 7.0)]
    async with client(says(vector(({}, "7"), at=1e18))) as (_, made):
        assert (await made.instant("up")).rows == []
    stale = matrix(({"a": "1"}, [(NOW, "NaN"), (NOW + 60, "2"), (NOW + 120, "Inf")]), ({"a": "2"}, [(NOW, "NaN")]))
    async with client(says(stale)) as (_, made):
        (only,) = (await made.range("up", SPAN)).rows
    assert (only.labels, only.points) == ({"a": "1"}, [(NOW + 60, 2.0)])


async def test_a_long_range_is_asked_in_parts_that_the_server_accepts() -> None:
    async def one_each(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        start, end, step = (float(form[key]) for key in ("start", "end", "step"))
        count = round((end - start) / step) + 1
        assert count <= 7
        return await says(matrix(({"a": "1"}, [(start + step * i, str(start + step * i)) for i in range(count)])))(
            fake, form
        )

    span = Span.ending(datetime.fromtimestamp(NOW, UTC), timedelta(minutes=20), timedelta(minutes=1))
    async with client(one_each, max_points=7) as (fake, made):
        (only,) = (await made.range("up", span)).rows
    assert len(fake.asked) == 3
    assert [at for at, _ in only.points] == span.moments()
    assert all(at == value for at, value in only.points)


async def test_warnings_are_handed_on_cleaned_and_few() -> None:
    said = ("store\n\x1b[31m is away\u202e", "store\n\x1b[31m is away\u202e", *(f"w{i}" + "x" * 500 for i in range(9)))
    async with client(says(vector(warnings=said))) as (_, made):
        warnings = (await made.instant("up")).warnings
    assert warnings[0] == "store [31m is away"
    assert len(warnings) == 5
    assert all(len(text) <= 200 and text.isprintable() for text in warnings)


def traffic_of(answers: dict[str, list[tuple[dict[str, str], str]]]) -> Handler:
    """Answers the queries that hold a key, in order of the keys; nothing to the rest."""

    async def handler(fake: Fake, form: dict[str, str]) -> web.StreamResponse:
        rows = next((rows for key, rows in answers.items() if key in form["query"]), [])
        return await says(vector(*rows))(fake, form)

    return handler


async def asked_traffic(
    answers: dict[str, list[tuple[dict[str, str], str]]], **changes: Any
) -> Observed[Any] | Unobserved:
    async with serving(traffic_of(answers)) as fake:
        server = PrometheusServer(MetricsSettings(url=fake.url, **({"preset": HttpPreset.PLAYGROUND} | changes)))
        try:
            return await server.traffic(changes.pop("workload", WEB), timedelta(minutes=5))
        finally:
            await server.close()


BUCKETS = [({"le": "0.1"}, "5"), ({"le": "0.5"}, "9"), ({"le": "+Inf"}, "10")]


async def test_requests_without_a_status_code_are_not_called_free_of_errors() -> None:
    answer = await asked_traffic({"code": [], "_bucket": BUCKETS, "http_requests_total": [({}, "10")]})
    assert isinstance(answer, Observed)
    assert answer.figures.request_rate == 10
    assert answer.figures.error_rate is None
    assert answer.missing["error_rate"] == "the requests carry no label code"


async def test_a_latency_beyond_the_last_bucket_is_not_its_bound() -> None:
    answer = await asked_traffic({"_bucket": BUCKETS, "http_requests_total": [({}, "10")]})
    assert isinstance(answer, Observed)
    assert answer.figures.latency_p50_ms == pytest.approx(100)
    assert answer.figures.latency_p95_ms is None
    assert answer.missing == {"latency_p95_ms": "it lies beyond the histogram's last bound, 500 ms"}


async def test_without_requests_there_is_neither_an_error_rate_nor_a_latency() -> None:
    zero: list[tuple[dict[str, str], str]] = [({}, "0")]
    answer = await asked_traffic({"_bucket": [({"le": "1"}, "0"), ({"le": "+Inf"}, "0")], "http_requests": zero})
    assert isinstance(answer, Observed)
    assert answer.figures.request_rate == 0
    assert (answer.figures.error_rate, answer.figures.latency_p50_ms, answer.figures.latency_p95_ms) == (None,) * 3
    assert set(answer.missing.values()) == {"there was no request"}


async def test_no_series_is_no_zero() -> None:
    answer = await asked_traffic({})
    assert isinstance(answer, Unobserved)
    assert answer.reason == "it has no series of requests to the workload in this time"


async def test_an_ingress_knows_only_workloads_behind_a_service() -> None:
    answer = await asked_traffic({"nginx": [({}, "5")]}, preset=HttpPreset.NGINX)
    assert isinstance(answer, Unobserved)
    assert "none selects" in answer.reason


@pytest.mark.parametrize(
    ("preset", "has"),
    [
        (HttpPreset.NGINX, 'nginx_ingress_controller_requests{exported_namespace="shop",exported_service=~"a\\\\-b|c"'),
        (HttpPreset.ISTIO, 'istio_requests_total{destination_workload_namespace="shop",destination_workload="web"'),
        (HttpPreset.OTEL, 'http_server_request_duration_seconds_count{k8s_namespace_name="shop",k8s_pod_name=~"web'),
        (HttpPreset.PLAYGROUND, 'http_requests_total{namespace="shop",pod=~"web'),
    ],
)
async def test_each_preset_asks_by_its_own_names(preset: HttpPreset, has: str) -> None:
    workload = WorkloadSelector("Deployment", "shop", "web", services=("a-b", "c"))
    async with serving(says(vector(({}, "3")))) as fake:
        server = PrometheusServer(MetricsSettings(url=fake.url, preset=preset, matchers={"cluster": 'a"b'}))
        answer = await server.traffic(workload, timedelta(minutes=5))
        await server.close()
    assert isinstance(answer, Observed)
    assert has in answer.query
    assert all('cluster="a\\"b"' in form["query"] for form in fake.asked)
    assert answer.query.split("\n") == [form["query"] for form in sorted(fake.asked, key=_order(answer.query))]


def _order(query: str) -> Callable[[dict[str, str]], int]:
    queries = query.split("\n")
    return lambda form: queries.index(form["query"])


async def test_pods_that_were_not_asked_about_are_not_believed() -> None:
    rows = [
        ({"pod": pod, "container": "app"}, [(NOW, "5")]) for pod in ("web-5f4d8c-bcdfg", "web-5f4d8c-bcdfa", "db-0")
    ]
    async with serving(says(matrix(*rows))) as fake:
        server = PrometheusServer(MetricsSettings(url=fake.url))
        answer = await server.usage_history(WEB, SPAN)
        await server.close()
    assert isinstance(answer, Observed)
    assert [one.pod for one in answer.figures.series] == ["web-5f4d8c-bcdfg"]
