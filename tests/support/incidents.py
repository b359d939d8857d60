"""Incidents in memory, and reports, alerts and notices to make them from."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import msgspec

from opsapi.incidents.alertmanager import Notice
from opsapi.incidents.announcing import event_of
from opsapi.incidents.errors import IncidentNotFound
from opsapi.incidents.model import (
    Alert,
    AlertStatus,
    Change,
    Entry,
    Incident,
    Scene,
    Severity,
    Source,
    State,
)
from opsapi.incidents.opening import Report, accept, keys_of
from opsapi.incidents.ports import Decide, IncidentFilter, IncidentStore, Linked, Merge, Sought, Transition
from opsapi.incidents.receiving import Receipt, sought_of
from opsapi.incidents.settings import IncidentSettings
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.webhooks.model import Event
from support.acting import NOON

SETTINGS = IncidentSettings(escalation_channels=("slack:#ops",))
ALERTS = System("incidents", "receive alerts")
_ids = count(1)


def next_id() -> str:
    return f"inc-{next(_ids):06}"


def make_incident(**changes: Any) -> Incident:
    held: dict[str, Any] = {
        "id": "inc-1",
        "workspace_id": "ws-123",
        "type": "application_failure",
        "severity": Severity.HIGH,
        "state": State.FIRING,
        "source": Source.API,
        "title": "The shop is slow",
        "created_by": "sa-agent",
        "opened_at": NOON,
        "fired_at": NOON,
        "last_seen_at": NOON,
    }
    return Incident(**(held | changes))


def make_report(**changes: Any) -> Report:
    held: dict[str, Any] = {
        "workspace_id": "ws-123",
        "type": "application_failure",
        "severity": Severity.HIGH,
        "source": Source.API,
        "title": "The shop is slow",
        "affected_applications": ("app-1",),
    }
    return Report(**(held | changes))


def make_alert(fingerprint: str = "00000001", status: AlertStatus = AlertStatus.FIRING, **changes: Any) -> Alert:
    held: dict[str, Any] = {
        "fingerprint": fingerprint,
        "status": status,
        "severity": Severity.HIGH,
        "labels": {"alertname": "HighErrorRate"},
        "annotations": {"summary": "Errors"},
        "starts_at": NOON,
        "ends_at": NOON if status is AlertStatus.RESOLVED else None,
        "application_id": "app-1",
    }
    return Alert(**(held | changes))


def make_notice(*alerts: Alert, group: str = "{}:{alertname=x}", **changes: Any) -> Notice:
    held: dict[str, Any] = {"workspace_id": "ws-123", "group": group, "alerts": alerts}
    return Notice(**(held | changes))


def ended(alert: Alert) -> Alert:
    return msgspec.structs.replace(alert, status=AlertStatus.RESOLVED, ends_at=NOON)


class FakeIncidents:
    """Implements IncidentStore. `events` is the outbox, `audited` holds (who, status, incidents)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.held: dict[str, Incident] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.kept_alerts: dict[str, dict[str, Alert]] = {}
        self.kept_entries: dict[str, list[Entry]] = {}
        self.links: dict[str, Linked] = {}
        self.events: list[Event] = []
        self.audited: list[tuple[str, int, tuple[str, ...]]] = []

    async def report(
        self, sought: Sought, decide: Decide, by: Call | System, *, opened_status: int = 200
    ) -> list[Incident]:
        by_key = {key: self.held[found] for key in sought.keys if (found := self.keys.get((sought.workspace_id, key)))}
        alike = [
            one
            for one in self.held.values()
            if (one.workspace_id, one.type) == (sought.workspace_id, sought.type)
            and one.state.open
            and set(one.affected_applications) & set(sought.applications)
        ]
        alike.sort(key=lambda one: (-one.last_seen_at.timestamp(), one.id))
        ids = {one.id for one in (*by_key.values(), *alike)}
        alerts = {one: dict(self.kept_alerts[one]) for one in ids if self.kept_alerts.get(one)}
        changes = decide(Scene(by_key=by_key, alike=tuple(alike[:5]), alerts=alerts))
        status = opened_status if any(change.before is None for change in changes) else 200
        return self._write(changes, by, status)

    async def change(self, incident_id: str, decide: Transition, by: Call | System) -> Incident:
        if incident_id not in self.held:
            raise IncidentNotFound(incident_id)
        change = decide(self.held[incident_id])
        settled = self.links.get(change.settles or "")
        if change.operation_id in self.links or (settled is not None and settled.settled_at is not None):
            return self.held[incident_id]
        return self._write([change], by, 200)[0]

    async def merge(self, source_id: str, target_id: str, decide: Merge, by: Call | System) -> Incident:
        source, target = self.held.get(source_id), self.held.get(target_id)
        if source is None:
            raise IncidentNotFound(source_id)
        if target is None or target.workspace_id != source.workspace_id:
            raise IncidentNotFound(target_id)
        self._write(decide(source, target), by, 200)
        return self.held[source_id]

    def _write(self, changes: Sequence[Change], by: Call | System, status: int) -> list[Incident]:
        now, written = self.clock.now(), []
        for change in changes:
            before = change.before
            first = before.entries if before is not None else 0
            after = msgspec.structs.replace(change.after, entries=first + len(change.entries))
            self.held[after.id] = after
            if change.takes_over is not None:
                moved = self.kept_alerts.pop(change.takes_over, {})
                self.kept_alerts[after.id] = moved | self.kept_alerts.get(after.id, {})
                self.keys = {key: after.id if to == change.takes_over else to for key, to in self.keys.items()}
            self.keys |= {(after.workspace_id, key): after.id for key in change.keys}
            self.kept_alerts.setdefault(after.id, {}).update({one.fingerprint: one for one in change.alerts})
            self.kept_entries.setdefault(after.id, []).extend(change.entries)
            if change.operation_id is not None and change.operation_id not in self.links:
                link = Linked(incident_id=after.id, operation_id=change.operation_id, linked_at=now)
                self.links[change.operation_id] = link
            if change.settles in self.links:
                self.links[change.settles] = msgspec.structs.replace(self.links[change.settles], settled_at=now)
            self.events += [event_of(after, told, now) for told in change.announced]
            written.append(after)
        self._audit([after for change, after in zip(changes, written, strict=True) if change.entries], by, status)
        return written

    def _audit(self, told: list[Incident], by: Call | System, status: int) -> None:
        if not told:
            return
        if isinstance(by, Call):
            by.audit.workspace_id, by.audit.committed = told[0].workspace_id, True
            by.audit.resource = ", ".join(f"incident/{one.id}" for one in told[:20])
            self.audited.append((by.caller.account_id, status, tuple(one.id for one in told)))
        else:
            self.audited += [(by.account_id, status, (one.id,)) for one in told]

    async def get(self, incident_id: str) -> Incident | None:
        return self.held.get(incident_id)

    async def find(self, wanted: IncidentFilter) -> list[Incident]:
        found = [
            one
            for one in self.held.values()
            if (wanted.workspaces is None or one.workspace_id in wanted.workspaces)
            and (wanted.states is None or one.state in wanted.states)
            and (wanted.severities is None or one.severity in wanted.severities)
            and (wanted.type is None or one.type == wanted.type)
            and (wanted.application_id is None or wanted.application_id in one.affected_applications)
        ]
        found.sort(key=lambda one: (one.opened_at, one.id), reverse=True)
        found.sort(key=lambda one: one.rank)
        if wanted.before is not None:
            rank, at, last = wanted.before
            found = [
                one for one in found if one.rank > rank or (one.rank == rank and (one.opened_at, one.id) < (at, last))
            ]
        return found[: wanted.limit]

    async def timeline(self, incident_id: str, limit: int) -> list[Entry]:
        return self.kept_entries.get(incident_id, [])[-limit:]

    async def alerts(self, incident_id: str, limit: int) -> list[Alert]:
        found = sorted(self.kept_alerts.get(incident_id, {}).values(), key=lambda one: one.fingerprint)
        found.sort(key=lambda one: one.starts_at, reverse=True)
        found.sort(key=lambda one: (one.status is not AlertStatus.FIRING, one.severity.rank))
        return found[:limit]

    async def operations(self, incident_id: str) -> list[Linked]:
        found = [one for one in self.links.values() if one.incident_id == incident_id]
        return sorted(found, key=lambda one: one.linked_at, reverse=True)

    async def linked(self, operation_id: str) -> Linked | None:
        return self.links.get(operation_id)

    async def unsettled(self, limit: int) -> list[Linked]:
        found = [one for one in self.links.values() if one.settled_at is None]
        return sorted(found, key=lambda one: one.linked_at)[:limit]

    async def overdue(self, before: datetime, limit: int) -> list[Incident]:
        found = [
            one
            for one in self.held.values()
            if one.state is State.FIRING
            and one.fired_at <= before
            and one.severity in (Severity.CRITICAL, Severity.HIGH)
        ]
        return sorted(found, key=lambda one: one.fired_at)[:limit]

    async def purge(self, before: datetime, limit: int = 500) -> int:
        gone = [one.id for one in self.held.values() if not one.state.open and one.last_seen_at < before][:limit]
        for one in gone:
            del self.held[one]
            self.kept_alerts.pop(one, None)
            self.kept_entries.pop(one, None)
        self.keys = {key: to for key, to in self.keys.items() if to not in gone}
        self.links = {key: one for key, one in self.links.items() if one.incident_id not in gone}
        return len(gone)


async def tell(
    store: IncidentStore,
    report: Report,
    now: datetime,
    by: Call | System = ALERTS,
    settings: IncidentSettings = SETTINGS,
) -> Incident | None:
    """As the service's own code does."""

    def decide(scene: Scene) -> Sequence[Change]:
        actor = by.caller.account_id if isinstance(by, Call) else by.account_id
        change = accept(scene, report, settings, actor, now, next_id())
        return [] if change is None else [change]

    sought = Sought(
        workspace_id=report.workspace_id,
        keys=keys_of(report),
        type=report.type,
        applications=report.affected_applications,
    )
    written = await store.report(sought, decide, by, opened_status=201)
    return written[0] if written else None


async def notify(
    store: IncidentStore,
    notice: Notice,
    now: datetime,
    by: Call | System = ALERTS,
    settings: IncidentSettings = SETTINGS,
) -> list[Incident]:
    def decide(scene: Scene) -> Sequence[Change]:
        return Receipt(scene, notice, settings, "system:incidents", now, next_id).changes()

    return await store.report(sought_of(notice), decide, by)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)
