"""A worker dies by kill -9 at every point of a scan; another finishes it, and the list is published once and whole."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.security import SqlFindingStore
from opsapi.adapters.sql.tables import security_findings
from opsapi.kit.clock import SystemClock
from opsapi.operations.desk import Desk
from opsapi.operations.model import State, StepState
from opsapi.operations.procedures import Procedures
from opsapi.operations.signals import Signals
from opsapi.playbooks.model import Context
from opsapi.playbooks.scanning.playbook import ScanParameters, SecurityScan
from opsapi.playbooks.scanning.ports import FindingFilter
from opsapi.playbooks.scanning.steps import ScanSettings, ScanSteps
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings, Subject
from support.acting import make_call
from support.mortal_scanner import scan_off, scanned_cluster

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0


async def run_worker(url: str, point: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_scanner", url, point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def begin(ledger: SqlLedger, store: SqlFindingStore) -> str:
    clusters, objects = scanned_cluster()
    playbook = SecurityScan(clusters, ScanSteps(clusters, objects, store, ScanSettings()))
    procedures = Procedures()
    procedures.register(playbook.procedure())
    (cluster,) = clusters.all()
    call = make_call()
    subject = Subject(call.caller.account_id, call.caller.kind, "ws-123", cluster.workspace.mode)
    proposal = await playbook.propose(cluster, subject, ScanParameters(), context=Context(), reason=None, confirm=False)
    return (await Desk(ledger, procedures, PolicyBook(PolicySettings()), SystemClock()).begin(call, proposal)).id


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after:claim", marks=pytest.mark.slow),
        pytest.param("before:stage", marks=pytest.mark.slow),
        "after:stage",
        pytest.param("after:complete_step", marks=pytest.mark.slow),
        pytest.param("before:stage:2", marks=pytest.mark.slow),
        pytest.param("after:stage:2", marks=pytest.mark.slow),
        "after:complete_step:2",
        "before:publish",
        "after:publish",
        pytest.param("before:_end", marks=pytest.mark.slow),
        pytest.param("after:_end", marks=pytest.mark.slow),
    ],
)
async def test_a_scan_is_taken_over_and_ends_once(database_url: str, database: Database, point: str) -> None:
    ledger = SqlLedger(database, SystemClock(), Signals())
    store = SqlFindingStore(database, SystemClock())
    scan_id = await begin(ledger, store)
    assert await run_worker(database_url, point) == -signal.SIGKILL
    abandoned = await ledger.get(scan_id)
    assert abandoned is not None
    assert not abandoned.state.final
    async with asyncio.timeout(_DEADLINE):
        await scan_off(database_url, "never")
    ended = await ledger.get(scan_id)
    assert ended is not None
    assert (ended.state, ended.attempts) == (State.COMPLETED, 2)
    assert {step.state for step in ended.steps} == {StepState.COMPLETED}
    last = await store.last("ws-123")
    assert last is not None
    assert last.id == scan_id
    found = await store.find(scan_id, FindingFilter(limit=100))
    assert ended.result is not None
    assert [one["id"] for one in ended.result["top"]] == [one.id for one in found]
    assert {"CVE-1", "CVE-2", "privileged"} == {one.check for one in found}
    async with database.read() as connection:
        count = (await connection.execute(sa.select(sa.func.count()).select_from(security_findings))).scalar_one()
    assert count == len(found)
