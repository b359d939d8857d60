"""Debian's Prometheus scrapes a running playground, and the product reads from it what the playground does."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsapi.adapters.metrics.prometheus import PrometheusMetrics
from opsapi.telemetry.model import Answer, FiguresT, Observed, WorkloadSelector
from opsapi.telemetry.settings import HttpPreset, MetricsSettings
from support.playground_process import PlaygroundProcess, playground
from support.prometheus_server import PrometheusProcess, prometheus, require_prometheus

pytestmark = pytest.mark.slow

STOREFRONT = WorkloadSelector("Deployment", "shop", "storefront")
_SECONDS = 60.0


def scrape_of(ready: PlaygroundProcess) -> dict[str, Any]:
    return {
        "job_name": "playground",
        "scheme": "https" if ready.ready["url"].startswith("https") else "http",
        "metrics_path": "/playground/v1/metrics",
        "honor_labels": True,
        "authorization": {"credentials": ready.ready["tokens"]["admin"]},
        "tls_config": {"insecure_skip_verify": True},
        "static_configs": [{"targets": [ready.ready["url"].partition("://")[2]]}],
    }


def until_scraped(server: PrometheusProcess, times: int) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        found = server.ask("query?query=count_over_time(up%7Bjob%3D%22playground%22%7D%5B5m%5D)")["result"]
        if found and float(found[0]["value"][1]) >= times:
            return
        assert time.monotonic() < end, server.log
        time.sleep(0.1)


def figures(answer: Answer[FiguresT]) -> FiguresT:
    assert isinstance(answer, Observed), answer
    return answer.figures


async def test_a_real_prometheus_scrapes_the_playground_and_answers_for_it(tmp_path: Path) -> None:
    require_prometheus()
    (tmp_path / "playground").mkdir()
    with playground(tmp_path / "playground") as cluster, prometheus(tmp_path, scrape_of(cluster)) as server:
        until_scraped(server, 6)
        (target,) = server.ask("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        pods = [
            pod["metadata"]["name"]
            for pod in cluster.objects("pods", "-n", "shop")
            if pod["metadata"]["name"].startswith("storefront-") and pod["status"]["phase"] == "Running"
        ]
        settings = MetricsSettings(url=server.url, scrape_interval_seconds=1, preset=HttpPreset.PLAYGROUND)
        metrics = PrometheusMetrics({"ws-demo": settings})
        try:
            answer = await metrics.usage_now("ws-demo", "shop", pods)
            assert {one.pod for one in figures(answer)} == set(pods)
            assert all(one.cpu_millicores and one.memory_bytes for one in figures(answer))
            assert all(datetime.now(UTC) - one.at < timedelta(minutes=2) for one in figures(answer))
            traffic = figures(await metrics.traffic("ws-demo", STOREFRONT, timedelta(seconds=30)))
            assert traffic.request_rate > 1
            assert traffic.error_rate is not None
            assert traffic.latency_p50_ms is not None
            assert traffic.latency_p95_ms is not None
            assert 0 < traffic.latency_p50_ms < traffic.latency_p95_ms
            restarts = figures(await metrics.restarts("ws-demo", STOREFRONT, timedelta(minutes=1)))
            assert {one.pod for one in restarts} == set(pods)
        finally:
            await metrics.close()
        assert "level=warn" not in server.log
        assert "level=error" not in server.log


def test_promtool_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    require_prometheus()
    with playground(tmp_path) as cluster:
        text = cluster.call("GET", "/playground/v1/metrics").body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
