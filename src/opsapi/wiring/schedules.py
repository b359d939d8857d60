"""Schedules joined: kept in the database, begun through the desk as the account that made them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.sql.schedules import SqlScheduleStore
from opsapi.kit.caller import Call, Caller
from opsapi.operations.desk import Desk
from opsapi.operations.model import Operation
from opsapi.playbooks.model import Context
from opsapi.playbooks.registry import Playbooks, decode_parameters
from opsapi.playbooks.schedules.endpoints import ScheduleEndpoints
from opsapi.playbooks.schedules.firing import ScheduleFiring
from opsapi.playbooks.schedules.model import Schedule
from opsapi.policy.model import Subject
from opsapi.wiring.state import State
from opsapi.workspaces.errors import WorkspaceNotFound

_BY_SCHEDULE = Context(triggered_by="schedule")


@dataclass(frozen=True, slots=True)
class Schedules:
    endpoints: ScheduleEndpoints
    firing: ScheduleFiring

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.firing.run(), name="schedules")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def joined_schedules(state: State, clusters: KubernetesClusters, desk: Desk, playbooks: Playbooks) -> Schedules:
    store = SqlScheduleStore(state.database, state.clock)
    firing = ScheduleFiring(store, CallerOf(state), Beginning(clusters, desk, playbooks), state.clock)
    return Schedules(ScheduleEndpoints(store, playbooks.check, state.clock), firing)


class CallerOf:
    """An account as it stands now, without a token."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, account_id: str) -> Caller | None:
        account = await self._state.accounts.account(account_id)
        if account is None or account.disabled_at is not None:
            return None
        return Caller(account.id, account.kind, account.grants(), "", "")


class Beginning:
    """What a tick does: the same as the call that the account could make."""

    def __init__(self, clusters: KubernetesClusters, desk: Desk, playbooks: Playbooks) -> None:
        self._clusters = clusters
        self._desk = desk
        self._playbooks = playbooks

    async def __call__(self, call: Call, schedule: Schedule) -> Operation:
        earlier = await self._desk.earlier(call)
        if earlier is not None:
            return earlier
        cluster = self._clusters.find(schedule.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(schedule.workspace_id)
        playbook = self._playbooks.find(schedule.operation)
        parameters = decode_parameters(playbook, schedule.parameters)
        caller = call.caller
        subject = Subject(caller.account_id, caller.kind, schedule.workspace_id, cluster.workspace.mode)
        proposal = await playbook.propose(
            cluster,
            subject,
            parameters,
            context=_BY_SCHEDULE,
            reason=schedule.reason or f"Schedule {schedule.id}",
            confirm=not parameters.confirmation,
        )
        return await self._desk.begin(call, proposal)
