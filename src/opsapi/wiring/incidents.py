"""Incidents joined: kept in the database, remedied by healing's and scaling's steps, looked after by one replica."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.kubernetes.workloads import KubernetesWorkloads
from opsapi.adapters.sql.incidents import SqlIncidentStore
from opsapi.adapters.sql.leases import Leases
from opsapi.applications.scale_planning import ScalePlanner
from opsapi.applications.scaling_steps import ScalingSteps
from opsapi.incidents.alerts_endpoint import AlertEndpoints
from opsapi.incidents.endpoints import IncidentEndpoints
from opsapi.incidents.manage_endpoint import ManageIncidentEndpoints
from opsapi.incidents.remediating import Remediating
from opsapi.incidents.remediation_planning import RemediationPlanner
from opsapi.incidents.remediation_steps import RemediationSteps
from opsapi.incidents.reporting import Reporter
from opsapi.incidents.watching import Watch
from opsapi.playbooks.ports import Playbook
from opsapi.policy.model import TargetHistory
from opsapi.settings.source import InvalidConfiguration
from opsapi.webhooks.channels import Channels
from opsapi.wiring.acting import Acting

_LEASE = "incidents"


@dataclass(frozen=True, slots=True)
class Incidents:
    """`reporter` is how other parts of the service tell of what they find."""

    store: SqlIncidentStore
    reporter: Reporter
    watch: Watch
    endpoints: list[object]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watch.run(), name="incidents")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def joined_incidents(acting: Acting, clusters: KubernetesClusters, healing: Playbook, channels: Channels) -> Incidents:
    """Raises InvalidConfiguration where an escalation channel is not configured."""
    state, policy = acting.state, acting.policy
    settings, clock, ledger = state.settings.incidents, state.clock, state.ledger
    unknown = channels.unknown(settings.escalation_channels)
    if unknown:
        known = ", ".join(channels.names) or "none"
        raise InvalidConfiguration(
            [f"incidents.escalation_channels: {unknown[0]} is not among webhooks.channels: {known}"]
        )
    workloads, objects = KubernetesWorkloads(clusters), KubernetesObjects(clusters)
    planner = RemediationPlanner(clusters, healing, ScalePlanner(clusters, workloads, objects, policy), policy)
    scaling = ScalingSteps(clusters, workloads, objects, policy, state.settings.scaling)
    acting.procedures.register(RemediationSteps(healing.procedure(), scaling).procedure(planner.replan))
    store = SqlIncidentStore(state.database, clock)
    reporter = Reporter(store, settings, clock)
    remediating = Remediating(store, clusters, planner, acting.desk, ledger, settings, clock)
    leases, holder = Leases(state.database, clock), f"{socket.gethostname()}-{os.getpid()}"

    async def turn() -> bool:
        held = timedelta(seconds=3 * settings.poll_seconds)
        return await leases.acquire(_LEASE, holder, held) is not None

    async def failing() -> dict[str, TargetHistory]:
        return await ledger.failing(policy.settings)

    return Incidents(
        store=store,
        reporter=reporter,
        watch=Watch(store, reporter, remediating, failing, turn, settings, clock),
        endpoints=[
            IncidentEndpoints(store, reporter, clusters, ledger, policy),
            ManageIncidentEndpoints(store, remediating, settings, clock),
            AlertEndpoints(store, clusters, settings, clock),
        ],
    )
