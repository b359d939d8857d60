"""Findings of security scans: staged while a scan runs, then the workspace's last."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import security_findings, security_scans
from opsapi.kit.clock import Clock
from opsapi.playbooks.scanning.model import Finding, Source
from opsapi.playbooks.scanning.ports import FindingFilter, LastScan

_F, _S = security_findings.c, security_scans.c
_ABANDONED = timedelta(days=1)
"""No scan runs longer: findings that are not published by then never will be."""


class SqlFindingStore:
    """Implements FindingStore."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def stage(self, workspace_id: str, scan_id: str, source: Source, findings: Sequence[Finding]) -> None:
        now = self._clock.now()
        rows = [
            {
                "scan_id": scan_id,
                "id": one.id,
                "workspace_id": workspace_id,
                "source": source.value,
                "weight": one.weight,
                "severity": one.severity.value,
                "category": one.category.value,
                "namespace": one.resource.namespace,
                "finding": msgspec.to_builtins(one),
                "staged_at": now,
            }
            for one in findings
        ]
        async with self._database.write() as connection:
            held = await _locked(connection, workspace_id)
            if held is not None and held.scan_id == scan_id:
                return
            await connection.execute(
                sa.delete(security_findings).where(_F.scan_id == scan_id, _F.source == source.value)
            )
            if rows:
                await connection.execute(sa.insert(security_findings), rows)

    async def publish(self, workspace_id: str, scan: LastScan) -> None:
        row = {"scan_id": scan.id, "at": scan.at, "namespaces": list(scan.namespaces), "report": scan.report}
        insert = self._database.insert(security_scans)
        statement = insert.values(row | {"workspace_id": workspace_id}).on_conflict_do_nothing(
            index_elements=["workspace_id"]
        )
        abandoned = sa.and_(_F.workspace_id == workspace_id, _F.staged_at < self._clock.now() - _ABANDONED)
        async with self._database.write() as connection:
            inserted = await connection.execute(statement)
            if inserted.rowcount != 1:
                held = await _locked(connection, workspace_id)
                assert held is not None
                if held.scan_id == scan.id:
                    return
                older = held.at > scan.at
                if not older:
                    await connection.execute(
                        sa.update(security_scans).where(_S.workspace_id == workspace_id).values(row)
                    )
                forgotten = scan.id if older else held.scan_id
                await connection.execute(sa.delete(security_findings).where(_F.scan_id == forgotten))
                kept = held.scan_id if older else scan.id
            else:
                kept = scan.id
            await connection.execute(sa.delete(security_findings).where(abandoned, _F.scan_id != kept))

    async def last(self, workspace_id: str) -> LastScan | None:
        query = sa.select(security_scans).where(_S.workspace_id == workspace_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return LastScan(id=row.scan_id, at=row.at, namespaces=tuple(row.namespaces), report=row.report)

    async def find(self, scan_id: str, wanted: FindingFilter) -> list[Finding]:
        query = sa.select(_F.finding).where(_F.scan_id == scan_id)
        if wanted.severities is not None:
            query = query.where(_F.severity.in_([one.value for one in wanted.severities]))
        if wanted.categories is not None:
            query = query.where(_F.category.in_([one.value for one in wanted.categories]))
        if wanted.namespace is not None:
            query = query.where(_F.namespace == wanted.namespace)
        if wanted.after is not None:
            weight, identity = wanted.after
            query = query.where(sa.or_(_F.weight > weight, sa.and_(_F.weight == weight, _F.id > identity)))
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(_F.weight, _F.id).limit(wanted.limit))).scalars().all()
        return [msgspec.convert(row, Finding) for row in rows]

    async def count(self, scan_id: str) -> int:
        query = sa.select(sa.func.count()).select_from(security_findings).where(_F.scan_id == scan_id)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())


async def _locked(connection: AsyncConnection, workspace_id: str) -> sa.Row[tuple[object, ...]] | None:
    """The last scan's row, which nobody else changes until the transaction ends."""
    query = sa.select(security_scans).where(_S.workspace_id == workspace_id).with_for_update()
    return (await connection.execute(query)).one_or_none()
