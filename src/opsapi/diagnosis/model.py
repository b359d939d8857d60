"""What is found wrong, on what evidence, and whether a restart can cure it. Pure."""

from datetime import datetime
from enum import StrEnum

import msgspec

from opsapi.kit.text import one_line

_LONGEST = 300


class Cause(StrEnum):
    """Why a pod is not well, in Kubernetes' terms; a pod has the first that fits."""

    STUCK_TERMINATING = "stuck_terminating"
    NODE_NOT_READY = "node_not_ready"
    OOM_KILLED = "oom_killed"
    IMAGE_PULL = "image_pull"
    CONFIG_ERROR = "config_error"
    START_ERROR = "start_error"
    CRASH_LOOP = "crash_loop"
    SCHEDULING_GATED = "scheduling_gated"
    UNSCHEDULABLE = "unschedulable"
    PROBE_FAILING = "probe_failing"
    NOT_READY = "not_ready"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen where: `object` is `Kind/namespace/name`, `field` a path in it, `at` the cluster's time. `value`
    may be text that a workload wrote: on one line, cut, untrusted."""

    object: str
    field: str
    value: str
    at: datetime | None = None


class PodFinding(msgspec.Struct, frozen=True, kw_only=True):
    """`since`: from when on it is known to have been so; None where nothing tells. `restart_cures`, and `why` (or why
    not)."""

    pod: str
    uid: str
    cause: Cause
    since: datetime | None
    container: str = ""
    restart_cures: bool
    why: str
    evidence: tuple[Evidence, ...]

    def held(self, now: datetime, seconds: float) -> bool:
        return self.since is not None and (now - self.since).total_seconds() >= seconds


def shown(text: str) -> str:
    """Text of a workload as evidence shows it."""
    line = one_line(text) or ""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
