"""The Metrics port: the fake, metrics.k8s.io on a playground and a real Prometheus tell of one history alike."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Protocol

import pytest

from opsapi.adapters.kubernetes import KubernetesClusters, KubernetesMetrics
from opsapi.adapters.metrics.prometheus import PrometheusMetrics
from opsapi.playground.registry import Obj
from opsapi.telemetry.model import Answer, FiguresT, Observed, Span, Traffic, Unobserved, WorkloadSelector
from opsapi.telemetry.ports import Metrics
from opsapi.telemetry.settings import HttpPreset, MetricsSettings
from opsapi.telemetry.utilisation import utilisation_history
from support.cluster import running_api
from support.live import LOOPBACK, inline, workspace
from support.measured import CPU, ERRORS, MEMORY, PROXY, RATE, THROTTLED, WEB, Measured, Scrape, measured
from support.metrics import FakeMetrics
from support.prometheus_server import Past, PrometheusProcess, prometheus, require_prometheus

WS = "ws-live"
MINUTE = timedelta(minutes=1)
CLUSTER = 'it\'s "production" \\ north'
"""A label's value that has to be escaped to be found at all."""
HOSTILE = (
    'a"} or up{x="',
    '"',
    "\\",
    '\\"} or vector(1) #',
    "a\n} or vector(1)",
    ".*",
    "web|web",
    "\x00\x07\u2028\ud800",
    "{{namespace}}",
    "'`$(id)",
)


class Source(Protocol):
    metrics: Metrics
    tells_all: bool
    """Whether it knows of traffic, restarts and throttling too."""


class FakeSource:
    tells_all = True

    def __init__(self, story: Measured) -> None:
        fake = FakeMetrics(WS)
        for scrape in story.scrapes:
            for pod in scrape.pods:
                meta = pod["metadata"]
                for one in pod["containers"]:
                    usage = one["usage"]
                    cpu, memory = int(usage["cpu"][:-1]) / 1e6, int(usage["memory"][:-2]) * 1024
                    place = (meta["name"], one["name"], _timestamp(pod))
                    fake.measure(*place, cpu=cpu, memory=memory, namespace=meta["namespace"])
        for name in story.last:
            for container in ("app", "proxy"):
                fake.restarted["shop", name, container] = int((name, container) == (story.restarted, "proxy"))
            fake.throttled["shop", name, "proxy"] = THROTTLED
        fake.serve("web", Traffic(RATE, ERRORS, 41.8, 231.5), at=story.now)
        self.metrics: Metrics = fake


class PrometheusSource:
    tells_all = True

    def __init__(self, server: PrometheusProcess) -> None:
        self.metrics: Metrics = PrometheusMetrics({WS: settings_for(server.url)})


class ReplayedMetrics:
    """Implements the playground's MetricsProvider: one scrape after the other."""

    def __init__(self) -> None:
        self.scrape: Scrape

    def pods(self, namespace: str) -> list[Obj]:
        return [one for one in self.scrape.pods if namespace in ("", one["metadata"]["namespace"])]

    def nodes(self) -> list[Obj]:
        return self.scrape.nodes


class KubernetesSource:
    tells_all = False

    def __init__(self, clusters: KubernetesClusters) -> None:
        self.metrics: Metrics = KubernetesMetrics(clusters)


def settings_for(url: str, cluster: str = CLUSTER) -> MetricsSettings:
    return MetricsSettings(
        url=url, scrape_interval_seconds=60, preset=HttpPreset.PLAYGROUND, matchers={"cluster": cluster}
    )


def _timestamp(pod: Obj) -> datetime:
    return datetime.fromisoformat(pod["timestamp"])


@pytest.fixture(scope="module")
def story() -> Measured:
    return measured()


