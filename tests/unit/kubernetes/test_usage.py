"""What metrics.k8s.io says is kept whole, and what it does not say is null with the reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.transport import Transport
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.adapters.kubernetes.usage import UsagePoller
from support.leaping import LeapingTime
from support.misbehaving import Fault, MisbehavingServer, answers, hangs, slams, status_body
from support.reflecting import PlainAccess

ROOT = "/apis/metrics.k8s.io/v1beta1"
AT = "2026-03-01T12:00:00Z"


def pod(name: str, namespace: Any = "shop", **usage: dict[str, str]) -> dict[str, Any]:
    containers = [{"name": container, "usage": held} for container, held in usage.items()]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "timestamp": AT,
        "window": "15s",
        "containers": containers,
    }


def node(name: str, cpu: str, memory: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "timestamp": AT, "window": "15s", "usage": {"cpu": cpu, "memory": memory}}


def listed(*items: object) -> Fault:
    return answers(200, body={"kind": "List", "metadata": {}, "items": list(items)})


@asynccontextmanager
async def polling(*namespaces: str, with_nodes: bool = True) -> AsyncIterator[tuple[MisbehavingServer, UsagePoller]]:
    time = LeapingTime()
    clock = ClusterClock(time)
    tuning = Tuning(request_timeout=0.2)
    async with MisbehavingServer() as server:
        transport = Transport(PlainAccess(server.url), tuning, time, clock)
        server.always[f"{ROOT}/pods"] = listed(pod("web", app={"cpu": "137402104n", "memory": "1496784Ki"}))
        server.always[f"{ROOT}/nodes"] = listed(node("one", "2500m", "4Gi"))
        yield server, UsagePoller(transport, tuning, time, clock, namespaces, with_nodes=with_nodes)
        await transport.close()


async def test_usage_is_read_in_millicores_and_bytes() -> None:
    async with polling() as (server, poller):
        two = {"app": {"cpu": "1", "memory": "1Mi"}, "sidecar": {"cpu": "250m", "memory": "512Ki"}}
        server.always[f"{ROOT}/pods"] = listed(pod("web", app={"cpu": "137402104n", "memory": "2Ki"}), pod("db", **two))
        snapshot = await poller.read()
    assert snapshot.reason == ""
    assert snapshot.taken_at is not None
    assert snapshot.pods is not None
    assert snapshot.nodes is not None
    assert snapshot.pods["shop", "web"].cpu_millicores == pytest.approx(137.402104)
    assert snapshot.pods["shop", "web"].memory_bytes == 2048
    assert snapshot.pods["shop", "db"].cpu_millicores == 1250
    assert snapshot.pods["shop", "db"].memory_bytes == 1024 * 1024 + 512 * 1024
    assert (snapshot.nodes["one"].cpu_millicores, snapshot.nodes["one"].memory_bytes) == (2500, 4 * 2**30)
    assert snapshot.nodes["one"].at == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (answers(404, body=b"404 page not found\n"), "does not serve"),
        (answers(403, body=status_body(403, "Forbidden")), "may not read"),
        (answers(503, "ServiceUnavailable"), "answers 503"),
        (answers(200, body=b"<html>"), "something else"),
        (answers(200, body={"items": [{"metadata": {}}]}), "something else"),
        (slams, "broke"),
        (hangs, "no answer in time"),
    ],
)
async def test_what_cannot_be_read_is_null_with_the_reason_and_the_rest_stands(fault: Fault, said: str) -> None:
    async with polling() as (server, poller):
        server.always[f"{ROOT}/pods"] = fault
        snapshot = await poller.read()
    assert snapshot.pods is None
    assert snapshot.nodes is not None
    assert snapshot.reason.startswith("pods: ")
    assert said in snapshot.reason


async def test_half_a_reading_of_a_pod_is_none_at_all() -> None:
    async with polling() as (server, poller):
        half = {"app": {"cpu": "1m", "memory": "1Ki"}, "sidecar": {"cpu": "1m"}}
        odd = {"app": {"cpu": "lots", "memory": "1Ki"}}
        server.always[f"{ROOT}/pods"] = listed(pod("half", **half), pod("odd", **odd), pod("done"))
        snapshot = await poller.read()
    assert snapshot.pods is not None
    assert set(snapshot.pods) == {("shop", "done")}


async def test_a_limited_workspace_asks_only_in_its_namespaces() -> None:
    async with polling("shop", "bank", with_nodes=False) as (server, poller):
        for namespace in ("shop", "bank"):
            usage = {"cpu": "1m", "memory": "1Ki"}
            server.always[f"{ROOT}/namespaces/{namespace}/pods"] = listed(pod("web", namespace, app=usage))
        snapshot = await poller.read()
        assert [one.path for one in server.requests] == [f"{ROOT}/namespaces/{n}/pods" for n in ("shop", "bank")]
    assert snapshot.pods is not None
    assert set(snapshot.pods) == {("shop", "web"), ("bank", "web")}
    assert snapshot.nodes is None
    assert "limited to namespaces" in snapshot.reason


def test_before_the_first_reading_nothing_is_known() -> None:
    time = LeapingTime()
    clock = ClusterClock(time)
    poller = UsagePoller(None, Tuning(), time, clock)  # type: ignore[arg-type]
    assert (poller.snapshot.taken_at, poller.snapshot.pods, poller.snapshot.nodes) == (None, None, None)
    assert poller.snapshot.reason
