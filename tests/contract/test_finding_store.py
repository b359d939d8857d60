"""The store of findings: the fake, SQLite and PostgreSQL keep the same promises."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.security import SqlFindingStore
from opsapi.adapters.sql.tables import security_findings
from opsapi.playbooks.scanning.model import Category, Evidence, Finding, Level, Severity, Source, Where
from opsapi.playbooks.scanning.ports import FindingFilter, FindingStore, LastScan
from support.acting import NOON, SetClock
from support.database import ENGINES, fresh_database
from support.security import FakeFindings


@dataclass
class Held:
    store: FindingStore
    clock: SetClock
    database: Database | None


@pytest.fixture(params=[pytest.param("fake"), *ENGINES])
async def held(request: pytest.FixtureRequest) -> AsyncIterator[Held]:
    clock = SetClock()
    if request.param == "fake":
        yield Held(FakeFindings(), clock, None)
        return
    async with fresh_database(request, request.param) as database:
        yield Held(SqlFindingStore(database, clock), clock, database)


def finding(number: int, **changes: Any) -> Finding:
    made: dict[str, Any] = {
        "id": f"sec-{number:03}",
        "check": "CVE-2024-1",
        "category": Category.VULNERABILITY,
        "severity": Severity.HIGH,
        "source": Source.TRIVY,
        "resource": Where(kind="Deployment", namespace="shop", name="web", container="app"),
        "title": "Zoë’s, 日本 \u202e",
        "evidence": (Evidence("package", "libc"), Evidence("image", None)),
        "remediation": "Rebuild.",
        "level": Level.BASELINE,
        "score": 8.25,
        "reported_at": NOON,
        "stale": True,
    }
    return Finding(**(made | changes))


def scan(scan_id: str, seconds: float = 0, namespaces: tuple[str, ...] = ("shop",)) -> LastScan:
    return LastScan(id=scan_id, at=NOON + timedelta(seconds=seconds), namespaces=namespaces, report={"a": [1, None]})


async def ids(held: Held, scan_id: str, **wanted: Any) -> list[str]:
    return [one.id for one in await held.store.find(scan_id, FindingFilter(**wanted))]


async def test_findings_come_back_as_they_were_written(held: Held) -> None:
    await held.store.stage("ws-1", "op-1", Source.TRIVY, [finding(1)])
    await held.store.publish("ws-1", scan("op-1"))
    assert await held.store.find("op-1", FindingFilter()) == [finding(1)]
    assert await held.store.last("ws-1") == scan("op-1")
    assert await held.store.last("ws-2") is None


async def test_a_repeated_step_takes_the_place_of_its_own_findings_alone(held: Held) -> None:
    ours = finding(9, source=Source.OPSAPI)
    await held.store.stage("ws-1", "op-1", Source.OPSAPI, [ours])
    for _ in range(2):
        await held.store.stage("ws-1", "op-1", Source.TRIVY, [finding(1), finding(2)])
    assert await held.store.count("op-1") == 3
    await held.store.stage("ws-1", "op-1", Source.TRIVY, [])
    assert await ids(held, "op-1") == [ours.id]


async def test_the_list_is_worst_first_filtered_and_paged(held: Held) -> None:
    severities = list(Severity)
    all_of_them = [
        finding(
            n,
            severity=severities[n % 4],
            score=float(n % 3),
            category=Category.RBAC if n % 2 else Category.HYGIENE,
            resource=Where(kind="Role", namespace="pay" if n < 10 else "shop", name="r"),
        )
        for n in range(40)
    ]
    await held.store.stage("ws-1", "op-1", Source.TRIVY, all_of_them)
    expected = [one.id for one in sorted(all_of_them, key=lambda one: (one.weight, one.id))]
    assert await ids(held, "op-1", limit=100) == expected
    seen: list[str] = []
    after = None
    while page := await held.store.find("op-1", FindingFilter(limit=7, after=after)):
        seen += [one.id for one in page]
        after = (page[-1].weight, page[-1].id)
    assert seen == expected
    some = await held.store.find(
        "op-1",
        FindingFilter(
            severities=frozenset({Severity.HIGH, Severity.LOW}),
            categories=frozenset({Category.RBAC}),
            namespace="pay",
            limit=100,
        ),
    )
    assert {one.id for one in some} == {"sec-001", "sec-003", "sec-005", "sec-007", "sec-009"}


async def test_publishing_forgets_the_scan_before_and_nothing_of_other_workspaces(held: Held) -> None:
    for workspace, scan_id in (("ws-1", "op-1"), ("ws-2", "op-2")):
        await held.store.stage(workspace, scan_id, Source.TRIVY, [finding(1)])
        await held.store.publish(workspace, scan(scan_id))
    await held.store.stage("ws-1", "op-3", Source.TRIVY, [finding(2)])
    assert await ids(held, "op-1") == ["sec-001"]
    await held.store.publish("ws-1", scan("op-3", 60))
    assert (await ids(held, "op-1"), await ids(held, "op-2"), await ids(held, "op-3")) == (
        [],
        ["sec-001"],
        ["sec-002"],
    )


async def test_a_running_scan_keeps_its_findings_while_another_is_published(held: Held) -> None:
    await held.store.stage("ws-1", "op-2", Source.TRIVY, [finding(2)])
    await held.store.stage("ws-1", "op-1", Source.TRIVY, [finding(1)])
    await held.store.publish("ws-1", scan("op-1"))
    assert await ids(held, "op-2") == ["sec-002"]


async def test_a_scan_that_looked_earlier_does_not_take_the_place_of_a_later_one(held: Held) -> None:
    await held.store.stage("ws-1", "op-1", Source.TRIVY, [finding(1)])
    await held.store.stage("ws-1", "op-2", Source.TRIVY, [finding(2)])
    await held.store.publish("ws-1", scan("op-2", 60))
    await held.store.publish("ws-1", scan("op-1", 0))
    last = await held.store.last("ws-1")
    assert last is not None
    assert last.id == "op-2"
    assert (await ids(held, "op-1"), await ids(held, "op-2")) == ([], ["sec-002"])


async def test_what_is_published_is_published_once_and_a_late_worker_changes_nothing(held: Held) -> None:
    await held.store.stage("ws-1", "op-1", Source.TRIVY, [finding(1)])
    for _ in range(2):
        await held.store.publish("ws-1", scan("op-1"))
    await held.store.stage("ws-1", "op-1", Source.TRIVY, [finding(7)])
    assert await ids(held, "op-1") == ["sec-001"]


async def test_scans_that_never_ended_are_swept_after_a_day(held: Held) -> None:
    if held.database is None:
        pytest.skip("the fake forgets with its process")
    await held.store.stage("ws-1", "op-dead", Source.TRIVY, [finding(1)])
    held.clock.advance(86_400)
    await held.store.stage("ws-1", "op-runs", Source.TRIVY, [finding(2)])
    held.clock.advance(60)
    for scan_id, at in (("op-1", 0), ("op-2", 60)):
        await held.store.stage("ws-1", scan_id, Source.TRIVY, [finding(3)])
        await held.store.publish("ws-1", scan(scan_id, at))
    async with held.database.read() as connection:
        left = set((await connection.execute(sa.select(security_findings.c.scan_id))).scalars())
    assert left == {"op-runs", "op-2"}
