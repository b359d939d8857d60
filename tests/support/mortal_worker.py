"""A worker process that kills itself with SIGKILL at a named point, the first time it gets there.

    python -m support.mortal_worker DATABASE_URL CLUSTER_PORT POINT [OPTIONS]

Options: `--signal SIGSTOP` to stand still there in place of dying, `--concurrency`, `--lease` and `--verify` (seconds).
Ends with 0 once no operation is queued or running. POINT is `never` or `<before|after>:<method>[:<n>]`, a method of
the ledger or of the cluster's port, its n-th call (1 by default). The ledger's `_start` and `_end` are inside a
transaction: what a worker wrote before it dies there must be gone.
"""

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

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


def arm(held: object, method: str, when: str, nth: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Makes the n-th call of `held.method` the process' last; with SIGSTOP, where it stands still until SIGCONT."""
    if not hasattr(held, method):
        return
    original: Callable[..., Awaitable[Any]] = getattr(held, method)
    calls = 0

    async def mortal(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == nth:
            os.kill(os.getpid(), number)
        answer = await original(*arguments, **named)
        if when == "after" and calls == nth:
            os.kill(os.getpid(), number)
        return answer

    setattr(held, method, mortal)


async def unplanned(operation: Operation) -> Proposal:
    raise AssertionError(f"{operation.id} waits for nobody")


async def work_off(
    url: str,
    port: int,
    point: str,
    *,
    number: signal.Signals = signal.SIGKILL,
    engine: EngineSettings = ENGINE,
    scaling: ScalingSettings = SCALING,
) -> None:
    """Until no operation is queued or running any more."""
    clock, signals, database = SystemClock(), Signals(), Database(url)
    ledger, workloads = SqlLedger(database, clock, signals), RemoteWorkloads(port)
    if point != "never":
        when, method, *nth = point.split(":")
        for held in (ledger, workloads):
            arm(held, method, when, int(nth[0]) if nth else 1, number)
    clusters = FakeClusters(FakeCluster(make_workspace()))
    procedures = Procedures()
    join_scaling(clusters, workloads, ledger, procedures, clock, scaling)
    steps = ScalingSteps(clusters, workloads, FakeObjects(), PolicyBook(UNHURRIED), SCALING)
    procedures.register(autoscale_procedure(steps, unplanned))
    execution = Execution(ledger, procedures, clock, engine)
    worker = Worker(ledger, execution, procedures, signals, clock, engine)
    running = asyncio.create_task(worker.run())
    while True:
        depth = await ledger.depth()
        if depth.queued + depth.running == 0:
            break
        await asyncio.sleep(0.02)
    worker.stop()
    await running
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("port", type=int)
    parser.add_argument("point")
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--concurrency", type=int, default=ENGINE.concurrency)
    parser.add_argument("--lease", type=float, default=ENGINE.lease_seconds)
    parser.add_argument("--verify", type=float, default=SCALING.verify_seconds)
    given = parser.parse_args()
    asyncio.run(
        work_off(
            given.url,
            given.port,
            given.point,
            number=signal.Signals[given.signal],
            engine=msgspec.structs.replace(ENGINE, concurrency=given.concurrency, lease_seconds=given.lease),
            scaling=msgspec.structs.replace(SCALING, verify_seconds=given.verify),
        )
    )


if __name__ == "__main__":
    main()
