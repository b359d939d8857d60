"""Containers that end when they should run: how they ended, and since when at least. Pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from opsapi.diagnosis.model import Evidence, shown
from opsapi.workspaces.objects import ContainerStatus, Event, Pod, Terminated

FIRST_BACKOFF = 10.0
"""Seconds of the kubelet's first back-off; each one after it doubles, up to five minutes."""
BACKOFF_FORGOTTEN = timedelta(minutes=10)
"""The kubelet starts over with its back-off once a container has run for so long."""
CRASHES = 3
"""Restarts from which on a container that runs at the moment is still taken to be crashing."""
OOM = "OOMKilled"
_BACKOFF = re.compile(r"back-off (?:(\d+)m)?(?:(\d+)s)? ?restarting failed")


def last_end(status: ContainerStatus) -> Terminated | None:
    """How the container ended last, whether it runs again by now or not."""
    return status.state.terminated or status.last_state.terminated


def backoff_seconds(message: str) -> float | None:
    """`back-off 2m40s restarting failed container=…` -> 160."""
    match = _BACKOFF.match(message)
    if match is None or not (match[1] or match[2]):
        return None
    return 60.0 * int(match[1] or 0) + float(match[2] or 0)


def crashing_since(pod: Pod, status: ContainerStatus, events: Iterable[Event]) -> datetime | None:
    """The earliest moment from which on it is known to crash: its last end, less the back-offs that came before the one
    that it is in (each half of the next), or the first of its BackOff events. Never before the pod started."""
    ended = last_end(status)
    known = [ended.finished_at] if ended is not None and ended.finished_at is not None else []
    waiting = status.state.waiting
    backoff = backoff_seconds(waiting.message) if waiting is not None else None
    if known and backoff is not None:
        known.append(known[0] - timedelta(seconds=max(0.0, backoff - FIRST_BACKOFF)))
    for event in events:
        seen = event.seen_at
        if (
            event.reason != "BackOff"
            or event.involved_object.uid != pod.metadata.uid
            or "restarting" not in event.message
        ):
            continue
        recent = known and seen is not None and seen >= known[0] - BACKOFF_FORGOTTEN
        first = event.first_timestamp or event.event_time
        if recent and first is not None:
            known.append(first)
    if not known:
        return None
    started = pod.status.start_time or pod.metadata.creation_timestamp
    return min(known) if started is None else max(started, min(known))


def end_evidence(pod: Pod, status: ContainerStatus) -> tuple[Evidence, ...]:
    """The last end with its reason and exit code, and how often the container was restarted."""
    where = f"Pod/{pod.metadata.namespace}/{pod.metadata.name}"
    found: list[Evidence] = []
    ended = last_end(status)
    if ended is not None:
        state = "state" if status.state.terminated is not None else "lastState"
        value = f"{ended.reason or 'Error'}, exit code {ended.exit_code}"
        said = f": {shown(ended.message)}" if ended.message else ""
        field = f"status.containerStatuses[{status.name}].{state}.terminated"
        found.append(Evidence(object=where, field=field, value=value + said, at=ended.finished_at))
    field = f"status.containerStatuses[{status.name}].restartCount"
    found.append(Evidence(object=where, field=field, value=str(status.restart_count)))
    return tuple(found)


def oom_killed(statuses: Sequence[ContainerStatus], now: datetime, within: timedelta) -> ContainerStatus | None:
    """A container whose last end was an OOM kill, not longer ago than `within`. One that was killed once, and has run
    well since for long enough to be forgiven by the kubelet too, does not count."""
    for status in statuses:
        ended = last_end(status)
        if ended is None or ended.reason != OOM:
            continue
        ago = now - ended.finished_at if ended.finished_at is not None else timedelta()
        once = status.state.running is not None and status.restart_count < 2 and ago > BACKOFF_FORGOTTEN
        if ago <= within and not once:
            return status
    return None


def between_crashes(status: ContainerStatus, now: datetime) -> bool:
    """It runs, but only since it last failed, as it has done several times: the next end is to be expected."""
    running, ended = status.state.running, status.last_state.terminated
    if running is None or ended is None or ended.exit_code == 0 or status.restart_count < CRASHES:
        return False
    return running.started_at is not None and now - running.started_at < BACKOFF_FORGOTTEN
