"""Changes of applications, and what the applications were last seen to be."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import application_changes, application_snapshots
from opsapi.applications.changes_model import Change, Snapshot

_CHANGE = application_changes.c
_SNAPSHOT = application_snapshots.c
_FIELDS = [field.name for field in msgspec.structs.fields(Change)]
_BATCH = 500


class SqlChangeStore:
    """Implements applications' ChangeStore."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def snapshots(self, workspace_id: str) -> dict[str, Snapshot]:
        statement = sa.select(_SNAPSHOT.uid, _SNAPSHOT.resource_version, _SNAPSHOT.fields).where(
            _SNAPSHOT.workspace_id == workspace_id
        )
        async with self._db.read() as connection:
            return {
                row.uid: Snapshot(row.uid, row.resource_version, row.fields)
                for row in await connection.execute(statement)
            }

    async def record(
        self,
        workspace_id: str,
        changes: Sequence[Change],
        seen: Sequence[Snapshot],
        gone: Sequence[str],
        *,
        observed_at: datetime,
    ) -> None:
        rows = [{name: getattr(change, name) for name in _FIELDS} for change in changes]
        states = [
            {
                "workspace_id": workspace_id,
                "uid": snapshot.uid,
                "resource_version": snapshot.resource_version,
                "observed_at": observed_at,
                "fields": snapshot.fields,
            }
            for snapshot in seen
        ]
        ordered = all(snapshot.resource_version.isdigit() for snapshot in seen)
        async with self._db.write() as connection:
            for start in range(0, len(rows), _BATCH):
                await connection.execute(
                    self._db.insert(application_changes).on_conflict_do_nothing(), rows[start : start + _BATCH]
                )
            for start in range(0, len(states), _BATCH):
                await connection.execute(self._upsert(ordered), states[start : start + _BATCH])
            if gone:
                await connection.execute(
                    sa.delete(application_snapshots).where(
                        _SNAPSHOT.workspace_id == workspace_id, _SNAPSHOT.uid.in_(sorted(gone))
                    )
                )

    def _upsert(self, ordered: bool) -> Any:
        """`ordered`: resourceVersions are numbers, so that a replica that lags behind can be told."""
        insert = self._db.insert(application_snapshots)
        held, new = (
            sa.cast(column, sa.BigInteger) for column in (_SNAPSHOT.resource_version, insert.excluded.resource_version)
        )
        return insert.on_conflict_do_update(
            index_elements=[_SNAPSHOT.workspace_id, _SNAPSHOT.uid],
            set_={name: insert.excluded[name] for name in ("resource_version", "observed_at", "fields")},
            where=held <= new if ordered else None,
        )

    async def page(
        self, workspace_id: str, application_id: str, *, before: tuple[datetime, str] | None, limit: int
    ) -> list[Change]:
        statement = sa.select(application_changes).where(
            _CHANGE.workspace_id == workspace_id, _CHANGE.application_id == application_id
        )
        if before is not None:
            moment, last = before
            older = sa.or_(_CHANGE.observed_at < moment, sa.and_(_CHANGE.observed_at == moment, _CHANGE.id < last))
            statement = statement.where(older)
        return await self._read(statement, limit)

    async def newest(self, limit: int) -> list[Change]:
        return await self._read(sa.select(application_changes), limit)

    async def _read(self, statement: sa.Select[Any], limit: int) -> list[Change]:
        statement = statement.order_by(_CHANGE.observed_at.desc(), _CHANGE.id.desc()).limit(limit)
        async with self._db.read() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [Change(**{name: row[name] for name in _FIELDS}) for row in rows]
