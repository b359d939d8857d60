"""Running totals of one workspace, kept by its cache's differences, so that an answer costs nothing per pod.

Every handler subtracts what the old object counted and adds what the new one counts. What depends on several objects
(an application's state hangs on its controllers' status and its pods' troubles) is judged again, for the owners that
were touched, when someone reads.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from opsapi.workspaces.capacity import NodeFacts, Room, node_facts, node_findings, total_of
from opsapi.workspaces.findings import Finding, FindingType
from opsapi.workspaces.groups import PodGroup, census_of, count
from opsapi.workspaces.model import Workspace
from opsapi.workspaces.objects import (
    APPLICATION_KINDS,
    AUTOSCALER,
    CLAIM,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    CronJob,
    HorizontalPodAutoscaler,
    Job,
    Kind,
    KubernetesObject,
    Namespace,
    Node,
    OwnerReference,
    PersistentVolumeClaim,
    Pod,
    ResourceQuota,
    Workload,
)
from opsapi.workspaces.pods import Phase, PodFacts, facts_of, quantity_bytes
from opsapi.workspaces.quotas import quota_findings
from opsapi.workspaces.states import (
    ApplicationState,
    Verdict,
    census_findings,
    failure_of,
    judge_cron_job,
    judge_workload,
)


class Requested(msgspec.Struct):
    """Sums of the effective requests of pods that hold room: cpu millicores, memory bytes, and how many pods."""

    cpu: int = 0
    memory: int = 0
    pods: int = 0

    def add(self, facts: PodFacts, sign: int) -> None:
        self.cpu += sign * facts.cpu
        self.memory += sign * facts.memory
        self.pods += sign


class Application(msgspec.Struct, frozen=True):
    """An application as last judged. `object` is its Workload or CronJob."""

    kind: Kind
    object: Workload | CronJob
    verdict: Verdict


class Tallies:
    """The totals of one workspace. Feed `observe`; call `settle` before reading what is judged."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.version = 0
        """Grows with every difference that a figure could show."""
        self.nodes_version = 0
        """Grows with every difference that a node's figures could show."""
        self.phases: Counter[Phase] = Counter()
        self.requested = Requested()
        self.requested_in: dict[str, Requested] = {}
        """By namespace."""
        self.requested_on: dict[str, Requested] = {}
        """By node; `pods` are those bound to it that have not ended."""
        self.functions: Counter[str] = Counter()
        """Running pods by function, `namespace/name`."""
        self.projects: Counter[str] = Counter()
        """Namespaces by phase."""
        self.claimed = 0
        """Bytes of the bound claims' capacity."""
        self.nodes: dict[str, NodeFacts] = {}
        self.quotas: dict[tuple[str, str], ResourceQuota] = {}
        self.states: Counter[ApplicationState] = Counter()
        self.applications: dict[str, Application] = {}
        """By uid, as judged by the last `settle`."""
        self.finding_counts: Counter[FindingType] = Counter()
        self._capacity: Room | None = None
        self._sources: dict[str, tuple[Finding, ...]] = {}
        self._raw: dict[str, tuple[Kind, Workload | CronJob]] = {}
        self._groups: dict[str, PodGroup] = {}
        self._parents: dict[str, str] = {}
        self._children: dict[str, set[str]] = {}
        self._jobs: dict[str, dict[str, Job]] = {}
        self._dirty: set[str] = set()
        self._due: list[tuple[datetime, str]] = []
        self._handlers: Mapping[Kind, Callable[[Any, Any], None]] = {
            POD: self._pod,
            NODE: self._node,
            NAMESPACE: self._namespace,
            REPLICA_SET: self._replica_set,
            JOB: self._job,
            RESOURCE_QUOTA: self._quota,
            CLAIM: self._claim,
            AUTOSCALER: self._autoscaler,
        }

    def observe(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        """One difference of the cache: an Inventory's listener."""
        if kind in APPLICATION_KINDS:
            self._application(kind, old, new)  # type: ignore[arg-type]
            return
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(old, new)

    @property
    def capacity(self) -> Room:
        """The nodes' capacities together; None for what a node does not state: a part would look like the whole."""
        if self._capacity is None:
            rooms = [facts.capacity for facts in self.nodes.values()]
            self._capacity = Room(
                total_of(room.cpu for room in rooms),
                total_of(room.memory for room in rooms),
                total_of(room.storage for room in rooms),
                total_of(room.pods for room in rooms),
            )
        return self._capacity

    def findings(self) -> Iterator[Finding]:
        """Everything found, in no order."""
        for findings in self._sources.values():
            yield from findings

    def findings_of(self, uid: str) -> tuple[Finding, ...]:
        """What was found about one application, by its uid."""
        return self._sources.get(f"owner/{uid}", ())

    def root_of(self, controller: OwnerReference | None) -> str:
        """The uid of the application (or other owner) to which a pod with this controller belongs, "" for none."""
        return self._parents.get(controller.uid, controller.uid) if controller is not None else ""

    def parent_of(self, uid: str) -> str:
        """The uid of what stands above a ReplicaSet or Job, "" for none or unknown."""
        return self._parents.get(uid, "")

    def settle(self, now: datetime) -> None:
        """Judges again what was touched since the last call, and what time alone has changed. `now`: cluster time."""
        while self._due and self._due[0][0] <= now:
            self._dirty.add(heapq.heappop(self._due)[1])
        if not self._dirty:
            return
        touched, self._dirty = self._dirty, set()
        for uid in touched:
            self._judge(uid, now)

    # what is judged

    def _judge(self, uid: str, now: datetime) -> None:
        application = self._raw.get(uid)
        previous = self.applications.pop(uid, None)
        if previous is not None:
            count(self.states, previous.verdict.state, -1)
        verdict: Verdict | None = None
        if application is not None:
            verdict = self._verdict(uid, application, now)
            self.applications[uid] = Application(*application, verdict)
            self.states[verdict.state] += 1
        elif uid not in self._parents and (group := self._groups.get(uid)) is not None:
            found, recheck_at = census_findings(group.named, "", census_of(self._groups_of(uid)), now)
            verdict = Verdict(ApplicationState.UNKNOWN, tuple(found), recheck_at)
        self._found(f"owner/{uid}", verdict.findings if verdict is not None else ())
        if verdict is not None and verdict.recheck_at is not None:
            heapq.heappush(self._due, (verdict.recheck_at, uid))

    def _verdict(self, uid: str, application: tuple[Kind, Workload | CronJob], now: datetime) -> Verdict:
        kind, held = application
        census = census_of(self._groups_of(uid))
        if isinstance(held, CronJob):
            return judge_cron_job(held, self._jobs.get(uid, {}).values(), census, now)
        return judge_workload(kind, held, census, now)

    def _groups_of(self, root: str) -> Iterator[PodGroup]:
        for uid in (root, *self._children.get(root, ())):
            group = self._groups.get(uid)
            if group is not None:
                yield group

    def _found(self, source: str, findings: tuple[Finding, ...]) -> None:
        before = self._sources.pop(source, ())
        if findings:
            self._sources[source] = findings
        if before == findings:
            return
        self.version += 1
        for finding in before:
            count(self.finding_counts, finding.type, -1)
        for finding in findings:
            self.finding_counts[finding.type] += 1

    def _touch(self, uid: str) -> None:
        self.version += 1
        self._dirty.add(uid)
        parent = self._parents.get(uid)
        if parent is not None:
            self._dirty.add(parent)

    # what is counted

    def _application(self, kind: Kind, old: Workload | CronJob | None, new: Workload | CronJob | None) -> None:
        if old is not None:
            self._raw.pop(old.metadata.uid, None)
            self._touch(old.metadata.uid)
        if new is not None:
            self._raw[new.metadata.uid] = kind, new
            self._touch(new.metadata.uid)

    def _pod(self, old: Pod | None, new: Pod | None) -> None:
        before = facts_of(old) if old is not None else None
        after = facts_of(new) if new is not None else None
        if before == after and old is not None and new is not None and _owner_uid(old) == _owner_uid(new):
            return
        if _room_taken(before) != _room_taken(after):
            self.nodes_version += 1
        if old is not None and before is not None:
            self._count_pod(old, before, -1)
        if new is not None and after is not None:
            self._count_pod(new, after, 1)

    def _count_pod(self, pod: Pod, facts: PodFacts, sign: int) -> None:
        count(self.phases, facts.phase, sign)
        if facts.phase not in (Phase.FAILED, Phase.SUCCEEDED):
            self.requested.add(facts, sign)
            _add(self.requested_in, pod.metadata.namespace, facts, sign)
            if facts.node:
                _add(self.requested_on, facts.node, facts, sign)
        if facts.function:
            count(self.functions, facts.function, sign)
        owner = _owner_uid(pod)
        group = self._groups.get(owner)
        if group is None:
            group = self._groups[owner] = PodGroup(_named(pod))
        group.add(facts, sign)
        if group.pods == 0:
            del self._groups[owner]
        self._touch(owner)

    def _replica_set(self, old: Workload | None, new: Workload | None) -> None:
        self._adopt(old.metadata.uid if old else "", new.metadata.uid if new else "", new)

    def _adopt(self, old_uid: str, uid: str, child: Workload | Job | None) -> None:
        """Keeps which owner stands above a ReplicaSet or Job."""
        controller = child.metadata.controller if child is not None else None
        if old_uid == uid and controller is not None and self._parents.get(uid) == controller.uid:
            return
        if old_uid:
            self._touch(old_uid)
            parent = self._parents.pop(old_uid, None)
            if parent is not None:
                siblings = self._children[parent]
                siblings.discard(old_uid)
                if not siblings:
                    del self._children[parent]
        if uid and controller is not None:
            self._parents[uid] = controller.uid
            self._children.setdefault(controller.uid, set()).add(uid)
            self._touch(uid)

    def _job(self, old: Job | None, new: Job | None) -> None:
        self._adopt(old.metadata.uid if old else "", new.metadata.uid if new else "", new)
        if old is not None:
            self._found(f"job/{old.metadata.uid}", ())
            parent = old.metadata.controller
            if parent is not None and parent.uid in self._jobs:
                self._jobs[parent.uid].pop(old.metadata.uid, None)
                if not self._jobs[parent.uid]:
                    del self._jobs[parent.uid]
                self._touch(parent.uid)
        if new is None:
            return
        parent = new.metadata.controller
        if parent is not None:
            self._jobs.setdefault(parent.uid, {})[new.metadata.uid] = new
            self._touch(parent.uid)
        elif reason := failure_of(new):
            named = JOB.kind, new.metadata.namespace, new.metadata.name
            self._found(f"job/{new.metadata.uid}", (Finding(FindingType.JOB_FAILED, *named, f"Failed: {reason}"),))

    def _node(self, old: Node | None, new: Node | None) -> None:
        self.version += 1
        self.nodes_version += 1
        self._capacity = None
        name = (new or old).metadata.name  # type: ignore[union-attr]
        self.nodes.pop(name, None)
        if new is not None:
            self.nodes[name] = node_facts(new)
        self._found(f"node/{name}", node_findings(new) if new is not None else ())

    def _namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        for namespace, sign in ((old, -1), (new, 1)):
            if namespace is not None and self._workspace.in_scope(namespace.metadata.name):
                self.version += 1
                count(self.projects, namespace.status.phase, sign)

    def _quota(self, old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        self.version += 1
        if old is not None:
            key = old.metadata.namespace, old.metadata.name
            self.quotas.pop(key, None)
            self._found(f"quota/{key[0]}/{key[1]}", ())
        if new is not None:
            key = new.metadata.namespace, new.metadata.name
            self.quotas[key] = new
            self._found(f"quota/{key[0]}/{key[1]}", quota_findings(new))

    def _claim(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        self.version += 1
        for claim, sign in ((old, -1), (new, 1)):
            if claim is not None and claim.status.phase == "Bound":
                self.claimed += sign * quantity_bytes(claim.status.capacity.get("storage", "0"))
        if old is not None:
            self._found(f"claim/{old.metadata.uid}", ())
        if new is not None and new.status.phase == "Lost":
            named = CLAIM.kind, new.metadata.namespace, new.metadata.name
            text = "The volume behind the claim is gone"
            self._found(f"claim/{new.metadata.uid}", (Finding(FindingType.CLAIM_LOST, *named, text),))

    def _autoscaler(self, old: HorizontalPodAutoscaler | None, new: HorizontalPodAutoscaler | None) -> None:
        if old is not None:
            self._found(f"autoscaler/{old.metadata.uid}", ())
        if new is None:
            return
        for condition in new.status.conditions:
            if condition.type == "ScalingActive" and condition.status == "False":
                if condition.reason == "ScalingDisabled":
                    continue  # its target was scaled to zero on purpose
                named = AUTOSCALER.kind, new.metadata.namespace, new.metadata.name
                text = f"Cannot compute a replica count: {condition.reason}"
                finding = Finding(FindingType.AUTOSCALER_WITHOUT_METRICS, *named, text)
                self._found(f"autoscaler/{new.metadata.uid}", (finding,))


def _add(by_key: dict[str, Requested], key: str, facts: PodFacts, sign: int) -> None:
    held = by_key.get(key)
    if held is None:
        held = by_key[key] = Requested()
    held.add(facts, sign)
    if held.pods == 0:
        del by_key[key]


def _room_taken(facts: PodFacts | None) -> tuple[str, int, int]:
    return (facts.node, facts.cpu, facts.memory) if facts is not None and facts.node else ("", 0, 0)


def _owner_uid(pod: Pod) -> str:
    controller = pod.metadata.controller
    return controller.uid if controller is not None else pod.metadata.uid


def _named(pod: Pod) -> tuple[str, str, str]:
    controller = pod.metadata.controller
    if controller is not None:
        return controller.kind, pod.metadata.namespace, controller.name
    return POD.kind, pod.metadata.namespace, pod.metadata.name
