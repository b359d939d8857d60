"""Incidents' store: the fake, SQLite and PostgreSQL keep the same promises."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.incidents import SqlIncidentStore
from opsapi.adapters.sql.tables import incidents, outbox_events
from opsapi.audit.ports import AuditFilter
from opsapi.incidents.errors import IncidentNotFound
from opsapi.incidents.model import Change, EntryKind, Incident, Severity, State
from opsapi.incidents.ports import IncidentFilter, IncidentStore
from opsapi.incidents.transitions import acknowledge, check_seen, escalate, merge, noted, resolve
from opsapi.kit.caller import System
from opsapi.kit.errors import InvalidState
from support.acting import NOON, SetClock, make_call, make_caller
from support.database import ENGINES, fresh_database
from support.incidents import (
    ALERTS,
    FakeIncidents,
    ended,
    later,
    make_alert,
    make_notice,
    make_report,
    notify,
    tell,
)


@dataclass
class Stores:
    incidents: IncidentStore
    clock: SetClock
    database: Database | None

    async def told(self) -> list[dict[str, Any]]:
        """The outbox: type, channels and data of every event, in order."""
        if self.database is None:
            assert isinstance(self.incidents, FakeIncidents)
            return [
                {"type": event.type.value, "channels": list(event.channels), "data": event.data}
                for event in self.incidents.events
            ]
        columns = outbox_events.c
        statement = sa.select(columns.type, columns.channels, columns.data).order_by(columns.occurred_at, columns.id)
        async with self.database.read() as connection:
            return [dict(row) for row in (await connection.execute(statement)).mappings()]

    async def audited(self) -> list[tuple[str | None, int, str | None]]:
        if self.database is None:
            assert isinstance(self.incidents, FakeIncidents)
            return [
                (who, status, ", ".join(f"incident/{one}" for one in ids))
                for who, status, ids in self.incidents.audited
            ]
        page = await SqlAuditStore(self.database).page(AuditFilter(workspaces=None), None, 100)
        return [(entry.account_id, entry.status, entry.resource) for entry in page]

    async def opened(self, **changes: Any) -> Incident:
        found = await tell(self.incidents, make_report(**changes), self.clock.now())
        assert found is not None
        return found

    async def kinds(self, incident: Incident) -> list[EntryKind]:
        return [entry.kind for entry in await self.incidents.timeline(incident.id, 100)]


@pytest.fixture(params=[pytest.param("fake"), *ENGINES])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    clock = SetClock()
    if request.param == "fake":
        yield Stores(FakeIncidents(clock), clock, None)
        return
    async with fresh_database(request, request.param) as database:
        yield Stores(SqlIncidentStore(database, clock), clock, database)


async def test_a_report_opens_an_incident_that_comes_back_as_it_was_written(stores: Stores) -> None:
    call = make_call(make_caller("incident:write"), "create_incident")
    report = make_report(title="Zoë’s shop, 日本", description="two\nlines", symptoms=("pod_crashes",), key="key:1")
    opened = await tell(stores.incidents, report, NOON, call)
    assert opened is not None
    assert await stores.incidents.get(opened.id) == opened
    assert (opened.state, opened.title, opened.entries) == (State.FIRING, "Zoë’s shop, 日本", 1)
    assert (call.audit.committed, call.audit.workspace_id) == (True, "ws-123")
    assert await stores.audited() == [("sa-agent", 201, f"incident/{opened.id}")]
    (event,) = await stores.told()
    assert event["type"] == "internal.incident.opened"
    assert event["data"]["incident_id"] == opened.id
    assert await stores.incidents.get("inc-none") is None


async def test_the_same_key_never_opens_a_second_one(stores: Stores) -> None:
    report = make_report(key="key:1", affected_applications=())
    first = await tell(stores.incidents, report, NOON)
    again = await tell(stores.incidents, msgspec.structs.replace(report, severity=Severity.CRITICAL), later(900))
    assert first is not None
    assert again is not None
    assert again.id == first.id
    assert again.severity is Severity.CRITICAL
    assert await stores.kinds(first) == [EntryKind.OPENED, EntryKind.REPORTED, EntryKind.SEVERITY_RAISED]
    assert len(await stores.incidents.find(IncidentFilter(workspaces=None))) == 1


async def test_the_same_key_in_another_workspace_is_another_incident(stores: Stores) -> None:
    first = await stores.opened(key="key:1")
    second = await stores.opened(key="key:1", workspace_id="ws-other")
    assert first.id != second.id
    assert second.workspace_id == "ws-other"


async def test_many_at_once_open_one(stores: Stores) -> None:
    found = await asyncio.gather(
        *(tell(stores.incidents, make_report(key="key:1", affected_applications=()), NOON) for _ in range(8))
    )
    assert len({one.id for one in found if one is not None}) == 1
    (only,) = await stores.incidents.find(IncidentFilter(workspaces=None))
    assert only.entries == 8


async def test_reports_about_one_application_at_once_become_one_incident(stores: Stores) -> None:
    found = await asyncio.gather(*(tell(stores.incidents, make_report(key=f"key:{n}"), NOON) for n in range(6)))
    assert len({one.id for one in found if one is not None}) == 1


async def test_the_same_group_at_once_from_two_alertmanagers_opens_one(stores: Stores) -> None:
    notice = make_notice(make_alert("00000001"), make_alert("00000002"))
    await asyncio.gather(*(notify(stores.incidents, notice, NOON) for _ in range(6)))
    (only,) = await stores.incidents.find(IncidentFilter(workspaces=None))
    assert (only.alerts_firing, only.alerts_total) == (2, 2)
    assert await stores.kinds(only) == [EntryKind.OPENED, EntryKind.ALERTS_FIRING]
    assert [event["type"] for event in await stores.told()] == ["internal.incident.opened"]


async def test_of_two_who_act_at_once_one_wins_and_the_other_is_told(stores: Stores) -> None:
    incident = await stores.opened()

    def acknowledged(held: Incident) -> Change:
        check_seen(held, incident.revision)
        return acknowledge(held, "sa-1", NOON)

    def resolved(held: Incident) -> Change:
        check_seen(held, incident.revision)
        return resolve(held, "sa-2", NOON, "done")

    ends = await asyncio.gather(
        stores.incidents.change(incident.id, acknowledged, make_call()),
        stores.incidents.change(incident.id, resolved, make_call()),
        stores.incidents.change(incident.id, acknowledged, make_call()),
        return_exceptions=True,
    )
    won = [end for end in ends if isinstance(end, Incident)]
    assert len(won) == 1
    assert sum(isinstance(end, InvalidState) for end in ends) == 2
    assert await stores.incidents.get(incident.id) == won[0]
    assert won[0].entries == 2


async def test_what_is_refused_leaves_nothing_behind(stores: Stores) -> None:
    (incident,) = await notify(stores.incidents, make_notice(make_alert()), NOON)
    call = make_call()
    before = (await stores.told(), await stores.audited(), await stores.kinds(incident))
    with pytest.raises(InvalidState):
        await stores.incidents.change(incident.id, lambda held: resolve(held, "sa-1", NOON, "done"), call)
    assert not call.audit.committed
    assert (await stores.told(), await stores.audited(), await stores.kinds(incident)) == before


async def test_what_nobody_knows_cannot_be_changed(stores: Stores) -> None:
    with pytest.raises(IncidentNotFound):
        await stores.incidents.change("inc-none", lambda held: noted(held, "sa-1", NOON, "x"), make_call())


async def test_an_automatic_escalation_is_audited_and_goes_to_the_channels(stores: Stores) -> None:
    incident = await stores.opened()
    by = System("incidents", "escalate")
    told = await stores.incidents.change(
        incident.id, lambda held: escalate(held, by.account_id, NOON, channels=("slack:#ops",), why="too long"), by
    )
    assert told.state is State.ESCALATED
    assert ("system:incidents", 200, f"incident/{incident.id}") in await stores.audited()
    (event,) = [one for one in await stores.told() if one["type"] == "internal.incident.escalated"]
    assert event["channels"] == ["slack:#ops"]
    assert event["data"]["status"] == "escalated"


async def test_a_merged_incident_keeps_its_timeline_and_what_comes_later_goes_to_the_other(stores: Stores) -> None:
    alert = make_alert(application_id=None)
    (source,) = await notify(stores.incidents, make_notice(alert), NOON)
    target = await stores.opened(affected_applications=("app-9",))
    merged = await stores.incidents.merge(
        source.id, target.id, lambda one, other: merge(one, other, "sa-1", NOON), make_call()
    )
    assert (merged.state, merged.merged_into) == (State.MERGED, target.id)
    assert await stores.kinds(source) == [EntryKind.OPENED, EntryKind.ALERTS_FIRING, EntryKind.MERGED]
    assert await stores.incidents.alerts(source.id, 10) == []
    assert await stores.incidents.alerts(target.id, 10) == [alert]
    with pytest.raises(InvalidState):
        await stores.incidents.change(target.id, lambda held: resolve(held, "sa-1", NOON, "done"), make_call())
    (told,) = await notify(stores.incidents, make_notice(ended(alert)), later(60))
    assert (told.id, told.alerts_firing, told.alerts_total) == (target.id, 0, 1)


async def test_nothing_is_merged_over_workspaces(stores: Stores) -> None:
    one, other = await stores.opened(), await stores.opened(workspace_id="ws-other")
    with pytest.raises(IncidentNotFound):
        await stores.incidents.merge(one.id, other.id, lambda a, b: merge(a, b, "sa-1", NOON), make_call())
    assert (await stores.kinds(one), await stores.kinds(other)) == ([EntryKind.OPENED], [EntryKind.OPENED])


async def test_lists_hold_the_open_the_worst_and_the_newest_first_page_by_page(stores: Stores) -> None:
    made: list[Incident] = []
    for number, severity in enumerate((Severity.LOW, Severity.CRITICAL, Severity.HIGH, Severity.CRITICAL)):
        stores.clock.advance(1)
        made.append(await stores.opened(severity=severity, affected_applications=(f"app-{number}",)))
    await stores.incidents.change(made[3].id, lambda held: resolve(held, "sa-1", NOON, "done"), make_call())
    wanted = IncidentFilter(workspaces=None, limit=2)
    first = await stores.incidents.find(wanted)
    last = first[-1]
    rest = await stores.incidents.find(msgspec.structs.replace(wanted, before=(last.rank, last.opened_at, last.id)))
    assert [one.id for one in (*first, *rest)] == [made[1].id, made[2].id, made[0].id, made[3].id]


async def test_lists_hold_what_was_asked_for_alone(stores: Stores) -> None:
    high = await stores.opened(affected_applications=("app-1", "app-2"))
    low = await stores.opened(severity=Severity.LOW, type="other", affected_applications=("app-3",))
    elsewhere = await stores.opened(workspace_id="ws-other")

    async def found(**wanted: Any) -> set[str]:
        given: dict[str, Any] = {"workspaces": None}
        return {one.id for one in await stores.incidents.find(IncidentFilter(**(given | wanted)))}

    assert await found() == {high.id, low.id, elsewhere.id}
    assert await found(workspaces=frozenset({"ws-123"})) == {high.id, low.id}
    assert await found(workspaces=frozenset()) == set()
    assert await found(severities=frozenset({Severity.LOW})) == {low.id}
    assert await found(application_id="app-2") == {high.id}
    assert await found(type="other") == {low.id}
    assert await found(states=frozenset({State.RESOLVED})) == set()


async def test_alerts_come_back_as_they_were_firing_ones_and_the_worst_first(stores: Stores) -> None:
    alerts = [
        make_alert("00000001", severity=Severity.LOW, labels={"alertname": "Zoë", "x": "\u202e日本"}),
        make_alert("00000002", severity=Severity.CRITICAL, starts_at=later(-60)),
        make_alert("00000003", severity=Severity.CRITICAL),
    ]
    (incident,) = await notify(stores.incidents, make_notice(*alerts), NOON)
    gone = ended(alerts[2])
    await notify(stores.incidents, make_notice(gone), later(30))
    assert await stores.incidents.alerts(incident.id, 10) == [alerts[1], alerts[0], gone]
    assert await stores.incidents.alerts(incident.id, 1) == [alerts[1]]


async def test_the_newest_entries_come_in_the_order_in_which_they_happened(stores: Stores) -> None:
    incident = await stores.opened()
    for number in range(5):
        note = f"note {number}"
        await stores.incidents.change(incident.id, lambda held, n=note: noted(held, "sa-1", NOON, n), make_call())  # type: ignore[misc]
    newest = await stores.incidents.timeline(incident.id, 2)
    assert [entry.details["note"] for entry in newest] == ["note 3", "note 4"]


async def test_an_operation_is_linked_and_settled_once_and_the_timeline_told_once(stores: Stores) -> None:
    incident = await stores.opened()

    def linked(held: Incident) -> Change:
        return msgspec.structs.replace(noted(held, "sa-1", NOON, "it began"), operation_id="op-1")

    await stores.incidents.change(incident.id, linked, ALERTS)
    await stores.incidents.change(incident.id, linked, ALERTS)
    (link,) = await stores.incidents.unsettled(10)
    assert (link.incident_id, link.operation_id, link.settled_at) == (incident.id, "op-1", None)
    assert await stores.incidents.operations(incident.id) == [link]
    stores.clock.advance(5)
    settled = lambda held: msgspec.structs.replace(noted(held, "sa-1", NOON, "it ended"), settles="op-1")  # noqa: E731
    await stores.incidents.change(incident.id, settled, ALERTS)
    stores.clock.advance(5)
    assert (await stores.incidents.change(incident.id, settled, ALERTS)).entries == 3
    notes = [entry.details.get("note") for entry in await stores.incidents.timeline(incident.id, 10)]
    assert notes == [None, "it began", "it ended"]
    assert await stores.incidents.unsettled(10) == []
    found = await stores.incidents.linked("op-1")
    assert found is not None
    assert found.settled_at == later(5)
    assert await stores.incidents.linked("op-none") is None


async def test_what_is_overdue_is_bad_unacknowledged_and_fires_for_too_long(stores: Stores) -> None:
    bad = await stores.opened()
    await stores.opened(severity=Severity.MEDIUM, affected_applications=("app-2",))
    seen = await stores.opened(affected_applications=("app-3",))
    await stores.incidents.change(seen.id, lambda held: acknowledge(held, "sa-1", NOON), make_call())
    stores.clock.advance(60)
    await stores.opened(affected_applications=("app-4",))
    assert [one.id for one in await stores.incidents.overdue(NOON, 10)] == [bad.id]
    assert await stores.incidents.overdue(NOON - timedelta(seconds=1), 10) == []


async def test_what_was_closed_long_ago_is_forgotten_with_all_that_belongs_to_it(stores: Stores) -> None:
    (old,) = await notify(stores.incidents, make_notice(make_alert()), NOON)
    await notify(stores.incidents, make_notice(ended(make_alert())), NOON)
    open_one = await stores.opened(affected_applications=("app-2",))
    assert await stores.incidents.purge(later(1)) == 1
    assert await stores.incidents.get(old.id) is None
    assert await stores.incidents.get(open_one.id) is not None
    assert await stores.incidents.timeline(old.id, 10) == []
    (again,) = await notify(stores.incidents, make_notice(make_alert()), NOON)
    assert again.id != old.id


async def test_a_thousand_alerts_are_one_incident(stores: Stores) -> None:
    alerts = [make_alert(f"{number:08x}", application_id=None) for number in range(1000)]
    (incident,) = await notify(stores.incidents, make_notice(*alerts), NOON)
    assert (incident.alerts_firing, incident.entries) == (1000, 2)
    (same,) = await notify(stores.incidents, make_notice(*alerts), later(60))
    assert (same.id, same.entries, same.last_seen_at) == (incident.id, 2, later(60))
    (over,) = await notify(stores.incidents, make_notice(*map(ended, alerts)), later(90))
    assert (over.state, over.alerts_firing, over.alerts_total) == (State.RESOLVED, 0, 1000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "gone"},
        {"severity": "mild"},
        {"state": "resolved"},
        {"resolved_at": NOON},
        {"state": "merged"},
        {"merged_into": "inc-2"},
        {"state": "acknowledged"},
        {"state": "escalated"},
        {"state": "resolved", "resolved_at": NOON, "alerts_firing": 1},
    ],
)
async def test_the_database_keeps_no_incident_that_the_state_machine_knows_nothing_of(
    database: Database, wrong: dict[str, object]
) -> None:
    found = await tell(SqlIncidentStore(database, SetClock()), make_report(), NOON)
    assert found is not None
    with pytest.raises(exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(sa.update(incidents).where(incidents.c.id == found.id).values(wrong))
