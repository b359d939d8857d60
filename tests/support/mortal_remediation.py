"""A worker that carries a remediation out on a cluster in a file, and kills itself as mortal_playbooks does.

python -m support.mortal_remediation DATABASE_URL FILE POINT
"""

import asyncio
import sys
from pathlib import Path

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import Operation
from support.api_objects import FakeObjects
from support.mortal_playbooks import LEASE, FiledObjects
from support.mortal_worker import arm
from support.remediation import Emergency

_POLL_SECONDS = 0.005


class MortalEmergency(Emergency):
    """Its Deployment's controller answers every write at once: pods that are evicted or wanted are there, and ready."""

    def __init__(self, database: Database, path: Path) -> None:
        self._path = path
        super().__init__(database)

    def make_objects(self) -> FakeObjects:
        filed = FiledObjects(self._path, self.inventory)
        filed.react = self._react
        return filed

    async def idle(self) -> None:
        """PostgreSQL's leases run out in its own time."""
        await asyncio.sleep(_POLL_SECONDS)
        await super().idle()

    def _react(self, verb: str, _target: str) -> None:
        if verb == "patch":
            self.pods_come()


async def carry_out(database: Database, path: Path, point: str, *, later: float = 0) -> Operation:
    """Until nothing is claimable; `later` seconds after the operation began."""
    scene = MortalEmergency(database, path)
    scene.clock.advance(later)
    if point != "never":
        when, method, *nth = point.split(":")
        for held in (scene.ledger, scene.objects):
            arm(held, method, when, int(nth[0]) if nth else 1)
    return await scene.work(lease=LEASE)


async def _main(url: str, path: str, point: str) -> None:
    await carry_out(Database(url), Path(path), point)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
