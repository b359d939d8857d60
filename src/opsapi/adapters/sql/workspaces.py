"""The registrations of workspaces that came through the API or the CLI; their kubeconfigs are ciphertext."""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import workspaces
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.workspaces.errors import NoEncryptionKey, WorkspaceExists
from opsapi.workspaces.model import ClusterAccess, Mode, Plan, Source, Workspace
from opsapi.workspaces.ports import CannotUnseal, Sealed, Sealer, UnreadableWorkspace

_COLUMNS = workspaces.c
_LIVING = _COLUMNS.removed_at.is_(None) & (_COLUMNS.source == Source.API.value)


class SqlWorkspaceStore:
    """Implements WorkspaceStore. Without a `sealer` nothing can be added, and what is there is unreadable."""

    def __init__(self, database: Database, sealer: Sealer | None, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock

    async def all(self) -> list[Workspace | UnreadableWorkspace]:
        query = sa.select(workspaces).where(_LIVING).order_by(_COLUMNS.id)
        async with self._database.read() as connection:
            return [self._read(row) for row in await connection.execute(query)]

    async def add(self, workspace: Workspace, by: Call | System) -> None:
        if self._sealer is None:
            raise NoEncryptionKey(workspace.id)
        row = self._row(workspace, by, self._sealer)
        statement = self._database.insert(workspaces).values(row)
        replaced = {name: statement.excluded[name] for name in row if name != "id"}
        async with self._database.write() as connection:
            written = await connection.execute(
                # A removed registration's id may be taken again; a living one's may not.
                statement.on_conflict_do_update(
                    index_elements=["id"], set_=replaced, where=_COLUMNS.removed_at.is_not(None)
                )
            )
            if written.rowcount != 1:
                raise WorkspaceExists(workspace.id)
            await self._audit(connection, by, 201, workspace.id)
        _commit(by)

    async def remove(self, workspace_id: str, by: Call | System) -> bool:
        now = self._clock.now()
        erased = {"removed_at": now, "updated_at": now, "kubeconfig": None, "acting_kubeconfig": None}
        async with self._database.write() as connection:
            gone = await connection.execute(
                sa.update(workspaces).where(_LIVING, _COLUMNS.id == workspace_id).values(erased)
            )
            if gone.rowcount != 1:
                return False
            await self._audit(connection, by, 200, workspace_id)
        _commit(by)
        return True

    async def reseal(self) -> int:
        if self._sealer is None:
            return 0
        stale = sa.select(workspaces).where(_LIVING, _COLUMNS.kubeconfig_key_id != self._sealer.key_id)
        changed = 0
        async with self._database.write() as connection:
            for row in (await connection.execute(stale)).all():
                held = self._read(row)
                if isinstance(held, UnreadableWorkspace):
                    continue
                sealed = _seal(held, self._sealer)
                await connection.execute(sa.update(workspaces).where(_COLUMNS.id == held.id).values(sealed))
                changed += 1
        return changed

    async def _audit(self, connection: AsyncConnection, by: Call | System, status: int, workspace_id: str) -> None:
        if isinstance(by, Call):
            by.audit.workspace_id = workspace_id
        await insert_call(
            connection,
            by,
            status,
            now=self._clock.monotonic(),
            at=self._clock.now(),
            resource=f"workspace/{workspace_id}",
        )

    def _row(self, workspace: Workspace, by: Call | System, sealer: Sealer) -> dict[str, Any]:
        return {
            "id": workspace.id,
            "name": workspace.name,
            "organization": workspace.organization,
            "plan": workspace.plan.value,
            "mode": workspace.mode.value,
            "namespaces": list(workspace.namespaces) or None,
            "source": Source.API.value,
            "context": workspace.read.context or None,
            "created_at": workspace.created_at,
            "created_by": by.caller.account_id if isinstance(by, Call) else by.account_id,
            "updated_at": self._clock.now(),
            "removed_at": None,
        } | _seal(workspace, sealer)

    def _read(self, row: Any) -> Workspace | UnreadableWorkspace:
        try:
            read = self._unseal(row, row.kubeconfig, "read")
            act = self._unseal(row, row.acting_kubeconfig, "act")
        except CannotUnseal:
            return UnreadableWorkspace(row.id, row.name)
        if read is None:
            return UnreadableWorkspace(row.id, row.name)
        return Workspace(
            id=row.id,
            name=row.name,
            organization=row.organization,
            plan=Plan(row.plan),
            mode=Mode(row.mode),
            namespaces=tuple(row.namespaces or ()),
            read=read,
            act=act,
            source=Source.API,
            created_at=row.created_at,
        )

    def _unseal(self, row: Any, ciphertext: bytes | None, use: str) -> ClusterAccess | None:
        if ciphertext is None:
            return None
        if self._sealer is None:
            raise CannotUnseal
        plain = self._sealer.unseal(Sealed(row.kubeconfig_key_id, ciphertext), bound_to=_binding(row.id, use))
        return msgspec.json.decode(plain, type=ClusterAccess)


def _binding(workspace_id: str, use: str) -> str:
    """A reading kubeconfig does not open as an acting one, nor one workspace's as another's."""
    return f"workspace/{workspace_id}/{use}"


def _seal(workspace: Workspace, sealer: Sealer) -> dict[str, Any]:
    def sealed(access: ClusterAccess, use: str) -> bytes:
        return sealer.seal(msgspec.json.encode(access), bound_to=_binding(workspace.id, use)).ciphertext

    return {
        "kubeconfig": sealed(workspace.read, "read"),
        "kubeconfig_key_id": sealer.key_id,
        "acting_kubeconfig": sealed(workspace.act, "act") if workspace.act is not None else None,
    }


def _commit(by: Call | System) -> None:
    if isinstance(by, Call):
        by.audit.committed = True
