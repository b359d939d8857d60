import pytest

from opsapi.applications.identity import Applications
from opsapi.applications.listing import ApplicationKind, ApplicationList
from opsapi.applications.reads import ApplicationReadEndpoints, ApplicationsParams
from opsapi.kit.endpoint import NoBody, Reply
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.workspaces.objects import CRON_JOB, DEPLOYMENT, STATEFUL_SET
from opsapi.workspaces.ports import Sync
from opsapi.workspaces.states import ApplicationState
from opsapi.workspaces.views import Views
from support.callers import call_of
from support.inventory import FakeCluster, FakeClusters
from support.objects import cron_job, deployment


def populated() -> tuple[FakeCluster, ApplicationReadEndpoints]:
    cluster = FakeCluster()
    cluster.fake.put(
        DEPLOYMENT,
        deployment("web", labels={"team": "front", "tier": "1"}),
        deployment("web-admin", replicas=0, labels={"team": "front"}),
        deployment("ledger", "pay"),
    )
    cluster.fake.put(STATEFUL_SET, deployment("db", "pay", uid="uid-sts-db"))
    cluster.fake.put(CRON_JOB, cron_job("report"))
    return cluster, ApplicationReadEndpoints(Applications(Views(FakeClusters(cluster))))


async def listing(endpoints: ApplicationReadEndpoints, **asked: object) -> Reply[ApplicationList]:
    params = ApplicationsParams(workspace_id="ws-123", **asked)  # type: ignore[arg-type]
    return await endpoints.list_applications(call_of("workspace:read@ws-123"), params, NoBody())


def names(reply: Reply[ApplicationList]) -> list[str]:
    return [f"{one.project}/{one.name}" for one in reply.data.applications]


async def test_applications_come_by_project_and_name() -> None:
    _, endpoints = populated()
    reply = await listing(endpoints)
    assert names(reply) == ["pay/db", "pay/ledger", "shop/report", "shop/web", "shop/web-admin"]
    held = {one.name: one for one in reply.data.applications}
    assert held["report"].replicas is None
    assert held["db"].kind == "StatefulSet"
    replicas = held["web"].replicas
    assert replicas is not None
    assert (replicas.desired, replicas.ready) == (3, 3)
    assert held["web"].image == "nginx:1.21.6"
    assert held["web-admin"].status is ApplicationState.STOPPED


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"project": "pay"}, ["pay/db", "pay/ledger"]),
        ({"project": "nowhere"}, []),
        ({"kind": ApplicationKind.CRON_JOB}, ["shop/report"]),
        ({"status": ApplicationState.STOPPED}, ["shop/web-admin"]),
        ({"name": "web"}, ["shop/web", "shop/web-admin"]),
        ({"label": "team=front"}, ["shop/web", "shop/web-admin"]),
        ({"label": "team=front,tier=1"}, ["shop/web"]),
        ({"name": "web", "status": ApplicationState.RUNNING}, ["shop/web"]),
    ],
)
async def test_filters_combine(asked: dict[str, object], expected: list[str]) -> None:
    _, endpoints = populated()
    assert names(await listing(endpoints, **asked)) == expected


async def test_pages_cover_each_application_once_though_others_come_and_go() -> None:
    cluster, endpoints = populated()
    first = await listing(endpoints, limit=2)
    assert names(first) == ["pay/db", "pay/ledger"]
    cluster.fake.put(DEPLOYMENT, deployment("aaa", "pay"))
    cluster.fake.remove(DEPLOYMENT, "pay", "ledger")
    second = await listing(endpoints, limit=2, cursor=first.next_cursor)
    assert names(second) == ["shop/report", "shop/web"]
    third = await listing(endpoints, limit=2, cursor=second.next_cursor)
    assert names(third) == ["shop/web-admin"]
    assert third.next_cursor is None


async def test_a_cursor_of_other_filters_is_refused() -> None:
    _, endpoints = populated()
    cursor = (await listing(endpoints, limit=1)).next_cursor
    with pytest.raises(ValidationFailed):
        await listing(endpoints, limit=1, project="pay", cursor=cursor)


@pytest.mark.parametrize("label", ["team", "=x", "a=b,c"])
async def test_a_malformed_label_filter_is_refused(label: str) -> None:
    _, endpoints = populated()
    with pytest.raises(ValidationFailed):
        await listing(endpoints, label=label)


async def test_before_the_first_sync_the_list_is_unavailable_and_a_forbidden_kind_is_told() -> None:
    cluster, endpoints = populated()
    cluster.fake.set_sync(CRON_JOB, Sync.FORBIDDEN)
    assert "may not read cronjobs.batch" in (await listing(endpoints)).warnings[0]
    cluster.fake.set_sync(DEPLOYMENT, Sync.PENDING)
    with pytest.raises(DependencyUnavailable):
        await listing(endpoints)
