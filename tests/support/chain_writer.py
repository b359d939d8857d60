"""A process to be killed: writes audit entries and links them as fast as it can, until it dies.

Arguments: the database's URL and the checkpoint file. Prints a line once it has linked its first entries.
"""

import asyncio
import os
import sys
from pathlib import Path

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.chain import SqlChainStore
from opsapi.adapters.sql.engine import Database
from opsapi.audit import chainer as chainer_module
from opsapi.audit.chain import ChainKeys
from opsapi.audit.chainer import Chainer
from opsapi.audit.checkpoints import FileCheckpoints
from opsapi.kit.clock import SystemClock
from support.audit import KEY, make_entry


async def main(url: str, checkpoints: Path) -> None:
    clock, database = SystemClock(), Database(url, pool_size=3)
    audit, chain = SqlAuditStore(database), SqlChainStore(database, clock)
    chainer_module.CHECKPOINT_ENTRIES = 20
    chainer = Chainer(chain, ChainKeys(KEY), FileCheckpoints(checkpoints), clock, holder=f"pid-{os.getpid()}")
    told = False
    while True:
        await audit.insert([make_entry(clock.now()) for _ in range(3)])
        await chainer.work()
        if not told and (await chain.head()).seq > 0:
            told = True
            print("linked", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
