"""Whether a workload's newest revision is what is wrong with it, and whether an earlier one was well. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from opsapi.diagnosis.model import Cause, Evidence, PodFinding
from opsapi.diagnosis.pods import is_ready
from opsapi.workspaces.objects import DEPLOYMENT, Event, Kind, Pod, Workload

RELEASE_CAUSES = frozenset(
    {
        Cause.CRASH_LOOP, Cause.IMAGE_PULL, Cause.CONFIG_ERROR, Cause.START_ERROR, Cause.PROBE_FAILING, Cause.NOT_READY,
        Cause.OOM_KILLED,
    }
)  # fmt: skip
"""What a release can bring about."""
SERVED = timedelta(seconds=30)
"""A revision replaced sooner had no time to show that it is well."""
EVENTS_KEPT = timedelta(minutes=45)
"""Kubernetes keeps events for an hour; less a margin for how long a revision takes to fail."""
_FAILURES = frozenset({"BackOff", "Failed"})


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One state of a workload's template. `name` and `uid` are of the ReplicaSet or ControllerRevision that holds it;
    `label` is the value by which its pods are known."""

    number: int
    name: str
    uid: str
    label: str
    created_at: datetime | None
    pods: tuple[Pod, ...] = ()

    @property
    def ready(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if is_ready(pod) and pod.metadata.deletion_timestamp is None)


class BadRelease(msgspec.Struct, frozen=True, kw_only=True):
    """The newest revision is ill. `previous` is the one before it; `proven` whether it is known to have been well:
    only then is going back known to help. `doubt` is why not."""

    current: Revision
    previous: Revision
    since: datetime | None
    proven: bool
    doubt: str = ""
    evidence: tuple[Evidence, ...]


def judge_release(
    kind: Kind,
    workload: Workload,
    revisions: Sequence[Revision],
    findings: Sequence[PodFinding],
    events: Iterable[Event] | None,
    now: datetime,
) -> BadRelease | None:
    """None where there is one revision alone, or the newest one has a ready pod, or its pods ail from what no release
    brings about (a lost node, no room).

    A newest revision with some ready pods is not judged bad as a whole: its others may be ill for their own reasons.
    """
    if len(revisions) < 2:
        return None
    ordered = sorted(revisions, key=lambda revision: revision.number)
    current, previous = ordered[-1], ordered[-2]
    ill = {finding.uid: finding for finding in findings}
    ailing = [ill[pod.metadata.uid] for pod in current.pods if pod.metadata.uid in ill]
    released = [finding for finding in ailing if finding.cause in RELEASE_CAUSES]
    well = [pod for pod in current.ready if pod.metadata.uid not in ill]
    if not released or len(released) != len(ailing) or well:
        return None
    where = f"{kind.kind}/{workload.metadata.namespace}/{workload.metadata.name}"
    told = f"revision {current.number}: none of {len(current.pods)} pods is well"
    evidence = [Evidence(object=where, field="revision", value=told, at=current.created_at)]
    progress = next((one for one in workload.status.conditions if one.type == "Progressing"), None)
    if progress is not None and progress.status == "False":
        value = f"{progress.status}, {progress.reason}"
        at = progress.last_transition_time
        evidence.append(Evidence(object=where, field="status.conditions[Progressing]", value=value, at=at))
    healthy = [pod for pod in previous.ready if pod.metadata.uid not in ill]
    if healthy:
        told, doubt = f"revision {previous.number}: {len(healthy)} pods are ready", ""
    elif kind == DEPLOYMENT:
        told, doubt = _past(current, previous, events, now)
    else:
        told, doubt = "", f"no pod of revision {previous.number} is left to be seen well"
    if told:
        evidence.append(Evidence(object=where, field="revision", value=told, at=previous.created_at))
    return BadRelease(
        current=current,
        previous=previous,
        since=min((finding.since for finding in released if finding.since is not None), default=current.created_at),
        proven=not doubt,
        doubt=doubt,
        evidence=tuple(evidence),
    )


def _past(current: Revision, previous: Revision, events: Iterable[Event] | None, now: datetime) -> tuple[str, str]:
    """(what is known of the previous revision's past, or why too little is).

    Its pods are gone. Events outlive them by an hour: where the newest revision is younger than that, pods of the
    previous one that ailed would still be told of.
    """
    began, ended = previous.created_at, current.created_at
    if began is None or ended is None or ended - began < SERVED:
        return "", f"revision {previous.number} was replaced before it had run for {SERVED.total_seconds():g} s"
    if events is None:
        return "", f"no pod of revision {previous.number} is left, and events cannot be read"
    if now - ended > EVENTS_KEPT:
        return "", f"no pod of revision {previous.number} is left, and the events of its time are gone"
    failures = [
        event
        for event in events
        if event.reason in _FAILURES
        and event.involved_object.kind == "Pod"
        and event.involved_object.name.startswith(f"{previous.name}-")
    ]
    if failures:
        return "", f"pods of revision {previous.number} failed as well: {failures[0].reason}"
    ran = int((ended - began).total_seconds())
    return (
        f"revision {previous.number}: its pods ran for {ran} s until it was replaced, and no event tells of a failure",
        "",
    )
