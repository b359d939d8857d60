"""A worker dies by kill -9 at every point of scaling; another finishes, and nothing is done twice."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.scaling_model import ScaleBody, ScaleParams
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.audit.ports import AuditFilter
from opsapi.kit.clock import SystemClock
from opsapi.operations.model import Operation, Outcome, State, StepState, UndoState, lock_key
from opsapi.operations.procedures import Procedures
from opsapi.operations.signals import Signals
from support.acting import make_call
from support.inventory import FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.mortal_worker import work_off
from support.remote_cluster import serving
from support.scaling import join_scaling
from support.workloads import FakeWorkloads, make_deployment

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0


async def run_worker(url: str, port: int, point: str) -> int:
    """The exit status of a worker process, negative for a signal."""
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_worker", url, str(port), point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def begin(ledger: SqlLedger, workloads: FakeWorkloads, inventory: FakeInventory) -> str:
    clusters = FakeClusters(FakeCluster(make_workspace(), inventory))
    endpoints = join_scaling(clusters, workloads, ledger, Procedures(), SystemClock(), ScalingSettings())
    params = ScaleParams(workspace_id="ws-123", deployment_name="web")
    reply = await endpoints.scale_deployment(make_call(), params, ScaleBody(replicas=5, reason="more traffic"))
    assert reply.operation_id is not None
    return reply.operation_id


class Scene:
    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.ledger = SqlLedger(database, SystemClock(), Signals())
        self.audit = SqlAuditStore(database)
        self.inventory = FakeInventory()
        self.workloads = FakeWorkloads(self.inventory)
        self.workloads.put(make_deployment())

    async def play(self, point: str) -> Operation:
        """Begins, lets a worker die at `point`, then lets another go on to the end."""
        operation_id = await begin(self.ledger, self.workloads, self.inventory)
        async with serving(self.workloads) as port:
            assert await run_worker(self.url, port, point) == -signal.SIGKILL
            abandoned = await self.ledger.get(operation_id)
            assert abandoned is not None
            assert not abandoned.state.final
            assert await self.ledger.holder(lock_key("ws-123", abandoned.resource_id)) is not None
            # The heir has its own connections and its own name; that it lives in this process saves a second's start.
            async with asyncio.timeout(_DEADLINE):
                await work_off(self.url, port, "never")
        ended = await self.ledger.get(operation_id)
        assert ended is not None
        assert await self.ledger.holder(lock_key("ws-123", ended.resource_id)) is None
        return ended

    async def audited(self, operation_id: str) -> set[str]:
        entries = await self.audit.page(AuditFilter(workspaces=None, operation_id=operation_id), None, 50)
        return {entry.path for entry in entries if entry.method == "OPERATIONS"}


@pytest.fixture
def scene(database_url: str, database: Database) -> Scene:
    return Scene(database_url, database)


@pytest.mark.parametrize(
    "point",
    [
        "after:claim",
        "before:intend",
        "after:intend",
        "before:write_scale",
        "after:write_scale",
        "before:record",
        "after:record",
        "after:complete_step",
        "before:complete_step:2",
        "before:_start:2",
        "after:_start:2",
        "before:_end",
        "after:_end",
    ],
)
async def test_scaling_ends_well_and_writes_once_wherever_the_worker_dies(scene: Scene, point: str) -> None:
    ended = await scene.play(point)
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED)
    assert scene.workloads.writes == [("web", 5)]
    assert scene.workloads.replicas() == 5
    assert len(scene.workloads.events) == 1
    assert [step.state for step in ended.steps] == [StepState.COMPLETED, StepState.COMPLETED]
    assert ended.attempts == 2


@pytest.mark.parametrize("point", ["after:write_scale", "before:record"])
async def test_an_effect_that_nobody_recorded_is_found_and_audited_not_repeated(scene: Scene, point: str) -> None:
    ended = await scene.play(point)
    step = ended.step("set_replicas")
    assert step.effect is not None
    assert step.effect["found"] is True
    assert step.message == "Effect found: 5 replicas were set before the worker died"
    assert await scene.audited(ended.id) == {"set_replicas effect found", "scale completed"}


async def test_a_finished_step_is_not_run_again(scene: Scene) -> None:
    ended = await scene.play("after:complete_step")
    assert ended.step("set_replicas").attempts == 1
    assert await scene.audited(ended.id) == {"scale completed"}


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after:fail_step", "after:note_undo", "before:write_scale:2", "after:write_scale:2"])
async def test_undoing_survives_the_workers_death_as_well(scene: Scene, point: str) -> None:
    scene.workloads.settle = False
    ended = await scene.play(point)
    assert ended.state is State.ROLLED_BACK
    assert scene.workloads.writes == [("web", 5), ("web", 3)]
    undo = ended.step("set_replicas").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"


async def test_somebody_elses_equal_change_is_not_taken_for_the_lost_effect(scene: Scene) -> None:
    operation_id = await begin(scene.ledger, scene.workloads, scene.inventory)
    async with serving(scene.workloads) as port:
        assert await run_worker(scene.url, port, "before:write_scale") == -signal.SIGKILL
        scene.workloads.replace(replicas=5, manager="kubectl")
        assert await run_worker(scene.url, port, "never") == 0
    ended = await scene.ledger.get(operation_id)
    assert ended is not None
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert scene.workloads.writes == []
