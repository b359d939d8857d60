"""Sealed snapshots of what cleanups delete."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import cleanup_snapshots
from opsapi.kit.clock import Clock
from opsapi.playbooks.cleaning.ports import SnapshotUnreadable
from opsapi.workspaces.ports import CannotUnseal, Sealed, Sealer
from opsapi.workspaces.writing import JsonObject, ObjectKey

_C = cleanup_snapshots.c


class SqlSnapshots:
    """Implements Snapshots."""

    def __init__(self, database: Database, sealer: Sealer | None, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock

    @property
    def ready(self) -> bool:
        return self._sealer is not None

    async def keep(self, operation_id: str, key: ObjectKey, body: JsonObject) -> None:
        if self._sealer is None:
            raise SnapshotUnreadable("no encryption key is configured")
        sealed = self._sealer.seal(msgspec.json.encode(body), bound_to=_binding(operation_id, key))
        row = {
            "operation_id": operation_id,
            "object_key": str(key),
            "workspace_id": key.workspace_id,
            "uid": key.uid,
            "taken_at": self._clock.now(),
            "sealed": sealed.ciphertext,
            "key_id": sealed.key_id,
        }
        statement = self._database.insert(cleanup_snapshots).values(row)
        replaced = {name: statement.excluded[name] for name in row if name not in ("operation_id", "object_key")}
        async with self._database.write() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["operation_id", "object_key"], set_=replaced)
            )

    async def find(self, operation_id: str, key: ObjectKey) -> JsonObject | None:
        query = sa.select(cleanup_snapshots).where(_C.operation_id == operation_id, _C.object_key == str(key))
        async with self._database.read() as connection:
            row: Any = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        if self._sealer is None:
            raise SnapshotUnreadable("no encryption key is configured")
        try:
            plain = self._sealer.unseal(Sealed(row.key_id, bytes(row.sealed)), bound_to=_binding(operation_id, key))
        except CannotUnseal as error:
            raise SnapshotUnreadable("no configured key opens it") from error
        return msgspec.json.decode(plain, type=JsonObject)

    async def purge(self, before: datetime) -> int:
        async with self._database.write() as connection:
            gone = await connection.execute(sa.delete(cleanup_snapshots).where(_C.taken_at < before))
        return gone.rowcount


def _binding(operation_id: str, key: ObjectKey) -> str:
    """One object's snapshot does not open as another's."""
    return f"cleanup/{key.workspace_id}/{operation_id}/{key}"
