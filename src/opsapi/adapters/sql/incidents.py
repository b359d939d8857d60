"""Incidents with all that belongs to them. A workspace's changes come one after the other, so that what was decided on
what was read still holds when it is written."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call, insert_entry
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.incident_rows import (
    alert_of,
    alert_row,
    entry_of,
    entry_row,
    incident_of,
    incident_row,
    linked_of,
)
from opsapi.adapters.sql.outbox import insert_event
from opsapi.adapters.sql.tables import (
    incident_alerts,
    incident_applications,
    incident_entries,
    incident_keys,
    incident_operations,
    incidents,
)
from opsapi.audit.model import system_entry
from opsapi.incidents.announcing import event_of
from opsapi.incidents.errors import IncidentNotFound
from opsapi.incidents.model import OPEN, Alert, Change, Entry, Incident, Scene, Severity, State
from opsapi.incidents.ports import Decide, IncidentFilter, Linked, Merge, Sought, Transition
from opsapi.kit.caller import AuditTrail, Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable

_I = incidents.c
_KEY = incident_keys.c
_ALERT = incident_alerts.c
_ENTRY = incident_entries.c
_LINK = incident_operations.c
_OPEN = sorted(state.value for state in OPEN)
_CLOSED = (State.RESOLVED.value, State.MERGED.value)
_MOST_ALIKE = 5
_BELONGINGS = (incident_applications, incident_keys, incident_alerts, incident_entries, incident_operations)


class SqlIncidentStore:
    """Implements IncidentStore."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db = database
        self._clock = clock

    async def report(
        self, sought: Sought, decide: Decide, by: Call | System, *, opened_status: int = 200
    ) -> list[Incident]:
        async with self._db.write() as connection:
            await self._turn(connection, sought.workspace_id)
            changes = decide(await _scene(connection, sought))
            status = opened_status if any(change.before is None for change in changes) else 200
            written = await self._write(connection, changes, by, status)
        return self._done(by, changes, written)

    async def change(self, incident_id: str, decide: Transition, by: Call | System) -> Incident:
        async with self._db.write() as connection:
            held = await self._held(connection, incident_id)
            changes = [decide(held)]
            if await _told_before(connection, changes[0]):
                return held
            written = await self._write(connection, changes, by, 200)
        return self._done(by, changes, written)[0]

    async def merge(self, source_id: str, target_id: str, decide: Merge, by: Call | System) -> Incident:
        async with self._db.write() as connection:
            source = await self._held(connection, source_id)
            target = await _load(connection, target_id)
            if target is None or target.workspace_id != source.workspace_id:
                raise IncidentNotFound(target_id)
            changes = decide(source, target)
            written = await self._write(connection, changes, by, 200)
        self._done(by, changes, written)
        return next(incident for incident in written if incident.id == source_id)

    async def _held(self, connection: AsyncConnection, incident_id: str) -> Incident:
        """As it is once its workspace's turn is ours."""
        workspace_id = (await connection.execute(sa.select(_I.workspace_id).where(_I.id == incident_id))).scalar()
        if workspace_id is None:
            raise IncidentNotFound(incident_id)
        await self._turn(connection, workspace_id)
        held = await _load(connection, incident_id)
        if held is None:
            raise IncidentNotFound(incident_id)
        return held

    async def _turn(self, connection: AsyncConnection, workspace_id: str) -> None:
        """SQLite's writers come one after the other anyway."""
        if not self._db.is_sqlite:
            name = sa.func.hashtextextended(f"incidents of {workspace_id}", 0)
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(name)))

    async def _write(
        self, connection: AsyncConnection, changes: Sequence[Change], by: Call | System, status: int
    ) -> list[Incident]:
        now = self._clock.now()
        written = []
        for change in changes:
            after = await self._put(connection, change)
            for told in change.announced:
                await insert_event(connection, event_of(after, told, now))
            written.append(after)
        telling = [after for change, after in zip(changes, written, strict=True) if change.entries]
        if telling:
            await self._audit(connection, telling, by, status, now)
        return written

    async def _put(self, connection: AsyncConnection, change: Change) -> Incident:
        before = change.before
        first = before.entries if before is not None else 0
        after = msgspec.structs.replace(change.after, entries=first + len(change.entries))
        if before is None:
            await connection.execute(sa.insert(incidents), incident_row(after))
        else:
            seen = sa.and_(_I.id == before.id, _I.revision == before.revision, _I.state == before.state.value)
            done = await connection.execute(sa.update(incidents).where(seen).values(incident_row(after)))
            if done.rowcount != 1:
                raise DependencyUnavailable("database", "the incident was just changed by another", retry_after=1)
        if change.takes_over is not None:
            await _take_over(connection, change.takes_over, after.id)
        await self._put_applications(connection, before, after)
        if change.keys:
            rows = [
                {"workspace_id": after.workspace_id, "key": key, "incident_id": after.id}
                for key in dict.fromkeys(change.keys)
            ]
            statement = self._db.insert(incident_keys)
            latest = {"incident_id": statement.excluded.incident_id}
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["workspace_id", "key"], set_=latest), rows
            )
        await self._put_alerts(connection, after.id, change.alerts)
        if change.entries:
            entries = [entry_row(after.id, first + number, entry) for number, entry in enumerate(change.entries)]
            await connection.execute(sa.insert(incident_entries), entries)
        await self._put_operations(connection, change, after)
        return after

    async def _put_applications(self, connection: AsyncConnection, before: Incident | None, after: Incident) -> None:
        known = before.affected_applications if before is not None else ()
        rows = [
            {"incident_id": after.id, "application_id": one} for one in after.affected_applications if one not in known
        ]
        if rows:
            statement = self._db.insert(incident_applications).on_conflict_do_nothing()
            await connection.execute(statement, rows)

    async def _put_alerts(self, connection: AsyncConnection, incident_id: str, alerts: Sequence[Alert]) -> None:
        if not alerts:
            return
        rows = [alert_row(incident_id, alert) for alert in alerts]
        statement = self._db.insert(incident_alerts)
        latest = {name: statement.excluded[name] for name in rows[0] if name not in ("incident_id", "fingerprint")}
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["incident_id", "fingerprint"], set_=latest), rows
        )

    async def _put_operations(self, connection: AsyncConnection, change: Change, after: Incident) -> None:
        now = self._clock.now()
        if change.operation_id is not None:
            row = {"operation_id": change.operation_id, "incident_id": after.id, "linked_at": now}
            await connection.execute(self._db.insert(incident_operations).values(row).on_conflict_do_nothing())
        if change.settles is not None:
            here = _LINK.operation_id == change.settles
            await connection.execute(sa.update(incident_operations).where(here).values(settled_at=now))

    async def _audit(
        self, connection: AsyncConnection, told: Sequence[Incident], by: Call | System, status: int, now: datetime
    ) -> None:
        """One entry of a call, whatever it changed; one an incident of what the service does by itself."""
        if isinstance(by, Call):
            by.audit.workspace_id = told[0].workspace_id
            resource = ", ".join(f"incident/{one.id}" for one in told[:20])
            await insert_call(connection, by, status, now=self._clock.monotonic(), at=now, resource=resource)
            return
        for one in told:
            trail = AuditTrail(workspace_id=one.workspace_id, resource=f"incident/{one.id}")
            await insert_entry(connection, system_entry(by, status, at=now, trail=trail))

    def _done(self, by: Call | System, changes: Sequence[Change], written: list[Incident]) -> list[Incident]:
        if isinstance(by, Call) and any(change.entries for change in changes):
            by.audit.committed = True
        return written

    async def get(self, incident_id: str) -> Incident | None:
        async with self._db.read() as connection:
            return await _load(connection, incident_id)

    async def find(self, wanted: IncidentFilter) -> list[Incident]:
        statement = sa.select(incidents).where(*_conditions(wanted))
        if wanted.before is not None:
            rank, at, last = wanted.before
            later = sa.tuple_(_I.opened_at, _I.id) < sa.tuple_(sa.literal(at, _I.opened_at.type), last)
            statement = statement.where(sa.or_(_I.rank > rank, sa.and_(_I.rank == rank, later)))
        statement = statement.order_by(_I.rank, _I.opened_at.desc(), _I.id.desc()).limit(wanted.limit)
        async with self._db.read() as connection:
            return [incident_of(row) for row in (await connection.execute(statement)).mappings()]

    async def timeline(self, incident_id: str, limit: int) -> list[Entry]:
        own = sa.select(incident_entries).where(_ENTRY.incident_id == incident_id)
        async with self._db.read() as connection:
            rows = (await connection.execute(own.order_by(_ENTRY.position.desc()).limit(limit))).mappings().all()
        return [entry_of(row) for row in reversed(rows)]

    async def alerts(self, incident_id: str, limit: int) -> list[Alert]:
        own = sa.select(incident_alerts).where(_ALERT.incident_id == incident_id)
        ordered = own.order_by(_ALERT.rank, _ALERT.starts_at.desc(), _ALERT.fingerprint).limit(limit)
        async with self._db.read() as connection:
            return [alert_of(row) for row in (await connection.execute(ordered)).mappings()]

    async def operations(self, incident_id: str) -> list[Linked]:
        own = sa.select(incident_operations).where(_LINK.incident_id == incident_id)
        async with self._db.read() as connection:
            rows = (await connection.execute(own.order_by(_LINK.linked_at.desc()))).mappings()
            return [linked_of(row) for row in rows]

    async def linked(self, operation_id: str) -> Linked | None:
        async with self._db.read() as connection:
            return await _linked(connection, operation_id)

    async def unsettled(self, limit: int) -> list[Linked]:
        statement = sa.select(incident_operations).where(_LINK.settled_at.is_(None)).order_by(_LINK.linked_at)
        async with self._db.read() as connection:
            return [linked_of(row) for row in (await connection.execute(statement.limit(limit))).mappings()]

    async def overdue(self, before: datetime, limit: int) -> list[Incident]:
        bad = (Severity.CRITICAL.value, Severity.HIGH.value)
        statement = (
            sa.select(incidents)
            .where(_I.state == State.FIRING.value, _I.fired_at <= before, _I.severity.in_(bad))
            .order_by(_I.fired_at)
            .limit(limit)
        )
        async with self._db.read() as connection:
            return [incident_of(row) for row in (await connection.execute(statement)).mappings()]

    async def purge(self, before: datetime, limit: int = 500) -> int:
        old = sa.select(_I.id).where(_I.state.in_(_CLOSED), _I.last_seen_at < before).limit(limit)
        async with self._db.write() as connection:
            ids = (await connection.execute(old)).scalars().all()
            for table in _BELONGINGS:
                await connection.execute(sa.delete(table).where(table.c.incident_id.in_(ids)))
            await connection.execute(sa.delete(incidents).where(_I.id.in_(ids)))
        return len(ids)