@pytest.fixture(scope="module")
def server(story: Measured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    """Holds the history under the label of one cluster, and one without any figures of its own under another."""
    require_prometheus()
    folder = tmp_path_factory.mktemp("prometheus")
    past = Past(folder)
    for scrape in story.scrapes:
        past.scrape(scrape.exposition, scrape.at, 'cluster="it\'s \\"production\\" \\\\ north",')
    past.write()
    with prometheus(folder) as process:
        yield process


@asynccontextmanager
async def replayed(story: Measured) -> AsyncIterator[KubernetesSource]:
    provider, clusters = ReplayedMetrics(), KubernetesClusters(LOOPBACK)
    async with running_api(metrics=provider) as api:
        try:
            cluster = clusters.connect(workspace(inline(api.kubeconfig())))
            for scrape in story.scrapes:
                provider.scrape = scrape
                await cluster.measure()
            yield KubernetesSource(clusters)
        finally:
            await clusters.close_all()


@pytest.fixture(params=["fake", "metrics.k8s.io", "prometheus"])
async def source(request: pytest.FixtureRequest, story: Measured) -> AsyncIterator[Source]:
    async with AsyncExitStack() as stack:
        match request.param:
            case "fake":
                yield FakeSource(story)
            case "metrics.k8s.io":
                yield await stack.enter_async_context(replayed(story))
            case _:
                made = PrometheusSource(request.getfixturevalue("server"))
                assert isinstance(made.metrics, PrometheusMetrics)
                stack.push_async_callback(made.metrics.close)
                yield made


def seen(answer: Answer[FiguresT]) -> Observed[FiguresT]:
    assert isinstance(answer, Observed), answer
    assert answer.source
    assert answer.query
    assert answer.observed_at.tzinfo is not None
    return answer


def unseen(answer: Answer[FiguresT]) -> Unobserved:
    assert isinstance(answer, Unobserved), answer
    assert answer.source
    assert answer.reason
    return answer


async def test_usage_now_tells_each_container_and_names_who_was_not_measured(source: Source, story: Measured) -> None:
    asked = [*story.last, "web-84c4dc86df-zzzzz", *story.first]
    answer = seen(await source.metrics.usage_now(WS, "shop", asked))
    assert [(one.pod, one.container) for one in answer.figures] == [
        (pod, container) for pod in story.last for container in ("app", "proxy")
    ]
    assert set(answer.missing) == {"web-84c4dc86df-zzzzz", *story.first}
    for one in answer.figures:
        if one.container == "app":
            assert one.cpu_millicores == pytest.approx(CPU, rel=0.1)
            assert one.memory_bytes == pytest.approx(MEMORY, rel=0.04)
        else:
            assert one.cpu_millicores == pytest.approx(PROXY, rel=0.1)
        assert timedelta(0) <= story.now - one.at < MINUTE
    assert answer.observed_at == max(one.at for one in answer.figures)


async def test_history_has_a_point_a_minute_across_generations_of_pods(source: Source, story: Measured) -> None:
    span = story.span()
    answer = seen(await source.metrics.usage_history(WS, WEB, span))
    history = answer.figures
    assert {one.pod for one in history.series} == {*story.first, *story.last}
    assert [(one.pod, one.container) for one in history.series] == sorted(
        (pod, container) for pod in (*story.first, *story.last) for container in ("app", "proxy")
    )
    assert history.points >= 170
    assert history.step == MINUTE
    assert span.since <= history.since < span.since + 5 * MINUTE
    assert answer.observed_at == span.until
    assert "since" not in answer.missing
    moments = set(span.moments())
    for one in history.series:
        assert list(one.at) == sorted(set(one.at) & moments)
        assert len(one.at) == len(one.cpu_millicores) == len(one.memory_bytes)
    for one in history.by_container()["app"]:
        warm = [held for held in one.memory_bytes if held is not None][3:-3]
        assert warm == [pytest.approx(MEMORY, rel=0.05)] * len(warm)
        settled = sorted(held for held in one.cpu_millicores if held is not None)
        assert settled[len(settled) // 2] == pytest.approx(CPU, rel=0.1)


async def test_what_a_workload_uses_of_its_requests_is_told_minute_by_minute(source: Source, story: Measured) -> None:
    span = story.span(timedelta(minutes=10))
    answer = await utilisation_history(source.metrics, WS, WEB, span, cpu_request_millicores=220.0)
    figures = seen(answer).figures
    assert len(figures) == 11
    for one in figures:
        assert one.pods == 3
        assert one.memory_percentage is None
        if one.cpu_percentage is not None:  # a restarted container has no rate for its first minutes
            assert one.cpu_percentage == pytest.approx(100 * (CPU + PROXY) / 220, rel=0.2)
    assert any(one.cpu_percentage is not None for one in figures)


async def test_what_is_elsewhere_was_not_observed(source: Source, story: Measured) -> None:
    span = story.span()
    metrics = source.metrics
    strangers = (
        (WS, WorkloadSelector("Deployment", "shop", "nothing", services=("nothing",))),
        (WS, WorkloadSelector("StatefulSet", "shop", "web", services=("nothing",))),
        (WS, WorkloadSelector("Deployment", "nowhere", "web", services=("web",))),
        ("ws-other", WEB),
    )
    for workspace_id, workload in strangers:
        unseen(await metrics.usage_history(workspace_id, workload, span))
        unseen(await metrics.traffic(workspace_id, workload, 5 * MINUTE))
        unseen(await metrics.restarts(workspace_id, workload, 5 * MINUTE))
        unseen(await metrics.throttling(workspace_id, workload, 5 * MINUTE))
    unseen(await metrics.usage_now("ws-other", "shop", story.last))
    unseen(await metrics.usage_now(WS, "nowhere", story.last))
    unseen(await metrics.usage_now(WS, "shop", []))
    unseen(await metrics.usage_now(WS, "shop", ["web-.*", "web"]))


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_name_gets_out_of_its_place(source: Source, story: Measured, text: str) -> None:
    metrics, span = source.metrics, story.span(timedelta(minutes=5))
    for workload in (
        WorkloadSelector("Deployment", text, "web", services=("web",)),
        WorkloadSelector("Deployment", "shop", text, services=(text,)),
        WorkloadSelector("StatefulSet", "shop", "nothing", pods=(text,), services=(text,)),
    ):
        assert "refuses" not in unseen(await metrics.usage_history(WS, workload, span)).reason
        assert "refuses" not in unseen(await metrics.traffic(WS, workload, 5 * MINUTE)).reason
    unseen(await metrics.usage_now(WS, text, story.last))
    unseen(await metrics.usage_now(WS, "shop", [text]))


async def test_traffic_is_told_in_full_or_not_at_all(source: Source, story: Measured) -> None:
    answer = await source.metrics.traffic(WS, WEB, 10 * MINUTE)
    if not source.tells_all:
        assert unseen(answer).reason == "it tells CPU and memory only"
        return
    told = seen(answer)
    figures = told.figures
    assert figures.request_rate == pytest.approx(RATE, rel=0.05)
    assert figures.error_rate == pytest.approx(ERRORS, rel=0.02)
    assert figures.latency_p50_ms == pytest.approx(41.8, rel=0.02)
    assert figures.latency_p95_ms == pytest.approx(231.5, rel=0.02)
    assert told.missing == {}
    assert told.observed_at == story.now


async def test_restarts_and_throttling_are_told_container_by_container(source: Source, story: Measured) -> None:
    restarts = await source.metrics.restarts(WS, WEB, 30 * MINUTE)
    throttling = await source.metrics.throttling(WS, WEB, 10 * MINUTE)
    if not source.tells_all:
        assert unseen(restarts) == unseen(throttling)
        return
    counts = {(one.pod, one.container): one.count for one in seen(restarts).figures}
    assert counts == {
        (pod, container): int((pod, container) == (story.restarted, "proxy"))
        for pod in story.last
        for container in ("app", "proxy")
    }
    shares = {(one.pod, one.container): one.percent for one in seen(throttling).figures}
    assert shares == {(pod, "proxy"): pytest.approx(THROTTLED, rel=0.15) for pod in story.last}


# The Prometheus adapter alone.


@asynccontextmanager
async def asking(settings: MetricsSettings) -> AsyncIterator[PrometheusMetrics]:
    metrics = PrometheusMetrics({WS: settings})
    try:
        yield metrics
    finally:
        await metrics.close()


async def test_another_cluster_in_the_same_prometheus_is_not_seen(server: PrometheusProcess, story: Measured) -> None:
    async with asking(settings_for(server.url, 'x" or cluster=~".*')) as metrics:
        unseen(await metrics.usage_now(WS, "shop", story.last))
        unseen(await metrics.usage_history(WS, WEB, story.span()))
        unseen(await metrics.traffic(WS, WEB, 10 * MINUTE))


async def test_the_past_can_be_asked_about(server: PrometheusProcess, story: Measured) -> None:
    middle = story.scrapes[80].at
    async with asking(settings_for(server.url)) as metrics:
        before = seen(await metrics.traffic(WS, WEB, 10 * MINUTE, middle))
        assert before.figures.request_rate == pytest.approx(RATE, rel=0.05)
        assert before.observed_at == middle
        unseen(await metrics.traffic(WS, WEB, 10 * MINUTE, story.scrapes[0].at - timedelta(days=1)))
        unseen(await metrics.usage_history(WS, WEB, Span.ending(middle - timedelta(days=1), 10 * MINUTE, MINUTE)))
