"""A worker process that kills itself with SIGKILL at a named point, the first time it gets there.

    python -m support.mortal_worker DATABASE_URL CLUSTER_PORT POINT

Ends with 0 once no operation is queued or running. POINT is `never` or `<before|after>:<method>[:<n>]`, a method of
the ledger or of the cluster's port, its n-th call (1 by default). The ledger's `_start` and `_end` are inside a
transaction: what a worker wrote before it dies there must be gone.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.autoscaling_steps import autoscale_procedure
from opsapi.applications.scaling_steps import ScalingSettings, ScalingSteps
from opsapi.kit.clock import SystemClock
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation
from opsapi.operations.procedures import Procedures
from opsapi.operations.proposal import Proposal
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.worker import Worker
from opsapi.policy.book import PolicyBook
from support.api_objects import FakeObjects
from support.inventory import FakeCluster, FakeClusters, make_workspace
from support.remote_cluster import RemoteWorkloads
from support.scaling import UNHURRIED, join_scaling

ENGINE = EngineSettings(lease_seconds=0.5, poll_seconds=0.05, backoff_seconds=0.05, step_attempts=6)
SCALING = ScalingSettings(verify_seconds=2, hold_seconds=0.1, poll_seconds=0.02)


def arm(held: object, method: str, when: str, nth: int) -> None:
    """Makes the n-th call of `held.method` the process' last."""
    if not hasattr(held, method):
        return
    original: Callable[..., Awaitable[Any]] = getattr(held, method)
    calls = 0

    async def mortal(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await original(*arguments, **named)
        if when == "after" and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(held, method, mortal)


async def unplanned(operation: Operation) -> Proposal:
    raise AssertionError(f"{operation.id} waits for nobody")


async def work_off(url: str, port: int, point: str) -> None:
    """Until no operation is queued or running any more."""
    clock, signals, database = SystemClock(), Signals(), Database(url)
    ledger, workloads = SqlLedger(database, clock, signals), RemoteWorkloads(port)
    if point != "never":
        when, method, *nth = point.split(":")
        for held in (ledger, workloads):
            arm(held, method, when, int(nth[0]) if nth else 1)
    clusters = FakeClusters(FakeCluster(make_workspace()))
    procedures = Procedures()
    join_scaling(clusters, workloads, ledger, procedures, clock, SCALING)
    steps = ScalingSteps(clusters, workloads, FakeObjects(), PolicyBook(UNHURRIED), SCALING)
    procedures.register(autoscale_procedure(steps, unplanned))
    execution = Execution(ledger, procedures, clock, ENGINE)
    worker = Worker(ledger, execution, procedures, signals, clock, ENGINE)
    running = asyncio.create_task(worker.run())
    while True:
        depth = await ledger.depth()
        if depth.queued + depth.running == 0:
            break
        await asyncio.sleep(0.02)
    worker.stop()
    await running
    await database.close()


if __name__ == "__main__":
    asyncio.run(work_off(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