async def _load(connection: AsyncConnection, incident_id: str) -> Incident | None:
    row = (await connection.execute(sa.select(incidents).where(_I.id == incident_id))).mappings().one_or_none()
    return None if row is None else incident_of(row)


async def _scene(connection: AsyncConnection, sought: Sought) -> Scene:
    by_key: dict[str, Incident] = {}
    if sought.keys:
        keyed = (
            sa.select(_KEY.key, incidents)
            .join(incident_keys, _KEY.incident_id == _I.id)
            .where(_KEY.workspace_id == sought.workspace_id, _KEY.key.in_(sought.keys))
        )
        by_key = {row["key"]: incident_of(row) for row in (await connection.execute(keyed)).mappings()}
    alike: list[Incident] = []
    if sought.applications:
        about = sa.select(incident_applications.c.incident_id).where(
            incident_applications.c.application_id.in_(sought.applications)
        )
        same = (
            sa.select(incidents)
            .where(_I.workspace_id == sought.workspace_id, _I.type == sought.type)
            .where(_I.state.in_(_OPEN), _I.id.in_(about))
            .order_by(_I.last_seen_at.desc(), _I.id)
            .limit(_MOST_ALIKE)
        )
        alike = [incident_of(row) for row in (await connection.execute(same)).mappings()]
    ids = {incident.id for incident in (*by_key.values(), *alike)}
    alerts: dict[str, dict[str, Alert]] = {}
    if ids:
        theirs = sa.select(incident_alerts).where(_ALERT.incident_id.in_(sorted(ids)))
        for row in (await connection.execute(theirs)).mappings():
            alerts.setdefault(row["incident_id"], {})[row["fingerprint"]] = alert_of(row)
    return Scene(by_key=by_key, alike=tuple(alike), alerts=alerts)


