"""A worker that resizes applications of a cluster in a file, and kills itself with SIGKILL at a named point.

    python -m support.mortal_optimizer DATABASE_URL FILE (stands|falls) POINT

POINT as in mortal_worker. `falls`: pods of the new size do not become ready.
"""

import asyncio
import sys
from pathlib import Path

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import Operation
from support.api_objects import FakeObjects
from support.mortal_playbooks import LEASE, FiledObjects
from support.mortal_worker import arm
from support.optimizing import OptimizeStage

_POLL_SECONDS = 0.005


class MortalStage(OptimizeStage):
    def __init__(self, database: Database, path: Path) -> None:
        self._path = path
        super().__init__(database)
        for name in ("api", "web"):
            self.own(name)

    def make_objects(self) -> FakeObjects:
        return FiledObjects(self._path, self.inventory)

    async def idle(self) -> None:
        await asyncio.sleep(_POLL_SECONDS)
        await super().idle()


async def carry_out(database: Database, path: Path, how: str, point: str, *, later: float = 0) -> Operation:
    stage = MortalStage(database, path)
    stage.stands = how == "stands"
    stage.clock.advance(later)
    if point != "never":
        when, method, *nth = point.split(":")
        for held in (stage.ledger, stage.objects):
            arm(held, method, when, int(nth[0]) if nth else 1)
    return await stage.work(lease=LEASE)


async def _main(url: str, path: str, how: str, point: str) -> None:
    await carry_out(Database(url), Path(path), how, point)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:5]))
