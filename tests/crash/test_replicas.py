"""Several worker processes on one database: one dies, one is held up; the others do not wait, nor do things twice."""

import asyncio
import signal
from datetime import timedelta

import pytest

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.errors import WriteConflict
from opsapi.applications.ports import ScaleState, WorkloadRef
from opsapi.applications.scaling_model import ScaleBody, ScaleParams
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.audit.ports import AuditFilter
from opsapi.kit.clock import SystemClock
from opsapi.operations.model import Operation, Outcome, State
from opsapi.operations.procedures import Procedures
from opsapi.operations.signals import Signals
from support.acting import make_call
from support.inventory import FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.leaping import until
from support.mortal_worker import work_off
from support.remote_cluster import serving
from support.scaling import join_scaling
from support.worker_process import DEADLINE, end_of, held_by, until_held, until_stopped, worker_process
from support.workloads import FakeWorkloads, make_deployment

LEASE = timedelta(seconds=2)
"""Long enough to be renewed in time on a busy machine."""
GRACE = timedelta(seconds=2)


class StrictWorkloads(FakeWorkloads):
    """Counts the writes that it refuses for their version."""

    late_writes = 0

    async def write_scale(
        self, ref: WorkloadRef, replicas: int, *, resource_version: str, dry_run: bool = False
    ) -> ScaleState:
        try:
            return await super().write_scale(ref, replicas, resource_version=resource_version, dry_run=dry_run)
        except WriteConflict:
            self.late_writes += 1
            raise


class Scene:
    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.ledger = SqlLedger(database, SystemClock(), Signals())
        self.audit = SqlAuditStore(database)
        inventory = FakeInventory()
        self.workloads = StrictWorkloads(inventory)
        clusters = FakeClusters(FakeCluster(make_workspace(), inventory))
        self.workloads.put(*(make_deployment(name) for name in ("web", "api", "third")))
        self.endpoints = join_scaling(
            clusters, self.workloads, self.ledger, Procedures(), SystemClock(), ScalingSettings()
        )

    async def begin(self, name: str = "web") -> str:
        params = ScaleParams(workspace_id="ws-123", deployment_name=name)
        reply = await self.endpoints.scale_deployment(make_call(), params, ScaleBody(replicas=5))
        assert reply.operation_id is not None
        return reply.operation_id

    async def ended(self, operation_id: str) -> Operation:
        held = await self.ledger.get(operation_id)
        assert held is not None
        assert held.state.final, held
        return held

    async def audited(self, operation_id: str) -> list[str]:
        entries = await self.audit.page(AuditFilter(workspaces=None, operation_id=operation_id), None, 50)
        return sorted(entry.path for entry in entries if entry.method == "OPERATIONS")


@pytest.fixture
def scene(database_url: str, database: Database) -> Scene:
    return Scene(database_url, database)


@pytest.mark.slow
async def test_a_dead_replicas_work_goes_on_in_time_and_the_livings_is_left_alone(scene: Scene) -> None:
    scene.workloads.settle = False
    lasting = ("never", "--lease", "2", "--verify", "50")
    one_at_a_time = (*lasting, "--concurrency", "1")
    mine = await scene.begin("web")
    async with serving(scene.workloads) as port, worker_process(scene.url, port, *one_at_a_time) as doomed:
        first = await until_held(scene.database, mine)
        async with worker_process(scene.url, port, *lasting) as living:
            others = await scene.begin("api")
            kept = await until_held(scene.database, others)
            assert kept.holder != first.holder
            doomed.send_signal(signal.SIGKILL)
            assert await end_of(doomed) == -signal.SIGKILL
            left = await held_by(scene.database, mine)
            heir = await until_held(scene.database, mine, token=2)
            assert heir.holder == kept.holder
            assert left.until is not None
            assert heir.until is not None
            # By the ledger's own times: what its lease ends at, less its length, is when it was taken.
            assert timedelta(0) <= heir.until - LEASE - left.until <= GRACE
            async with worker_process(scene.url, port, *one_at_a_time) as restarted:
                again = await scene.begin("third")
                await until_held(scene.database, again)
                assert (await held_by(scene.database, others)).claim == kept.claim
                assert (await held_by(scene.database, mine)).claim == heir.claim
                await until(lambda: len(scene.workloads.writes) == 3, "all are written", seconds=DEADLINE)
                for name in ("web", "api", "third"):
                    scene.workloads.set_status(name, ready=5)
                assert (await end_of(living), await end_of(restarted)) == (0, 0)
    for operation_id, attempts in ((mine, 2), (others, 1), (again, 1)):
        ended = await scene.ended(operation_id)
        assert (ended.state, ended.outcome, ended.attempts) == (State.COMPLETED, Outcome.CHANGED, attempts)
    assert sorted(scene.workloads.writes) == [("api", 5), ("third", 5), ("web", 5)]


@pytest.mark.parametrize(
    ("point", "late_writes", "found"),
    [
        pytest.param("after:intend", 1, False, marks=pytest.mark.slow),
        ("before:write_scale", 1, False),
        ("after:write_scale", 0, True),
        pytest.param("after:record", 0, False, marks=pytest.mark.slow),
    ],
)
async def test_what_was_held_up_beyond_its_lease_changes_nothing_when_it_wakes(
    scene: Scene, point: str, late_writes: int, found: bool
) -> None:
    operation_id = await scene.begin()
    async with serving(scene.workloads) as port, worker_process(scene.url, port, point, "--signal", "SIGSTOP") as late:
        await until_stopped(late)
        async with asyncio.timeout(DEADLINE):
            await work_off(scene.url, port, "never")
        ended = await scene.ended(operation_id)
        audited = await scene.audited(operation_id)
        version = scene.workloads.deployments[("shop", "web")].metadata.resource_version
        late.send_signal(signal.SIGCONT)
        assert await end_of(late) == 0
    assert (ended.state, ended.outcome, ended.attempts) == (State.COMPLETED, Outcome.CHANGED, 2)
    assert scene.workloads.late_writes == late_writes
    assert scene.workloads.writes == [("web", 5)]
    assert scene.workloads.deployments[("shop", "web")].metadata.resource_version == version
    assert await scene.ended(operation_id) == ended
    assert audited == await scene.audited(operation_id)
    assert audited == ["scale completed", *(["set_replicas effect found"] if found else [])]
