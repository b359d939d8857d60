"""The chain survives `kill -9` of processes that write and link at the same time."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

import opsapi
from opsapi.adapters.sql.chain import SqlChainStore
from opsapi.adapters.sql.engine import Database
from opsapi.audit.chain import ChainKeys
from opsapi.audit.chainer import Chainer
from opsapi.audit.checkpoints import FileCheckpoints, read_file
from opsapi.audit.verify import verify
from opsapi.kit.clock import SystemClock
from support.acting import SetClock
from support.audit import KEY

ROUNDS = 2
SOURCES = [str(Path(opsapi.__file__).parents[1]), str(Path(__file__).parents[1])]


async def _spawn(url: str, checkpoints: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.chain_writer", url, str(checkpoints)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
    )


async def test_killed_writers_leave_one_sound_chain(database_url: str, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints.jsonl"
    database = Database(database_url)
    chain = SqlChainStore(database, SystemClock())
    lengths = []
    for _ in range(ROUNDS):
        before = (await chain.head()).seq
        processes = [await _spawn(database_url, checkpoints) for _ in range(2)]
        try:
            async with asyncio.timeout(30):
                for process in processes:
                    assert process.stdout is not None
                    assert await process.stdout.readline() == b"linked\n"
                while (await chain.head()).seq < before + 30:
                    await asyncio.sleep(0.01)
        finally:
            for process in processes:
                process.kill()
                await process.wait()
        # The dead holder's lease has to run out before the next one links.
        later = SetClock(SystemClock().now() + timedelta(minutes=1))
        heir = Chainer(
            SqlChainStore(database, later), ChainKeys(KEY), FileCheckpoints(checkpoints), later, holder="heir"
        )
        await heir.stop()
        lengths.append((await chain.head()).seq)
    report = await verify(chain, ChainKeys(KEY), SystemClock(), read_file(checkpoints).marks)
    assert report.verdict.findings == []
    assert report.verdict.checked == lengths[-1] > lengths[0] >= 30
    assert report.verdict.guarded_to > 0
    assert report.unlinked == 0
    await database.close()
