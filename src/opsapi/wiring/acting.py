"""What acts: the policy in force, the desk, deciders, and the worker with its housekeeping."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.control_endpoints import OperationControlEndpoints
from opsapi.operations.deciding import Decider
from opsapi.operations.desk import Desk
from opsapi.operations.endpoints import OperationEndpoints
from opsapi.operations.execution import Execution
from opsapi.operations.guardrail_endpoints import GuardrailEndpoints
from opsapi.operations.procedures import Procedures
from opsapi.operations.worker import Worker
from opsapi.policy.book import PolicyBook
from opsapi.settings.policy_file import PolicyFile
from opsapi.wiring.deciding import Facts, policy_of
from opsapi.wiring.gate import AccountGate
from opsapi.wiring.state import State

_EXPIRE_SECONDS = 5.0
_PURGE_SECONDS = 3600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Acting:
    state: State
    policy: PolicyBook
    procedures: Procedures
    desk: Desk
    decider: Decider
    worker: Worker
    modes: "Modes"

    def endpoints(self) -> list[object]:
        state = self.state
        return [
            OperationEndpoints(state.ledger, state.signals, state.clock, state.settings.operations),
            OperationControlEndpoints(state.ledger, self.decider, state.clock),
            GuardrailEndpoints(state.ledger, self.policy, self.modes, state.clock),
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker is the last to start and the first to stop."""
        jobs = [asyncio.create_task(_expire(self.state)), asyncio.create_task(_purge(self.state))]
        path = self.state.settings.policy_file
        if path is not None:
            jobs.append(asyncio.create_task(PolicyFile(path, self.policy, self.state.clock).run()))
        working = asyncio.create_task(self.worker.run(), name="operations")
        try:
            yield
        finally:
            self.worker.stop()
            await working
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


def joined_acting(state: State, clusters: KubernetesClusters) -> Acting:
    """Raises InvalidConfiguration where the policy file has a mistake at the start: nothing is in force yet."""
    settings = state.settings
    policy = PolicyBook(policy_of(settings), state.clock.now())
    procedures = Procedures()
    modes = Modes(clusters)
    execution = Execution(
        state.ledger,
        procedures,
        state.clock,
        settings.operations,
        gate=AccountGate(state.accounts, clusters, state.ledger),
    )
    return Acting(
        state=state,
        policy=policy,
        procedures=procedures,
        desk=Desk(state.ledger, procedures, policy, state.clock),
        decider=Decider(state.ledger, procedures, policy, state.clock, Facts(state), modes),
        worker=Worker(state.ledger, execution, procedures, state.signals, state.clock, settings.operations),
        modes=modes,
    )


class Modes:
    """A workspace's mode, and its cluster's time."""

    def __init__(self, clusters: KubernetesClusters) -> None:
        self._clusters = clusters

    def __call__(self, workspace_id: str) -> tuple[str, datetime] | None:
        cluster = self._clusters.find(workspace_id)
        return None if cluster is None else (cluster.workspace.mode, cluster.inventory.now())


async def _expire(state: State) -> None:
    while True:
        await asyncio.sleep(_EXPIRE_SECONDS)
        try:
            await state.ledger.expire(state.clock.now())
        except DependencyUnavailable as error:
            _log.warning("requests that nobody decided wait to be ended: %s", error.message)


async def _purge(state: State) -> None:
    """Ended operations past their time, some hundreds a transaction."""
    kept = timedelta(days=state.settings.operations.history_days)
    while True:
        await asyncio.sleep(_PURGE_SECONDS)
        try:
            while await state.ledger.purge(state.clock.now() - kept):
                pass
        except DependencyUnavailable as error:
            _log.warning("old operations wait to be purged: %s", error.message)
