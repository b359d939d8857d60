"""Records of backups."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import backups, operations
from opsapi.backups.model import Backup, Ended, Status
from opsapi.backups.ports import BackupFilter
from opsapi.kit.caller import System
from opsapi.kit.clock import Clock
from opsapi.operations.model import FINAL

_C = backups.c
_FIELDS = tuple(field.name for field in msgspec.structs.fields(Backup))
_ENDED = [state.value for state in FINAL]
_ABANDONED = sa.and_(
    _C.status == Status.IN_PROGRESS.value,
    sa.or_(operations.c.id.is_(None), operations.c.state.in_(_ENDED)),
)
_STATUS = sa.case((_ABANDONED, Status.FAILED.value), else_=_C.status)
"""Whose operation has ended without a word about it has failed."""
_FINISHED_AT = sa.case((_ABANDONED, operations.c.finished_at), else_=_C.finished_at)
_ERROR = sa.case((_ABANDONED, operations.c.error), else_=_C.error)
_JOINED = backups.outerjoin(operations, operations.c.id == _C.operation_id)
_SHOWN = {"status": _STATUS, "finished_at": _FINISHED_AT, "error": _ERROR}
_RESTORABLE = (Status.COMPLETED.value, Status.PARTIALLY_FAILED.value)


def _selected() -> sa.Select[Any]:
    columns = [
        sa.type_coerce(_SHOWN[name], _C[name].type).label(name) if name in _SHOWN else _C[name] for name in _FIELDS
    ]
    return sa.select(*columns).select_from(_JOINED)


class SqlBackupRecords:
    """Implements BackupRecords."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def open(self, backup: Backup) -> None:
        insert = self._database.insert(backups).on_conflict_do_nothing(index_elements=["id"])
        async with self._database.write() as connection:
            await connection.execute(insert, msgspec.to_builtins(backup, builtin_types=(datetime,)))

    async def close(self, backup_id: str, ended: Ended) -> None:
        changes = msgspec.to_builtins(ended, builtin_types=(datetime,))
        statement = sa.update(backups).where(_C.id == backup_id, _C.status != Status.DELETED.value).values(changes)
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def note_verification(self, backup_id: str, at: datetime, damage: Sequence[str]) -> None:
        statement = sa.update(backups).where(_C.id == backup_id).values(verified_at=at, damage=list(damage))
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def note_erased(
        self, backup_id: str, at: datetime, *, status: Status = Status.DELETED, by: System | None = None
    ) -> None:
        statement = (
            sa.update(backups)
            .where(_C.id == backup_id, _C.status != Status.DELETED.value)
            .values(status=status.value, deleted_at=at)
        )
        async with self._database.write() as connection:
            changed = await connection.execute(statement)
            if changed.rowcount == 1 and by is not None:
                resource = f"backup/{backup_id}"
                await insert_call(connection, by, 200, now=self._clock.monotonic(), at=at, resource=resource)

    async def get(self, backup_id: str) -> Backup | None:
        async with self._database.read() as connection:
            row = (await connection.execute(_selected().where(_C.id == backup_id))).mappings().one_or_none()
        return None if row is None else _backup_of(row)

    async def find(self, wanted: BackupFilter) -> list[Backup]:
        statement = _selected()
        if wanted.workspaces is not None:
            statement = statement.where(_C.workspace_id.in_(sorted(wanted.workspaces)))
        if wanted.application_id is not None:
            statement = statement.where(_C.application_id == wanted.application_id)
        if wanted.status is not None:
            statement = statement.where(_STATUS.in_([wanted.status.value]))
        else:
            statement = statement.where(_C.status != Status.DELETED.value)
        if wanted.before is not None:
            at = sa.bindparam("at", wanted.before[0], _C.created_at.type)
            statement = statement.where(
                sa.or_(_C.created_at < at, sa.and_(_C.created_at == at, _C.id < wanted.before[1]))
            )
        statement = statement.order_by(_C.created_at.desc(), _C.id.desc()).limit(wanted.limit)
        async with self._database.read() as connection:
            return [_backup_of(row) for row in (await connection.execute(statement)).mappings()]

    async def last_size(self, workspace_id: str, application_id: str) -> int | None:
        statement = (
            sa.select(_C.size_bytes)
            .where(
                _C.workspace_id == workspace_id,
                _C.application_id == application_id,
                _C.status == Status.COMPLETED.value,
                _C.size_bytes.is_not(None),
            )
            .order_by(_C.created_at.desc())
            .limit(1)
        )
        async with self._database.read() as connection:
            size: int | None = (await connection.execute(statement)).scalar_one_or_none()
        return size

    async def due(self, now: datetime, limit: int) -> list[Backup]:
        expired = sa.and_(_C.status.in_(_RESTORABLE), _C.expires_at <= now)
        left_behind = sa.and_(_STATUS.in_([Status.FAILED.value]), _C.deleted_at.is_(None))
        statement = (
            _selected()
            .where(sa.or_(expired, left_behind))
            .order_by(sa.func.coalesce(_C.expires_at, _C.created_at), _C.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [_backup_of(row) for row in (await connection.execute(statement)).mappings()]

    async def purge(self, before: datetime) -> int:
        statement = sa.delete(backups).where(_C.deleted_at < before)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount


def _backup_of(row: sa.RowMapping) -> Backup:
    return msgspec.convert({name: row[name] for name in _FIELDS}, Backup)