async def _linked(connection: AsyncConnection, operation_id: str) -> Linked | None:
    statement = sa.select(incident_operations).where(_LINK.operation_id == operation_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else linked_of(row)


async def _told_before(connection: AsyncConnection, change: Change) -> bool:
    """Whether somebody was faster to tell of an operation's beginning or end."""
    if change.operation_id is not None and await _linked(connection, change.operation_id) is not None:
        return True
    settled = await _linked(connection, change.settles) if change.settles is not None else None
    return settled is not None and settled.settled_at is not None


async def _take_over(connection: AsyncConnection, source_id: str, target_id: str) -> None:
    """What both have is the target's already."""
    own = sa.select(_ALERT.fingerprint).where(_ALERT.incident_id == target_id)
    theirs = _ALERT.incident_id == source_id
    await connection.execute(sa.delete(incident_alerts).where(theirs, _ALERT.fingerprint.in_(own)))
    await connection.execute(sa.update(incident_alerts).where(theirs).values(incident_id=target_id))
    await connection.execute(
        sa.update(incident_keys).where(_KEY.incident_id == source_id).values(incident_id=target_id)
    )


def _conditions(wanted: IncidentFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.workspaces is not None:
        found.append(_I.workspace_id.in_(sorted(wanted.workspaces)))
    if wanted.states is not None:
        found.append(_I.state.in_(sorted(wanted.states)))
    if wanted.severities is not None:
        found.append(_I.severity.in_(sorted(wanted.severities)))
    if wanted.type is not None:
        found.append(_I.type == wanted.type)
    if wanted.application_id is not None:
        about = incident_applications.c.application_id == wanted.application_id
        found.append(_I.id.in_(sa.select(incident_applications.c.incident_id).where(about)))
    return found
