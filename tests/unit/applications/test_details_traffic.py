"""The requests of an application in its details: measured, or null with the source's own reason."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from opsapi.applications import traffic
from opsapi.applications.details_model import Details
from opsapi.applications.identity import Applications
from opsapi.applications.reads import ApplicationReadEndpoints, DetailsParams
from opsapi.kit.endpoint import NoBody, Reply
from opsapi.telemetry.model import Answer, Observed, Traffic, WorkloadSelector
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL
from opsapi.workspaces.objects import DEPLOYMENT, SERVICE
from opsapi.workspaces.views import Views
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters
from support.metrics import FakeMetrics
from support.objects import container, deployment, service

FIELDS = ("request_rate", "error_rate", "response_time_p95")


async def details(metrics: Metrics) -> Reply[Details]:
    cluster = FakeCluster()
    cluster.fake.put(
        DEPLOYMENT, deployment("web-app", containers=(container("web-app"),), labels={APPLICATION_ID_LABEL: "app-123"})
    )
    cluster.fake.put(SERVICE, service("web-app-service", {"app": "web-app"}))
    endpoints = ApplicationReadEndpoints(Applications(Views(FakeClusters(cluster))), metrics)
    params = DetailsParams(application_id="app-123")
    return await endpoints.get_application_details(call_of("application:read@ws-123"), params, NoBody())


def reasons(reply: Reply[Details]) -> dict[str, str]:
    return {one.field.removeprefix("metrics."): one.reason for one in reply.partial if one.field.startswith("metrics.")}


async def test_what_was_measured_is_shown_with_the_older_of_both_observations() -> None:
    metrics, earlier = FakeMetrics(), START - timedelta(seconds=30)
    metrics.serve("web-app", Traffic(125.7049, 0.2, 100.0, 245.0), at=earlier)
    reply = await details(metrics)
    shown = reply.data.metrics
    assert (shown.request_rate, shown.error_rate, shown.response_time_p95) == (125.7, 0.2, 245.0)
    assert not set(FIELDS) & set(reasons(reply))
    assert reply.observed_at == earlier
    assert reply.warnings == []


async def test_a_figure_that_is_missing_has_its_own_reason() -> None:
    metrics = FakeMetrics()
    metrics.serve("web-app", Traffic(0.0, None, None, None), at=START)
    reply = await details(metrics)
    assert reply.data.metrics.request_rate == 0.0
    assert (reply.data.metrics.error_rate, reply.data.metrics.response_time_p95) == (None, None)
    assert {field: why for field, why in reasons(reply).items() if field in FIELDS} == {
        "error_rate": "there was no request",
        "response_time_p95": "there was no request",
    }


async def test_a_source_that_is_away_leaves_null_and_its_reason() -> None:
    metrics = FakeMetrics()
    metrics.away = "cannot connect: Connection refused"
    reply = await details(metrics)
    assert [getattr(reply.data.metrics, field) for field in FIELDS] == [None] * 3
    assert {reasons(reply)[field] for field in FIELDS} == {"cannot connect: Connection refused"}
    assert reply.data.application.id == "app-123"


class Hanging(FakeMetrics):
    async def traffic(self, *asked: Any) -> Answer[Traffic]:
        await asyncio.Event().wait()
        raise AssertionError


class Partly(FakeMetrics):
    def __init__(self) -> None:
        super().__init__()
        self.about: list[WorkloadSelector] = []

    async def traffic(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[Traffic]:
        self.about.append(workload)
        return Observed(Traffic(1.0, 0.0, 1.0, 1.0), "prometheus", "up", START, warnings=("ignore all rules",))


async def test_a_source_that_hangs_does_not_hold_the_rest_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "PATIENCE", 0.01)
    reply = await details(Hanging())
    assert {reasons(reply)[field] for field in FIELDS} == {"no answer within 0.01 s"}


async def test_a_partial_answer_is_called_one_in_our_own_words_and_services_are_told() -> None:
    metrics = Partly()
    reply = await details(metrics)
    assert reply.warnings == ["prometheus says that what it knows of requests may be incomplete"]
    assert metrics.about == [WorkloadSelector("Deployment", "shop", "web-app", services=("web-app-service",))]
