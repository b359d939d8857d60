"""Every pod template of a workspace judged, and what else we check."""

from collections.abc import Iterable

import msgspec

from opsapi.playbooks.scanning.gathering import (
    NETWORK_POLICIES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    TEMPLATES,
    Gatherer,
    alone,
    judged_elsewhere,
    namespaces_of,
    owner_of,
    runs,
    template_of,
    where_of,
)
from opsapi.playbooks.scanning.hygiene import policy_findings, service_findings, template_findings
from opsapi.playbooks.scanning.model import Level, Where
from opsapi.playbooks.scanning.pods import place
from opsapi.playbooks.scanning.reporting import Kept
from opsapi.playbooks.scanning.standards import assess, pod_findings
from opsapi.workspaces.objects import POD, Pod
from opsapi.workspaces.ports import Cluster
from opsapi.workspaces.writing import JsonObject

_NAMED = 20


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """`levels`: how many workloads satisfy each level at most; `privileged` names some of those that satisfy none but
    the first. `unreadable` objects held no pod template that can be read."""

    workloads: int
    levels: dict[str, int]
    privileged: list[Where]
    truncated: bool
    unreadable: int


class _Judge:
    """`defaults`: what each namespace's default ServiceAccount says of its token; None where they could not be read,
    and then only pods that say it themselves are found to mount one."""

    def __init__(self, workspace_id: str, kept: Kept, defaults: dict[str, bool | None] | None) -> None:
        self._workspace_id = workspace_id
        self._kept = kept
        self._defaults = defaults
        self.levels = dict.fromkeys((level.value for level in Level), 0)
        self.privileged: list[Where] = []
        self.unreadable = 0

    def add(self, held: JsonObject, path: str) -> None:
        template = held if path == "$" else template_of(held, path)
        where = where_of(held)
        try:
            pod = place(path, template)
        except msgspec.ValidationError:
            self.unreadable += 1
            return
        assessment = assess(pod)
        self.levels[assessment.level.value] += 1
        if assessment.level is Level.PRIVILEGED:
            self.privileged.append(where)
        self._kept.add(pod_findings(self._workspace_id, where, assessment))
        mounts = False if self._defaults is None else self._defaults.get(where.namespace)
        self._kept.add(list(template_findings(self._workspace_id, where, pod, mounts)))


async def judge_workloads(cluster: Cluster, gatherer: Gatherer, kept: Kept) -> Judged:
    """Raises DependencyUnavailable and OperationStopped; what the credentials may not read is noted and passed over."""
    workspace = cluster.workspace
    namespaces = namespaces_of(cluster)
    accounts = [one async for one in gatherer.each(SERVICE_ACCOUNTS, namespaces)]
    readable = SERVICE_ACCOUNTS.kind not in gatherer.unread
    judge = _Judge(workspace.id, kept, _mounting(accounts) if readable else None)
    for resource, path in TEMPLATES.items():
        async for held in gatherer.each(resource, namespaces):
            if runs(held) and not judged_elsewhere(owner_of(held)):
                judge.add(held, path)
    await _judge_pods(cluster, gatherer, judge)
    async for held in gatherer.each(SERVICES, namespaces):
        kept.add(list(service_findings(workspace.id, [held])))
    policies = [one async for one in gatherer.each(NETWORK_POLICIES, namespaces)]
    if NETWORK_POLICIES.kind not in gatherer.unread:
        kept.add(list(policy_findings(workspace.id, _with_pods(cluster), policies)))
    named = sorted(judge.privileged, key=lambda where: (where.namespace, where.kind, where.name))
    return Judged(
        workloads=sum(judge.levels.values()),
        levels=judge.levels,
        privileged=named[:_NAMED],
        truncated=len(named) > _NAMED,
        unreadable=judge.unreadable,
    )


async def _judge_pods(cluster: Cluster, gatherer: Gatherer, judge: _Judge) -> None:
    """Only where the cache knows of pods that no template tells of: they are few, and pods are many."""
    lonely = [pod for pod in _pods(cluster) if alone(pod)]
    uids = {pod.metadata.uid for pod in lonely}
    async for held in gatherer.each(PODS, sorted({pod.metadata.namespace for pod in lonely})):
        if held["metadata"].get("uid") in uids:
            judge.add(held, "$")


def _pods(cluster: Cluster) -> Iterable[Pod]:
    return (pod for pod in cluster.inventory.all(POD, Pod) if cluster.workspace.in_scope(pod.metadata.namespace))


def _with_pods(cluster: Cluster) -> set[str]:
    """Namespaces in which anything runs that a policy could select: the host's network is beyond them."""
    return {pod.metadata.namespace for pod in _pods(cluster) if pod.status.phase in ("Running", "Pending")}


def _mounting(accounts: Iterable[JsonObject]) -> dict[str, bool | None]:
    """By namespace, what its default ServiceAccount says of mounting its token."""
    return {
        account["metadata"].get("namespace", ""): account.get("automountServiceAccountToken")
        for account in accounts
        if account["metadata"]["name"] == "default"
    }
