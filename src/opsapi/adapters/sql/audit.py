"""The audit's rows. Other stores add an entry to their own transaction with `insert_entry`."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.bulk import DriverStatement
from opsapi.adapters.sql.engine import Database, sqlstate
from opsapi.adapters.sql.tables import audit_entries
from opsapi.audit.model import AuditEntry, Outcome, entry_from, system_entry
from opsapi.audit.ports import AuditFilter, AuditPosition, EntryRejected
from opsapi.kit.caller import AuditTrail, Call, System

_NAMES = tuple(field.name for field in msgspec.structs.fields(AuditEntry))
ENTRY_COLUMNS = [audit_entries.c[name] for name in _NAMES]
_LONGEST_TEXT = 2000
_LENGTHS = tuple(getattr(column.type, "length", None) or _LONGEST_TEXT for column in ENTRY_COLUMNS)
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_OUTCOME = _NAMES.index("outcome")
_UNSTORABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _clean(text: str, length: int) -> str:
    """What callers sent, made storable and harmless to show: no engine takes lone surrogates, PostgreSQL no NUL, and
    control characters could forge lines."""
    if not text.isprintable():
        text = _UNSTORABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    return text if len(text) <= length else text[: length - 1] + "…"


def entry_values(entry: AuditEntry) -> list[Any]:
    """In the order of ENTRY_COLUMNS."""
    values = list(msgspec.structs.astuple(entry))
    values[_OUTCOME] = values[_OUTCOME].value
    for place, value in enumerate(values):
        if isinstance(value, str) and not (value.isprintable() and len(value) <= _LENGTHS[place]):
            values[place] = _clean(value, _LENGTHS[place])
    return values


def entry_of(row: Sequence[Any]) -> AuditEntry:
    """Of a row that begins with ENTRY_COLUMNS."""
    values = dict(zip(_NAMES, row, strict=False))
    values["outcome"] = _OUTCOMES[values["outcome"]]
    return AuditEntry(**values)


async def insert_entry(connection: AsyncConnection, entry: AuditEntry) -> None:
    """Within the caller's transaction. The caller sets `call.audit.committed` once that has committed."""
    await connection.execute(sa.insert(audit_entries), dict(zip(_NAMES, entry_values(entry), strict=True)))


async def insert_call(
    connection: AsyncConnection,
    by: Call | System,
    status: int,
    *,
    now: float,
    at: datetime,
    resource: str | None = None,
    reason: str | None = None,
    workspace_id: str | None = None,
    operation_id: str | None = None,
) -> None:
    """The entry of a mutation: of a call (`now` as in `entry_from`), or of what the system does at `at`."""
    trail = by.audit if isinstance(by, Call) else AuditTrail()
    trail.resource = trail.resource if resource is None else resource
    trail.reason = trail.reason if reason is None else reason
    trail.workspace_id = trail.workspace_id if workspace_id is None else workspace_id
    trail.operation_id = trail.operation_id if operation_id is None else operation_id
    if isinstance(by, Call):
        await insert_entry(connection, entry_from(by, status, now=now))
    else:
        await insert_entry(connection, system_entry(by, status, at=at, trail=trail))


class SqlAuditStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = DriverStatement(
            database, database.insert(audit_entries).on_conflict_do_nothing(index_elements=["id"]), ENTRY_COLUMNS
        )

    async def insert(self, entries: Sequence[AuditEntry]) -> None:
        if not entries:
            return
        rows = [entry_values(entry) for entry in entries]
        try:
            async with self._database.write() as connection:
                await self._insert.execute(connection, rows)
        except (exc.StatementError, ValueError) as error:
            if _is_the_entrys_fault(error):
                raise EntryRejected from error
            raise

    async def page(self, wanted: AuditFilter, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        columns = audit_entries.c
        query = sa.select(*ENTRY_COLUMNS).where(*_conditions(wanted))
        if after is not None:
            query = query.where(
                sa.tuple_(columns.at, columns.id) < sa.tuple_(sa.literal(after.at, columns.at.type), after.id)
            )
        query = query.order_by(columns.at.desc(), columns.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [entry_of(row) for row in await connection.execute(query)]


def _is_the_entrys_fault(error: Exception) -> bool:
    """Not the schema's, nor the connection's: a value that could not be bound, or SQLSTATE's classes of bad data."""
    if not isinstance(error, exc.DBAPIError):
        return True
    return isinstance(error, exc.DataError | exc.IntegrityError) or sqlstate(error)[:2] in ("22", "23")


def _conditions(wanted: AuditFilter) -> list[sa.ColumnElement[bool]]:
    columns = audit_entries.c
    equal = {
        columns.account_id: wanted.account_id,
        columns.workspace_id: wanted.workspace_id,
        columns.endpoint: wanted.endpoint,
        columns.operation_id: wanted.operation_id,
        columns.request_id: wanted.request_id,
        columns.status: wanted.status,
        columns.outcome: wanted.outcome,
    }
    conditions: list[sa.ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if wanted.workspaces is not None:
        conditions.append(columns.workspace_id.in_(sorted(wanted.workspaces)))
    if wanted.since is not None:
        conditions.append(columns.at >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.at < wanted.until)
    return conditions
