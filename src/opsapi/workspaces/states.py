"""The state of an application, from what its controllers report and what its pods suffer. Pure; see docs/figures.md."""

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from opsapi.workspaces.findings import TROUBLE_FINDINGS, Finding, FindingType
from opsapi.workspaces.objects import CRON_JOB, DAEMON_SET, CronJob, Job, Kind, Workload
from opsapi.workspaces.pods import Trouble


class ApplicationState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    PENDING = "pending"
    UNKNOWN = "unknown"


class Replicas(msgspec.Struct, frozen=True):
    desired: int
    ready: int
    available: int
    updated: int


class PodCensus(msgspec.Struct, frozen=True):
    """What one owner's pods add up to: how many there are, for each trouble how many and the commonest cause, and
    when their containers were last OOM-killed."""

    pods: int = 0
    troubles: dict[Trouble, tuple[int, str]] = {}
    oom_kills: tuple[datetime, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """`recheck_at`: when time alone can change the verdict."""

    state: ApplicationState
    findings: tuple[Finding, ...] = ()
    recheck_at: datetime | None = None


OOM_MEMORY = timedelta(hours=1)
"""How long an OOM kill stays a finding."""
START_GRACE = timedelta(minutes=2)
"""How long an application may be without a ready replica, and without other trouble, before that is a finding."""


_FATAL = (
    Trouble.CRASH_LOOP, Trouble.IMAGE_PULL_FAILED, Trouble.CONFIG_ERROR, Trouble.START_ERROR, Trouble.UNSCHEDULABLE,
)  # fmt: skip


def replicas_of(kind: Kind, workload: Workload) -> Replicas:
    """Desired from the spec (DaemonSet: the nodes it belongs on), the rest from the status."""
    status = workload.status
    if kind == DAEMON_SET:
        return Replicas(
            status.desired_number_scheduled,
            status.number_ready,
            status.number_available,
            status.updated_number_scheduled,
        )
    desired = 1 if workload.spec.replicas is None else workload.spec.replicas
    return Replicas(desired, status.ready_replicas, status.available_replicas, status.updated_replicas)


def judge_workload(kind: Kind, workload: Workload, census: PodCensus, now: datetime) -> Verdict:
    """A Deployment's, StatefulSet's or DaemonSet's state, and what is wrong with it."""
    replicas = replicas_of(kind, workload)
    if workload.status.observed_generation == 0:
        return Verdict(ApplicationState.UNKNOWN)
    if replicas.desired == 0:
        return Verdict(ApplicationState.STOPPED)
    named = kind.kind, workload.metadata.namespace, workload.metadata.name
    uid = workload.metadata.uid
    stalled = _stalled(workload)
    findings, recheck_at = census_findings(named, uid, census, now)
    if stalled and not census.troubles:
        text = f"Rollout does not progress: {stalled}"
        findings.append(Finding(FindingType.ROLLOUT_STALLED, *named, text, 1, uid))
    if replicas.ready == 0:
        doomed = bool(stalled) or any(trouble in census.troubles for trouble in _FATAL)
        if not findings:
            due = _without_ready_since(workload, now) + START_GRACE
            if now >= due:
                text = f"None of {replicas.desired} replicas is ready"
                findings.append(Finding(FindingType.NO_READY_REPLICAS, *named, text, replicas.desired, uid))
            else:
                recheck_at = due if recheck_at is None else min(due, recheck_at)
        state = ApplicationState.FAILED if doomed else ApplicationState.PENDING
        return Verdict(state, tuple(findings), recheck_at)
    if replicas.ready < replicas.desired and not findings:
        text = f"{replicas.ready} of {replicas.desired} replicas are ready"
        missing = replicas.desired - replicas.ready
        findings.append(Finding(FindingType.REPLICAS_UNAVAILABLE, *named, text, missing, uid))
    return Verdict(ApplicationState.RUNNING, tuple(findings), recheck_at)


def judge_cron_job(cron_job: CronJob, jobs: Collection[Job], census: PodCensus, now: datetime) -> Verdict:
    """Stopped while suspended, failed where the newest finished Job failed, else running: it keeps its schedule."""
    if cron_job.spec.suspend:
        return Verdict(ApplicationState.STOPPED)
    named = CRON_JOB.kind, cron_job.metadata.namespace, cron_job.metadata.name
    uid = cron_job.metadata.uid
    findings, recheck_at = census_findings(named, uid, census, now)
    finished = [(at, job.metadata.name, job) for job in jobs if (at := finished_at(job)) is not None]
    newest = max(finished, key=lambda entry: entry[:2])[2] if finished else None
    reason = failure_of(newest) if newest is not None else ""
    if newest is None or not reason:
        return Verdict(ApplicationState.RUNNING, tuple(findings), recheck_at)
    text = f"The newest Job {newest.metadata.name} failed: {reason}"
    findings.append(Finding(FindingType.JOB_FAILED, *named, text, 1, uid))
    return Verdict(ApplicationState.FAILED, tuple(findings), recheck_at)


def census_findings(
    named: tuple[str, str, str], application: str, census: PodCensus, now: datetime
) -> tuple[list[Finding], datetime | None]:
    """One finding per trouble that the pods of one owner suffer, and when the first of them lapses."""
    findings = []
    for trouble, (count, cause) in census.troubles.items():
        text = cause if census.pods == 1 else f"{count} of {census.pods} pods: {cause}"
        findings.append(Finding(TROUBLE_FINDINGS[trouble], *named, text, count, application))
    recent = [at for at in census.oom_kills if at + OOM_MEMORY > now]
    if recent:
        pods = "1 pod was" if len(recent) == 1 else f"{len(recent)} pods were"
        text = f"{pods} OOM-killed within the last hour"
        findings.append(Finding(FindingType.OOM_KILLED, *named, text, len(recent), application))
    return findings, (min(recent) + OOM_MEMORY if recent else None)


def finished_at(job: Job) -> datetime | None:
    """When the Job completed or failed; None while it has not."""
    for condition in job.status.conditions:
        if condition.type in ("Complete", "Failed") and condition.status == "True":
            return condition.last_transition_time or job.status.completion_time
    return None


def failure_of(job: Job) -> str:
    """Why the Job failed, in Kubernetes' reason word; "" where it has not."""
    for condition in job.status.conditions:
        if condition.type == "Failed" and condition.status == "True":
            return condition.reason or "Failed"
    return ""


def _stalled(workload: Workload) -> str:
    for condition in workload.status.conditions:
        if condition.type == "Progressing" and condition.status == "False":
            return condition.reason or "ProgressDeadlineExceeded"
        if condition.type == "ReplicaFailure" and condition.status == "True":
            return condition.reason or "ReplicaFailure"
    return ""


def _without_ready_since(workload: Workload, now: datetime) -> datetime:
    """Since when it has been unavailable as far as Kubernetes says: a Deployment's condition, else its creation."""
    for condition in workload.status.conditions:
        if condition.type == "Available" and condition.status == "False" and condition.last_transition_time:
            return condition.last_transition_time
    return workload.metadata.creation_timestamp or now
