"""What is wrong with one workload: its pods' findings, its release, and how many are ready of how many wanted. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from opsapi.diagnosis.model import PodFinding
from opsapi.diagnosis.pods import Surroundings, about, is_ready, judge_pod
from opsapi.diagnosis.releases import BadRelease, Revision, judge_release
from opsapi.workspaces.objects import DAEMON_SET, Event, Kind, Node, Pod, Workload

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
TEMPLATE_LABELS = ("pod-template-hash", "controller-revision-hash")


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One workload with everything around it, as it was read; `events` is None where they could not be."""

    kind: Kind
    workload: Workload
    pods: tuple[Pod, ...]
    revisions: tuple[Revision, ...] = ()
    events: tuple[Event, ...] | None = ()
    now: datetime


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """`deliberate` is why it is not to be healed at all: deleted, or scaled to zero; then nothing is found."""

    desired: int
    ready: int
    pods: int
    deliberate: str = ""
    findings: tuple[PodFinding, ...] = ()
    release: BadRelease | None = None

    @property
    def well(self) -> bool:
        return not self.findings and self.ready >= self.desired


def desired_of(kind: Kind, workload: Workload) -> int:
    """Pods that there should be: spec.replicas, or for a DaemonSet the nodes that it belongs on."""
    if kind == DAEMON_SET:
        return workload.status.desired_number_scheduled
    return 1 if workload.spec.replicas is None else workload.spec.replicas


def diagnose(seen: Observed, node_of: Callable[[str], Node | None]) -> Diagnosis:
    """The worst first: findings that no restart cures before those that one does, each in the order of names."""
    workload = seen.workload
    desired = desired_of(seen.kind, workload)
    ready = [pod for pod in seen.pods if is_ready(pod) and pod.metadata.deletion_timestamp is None]
    counted = Diagnosis(desired=desired, ready=len(ready), pods=len(seen.pods))
    if workload.metadata.deletion_timestamp is not None:
        return msgspec.structs.replace(counted, deliberate="it is being deleted")
    if desired == 0:
        return msgspec.structs.replace(counted, deliberate="it is scaled to zero")
    events = about(seen.pods, seen.events or ())
    findings = []
    for pod in seen.pods:
        around = Surroundings(
            now=seen.now,
            node=node_of(pod.spec.node_name) if pod.spec.node_name else None,
            events=events.get(pod.metadata.uid, ()),
            twin_ready=any(twin is not pod and template_of(twin) == template_of(pod) for twin in ready),
        )
        found = judge_pod(pod, around)
        if found is not None:
            findings.append(found)
    findings.sort(key=lambda one: (one.restart_cures, one.pod))
    release = judge_release(seen.kind, workload, seen.revisions, findings, seen.events, seen.now)
    return msgspec.structs.replace(counted, findings=tuple(findings), release=release)


def template_of(pod: Pod) -> str:
    """Which revision of its template the pod was made from."""
    return next((pod.metadata.labels[label] for label in TEMPLATE_LABELS if label in pod.metadata.labels), "")


def deployment_revisions(replica_sets: Iterable[Workload], pods: Sequence[Pod]) -> tuple[Revision, ...]:
    """A Deployment's, by the annotation that its controller keeps; the oldest first."""
    found = []
    for held in replica_sets:
        number = held.metadata.annotations.get(REVISION_ANNOTATION, "")
        if not number.isdecimal():
            continue
        meta = held.metadata
        own = tuple(pod for pod in pods if (owner := pod.metadata.controller) is not None and owner.uid == meta.uid)
        found.append(
            Revision(
                number=int(number),
                name=meta.name,
                uid=meta.uid,
                label=meta.labels.get("pod-template-hash", ""),
                created_at=meta.creation_timestamp,
                pods=own,
            )
        )
    return tuple(sorted(found, key=lambda revision: revision.number))
