"""What is found to be wrong in a workspace, and what each finding costs its score, as docs/figures.md publishes it."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from opsapi.workspaces.pods import Trouble


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


SEVERITY_RANK = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


class FindingType(StrEnum):
    NODE_NOT_READY = "node_not_ready"
    NODE_NETWORK_UNAVAILABLE = "node_network_unavailable"
    NODE_PRESSURE = "node_pressure"
    CRASH_LOOP = "crash_loop"
    IMAGE_PULL_FAILED = "image_pull_failed"
    CONFIG_ERROR = "config_error"
    START_ERROR = "start_error"
    NO_READY_REPLICAS = "no_ready_replicas"
    CLAIM_LOST = "claim_lost"
    UNSCHEDULABLE = "unschedulable"
    OOM_KILLED = "oom_killed"
    ROLLOUT_STALLED = "rollout_stalled"
    REPLICAS_UNAVAILABLE = "replicas_unavailable"
    QUOTA_FULL = "quota_full"
    HIGH_MEMORY_USAGE = "high_memory_usage"
    HIGH_CPU_USAGE = "high_cpu_usage"
    JOB_FAILED = "job_failed"
    AUTOSCALER_WITHOUT_METRICS = "autoscaler_without_metrics"
    EVICTED = "evicted"
    POD_FAILED = "pod_failed"
    QUOTA_NEARLY_FULL = "quota_nearly_full"
    SCHEDULING_GATED = "scheduling_gated"


class Deduction(msgspec.Struct, frozen=True):
    """`points` a finding, at most `cap` for the type; `performance`: it counts for the performance score too."""

    severity: Severity
    points: int
    cap: int
    performance: bool = False


DEDUCTIONS: Mapping[FindingType, Deduction] = {
    FindingType.NODE_NOT_READY: Deduction(Severity.CRITICAL, 15, 45),
    FindingType.NODE_NETWORK_UNAVAILABLE: Deduction(Severity.CRITICAL, 15, 45),
    FindingType.NODE_PRESSURE: Deduction(Severity.WARNING, 5, 15, performance=True),
    FindingType.CRASH_LOOP: Deduction(Severity.CRITICAL, 8, 40),
    FindingType.IMAGE_PULL_FAILED: Deduction(Severity.CRITICAL, 8, 40),
    FindingType.CONFIG_ERROR: Deduction(Severity.CRITICAL, 8, 40),
    FindingType.START_ERROR: Deduction(Severity.CRITICAL, 8, 40),
    FindingType.NO_READY_REPLICAS: Deduction(Severity.CRITICAL, 8, 40),
    FindingType.CLAIM_LOST: Deduction(Severity.CRITICAL, 8, 24),
    FindingType.UNSCHEDULABLE: Deduction(Severity.WARNING, 5, 20),
    FindingType.OOM_KILLED: Deduction(Severity.WARNING, 5, 20, performance=True),
    FindingType.ROLLOUT_STALLED: Deduction(Severity.WARNING, 5, 20),
    FindingType.REPLICAS_UNAVAILABLE: Deduction(Severity.WARNING, 4, 20),
    FindingType.QUOTA_FULL: Deduction(Severity.WARNING, 5, 15),
    FindingType.HIGH_MEMORY_USAGE: Deduction(Severity.WARNING, 3, 15, performance=True),
    FindingType.HIGH_CPU_USAGE: Deduction(Severity.WARNING, 3, 15, performance=True),
    FindingType.JOB_FAILED: Deduction(Severity.WARNING, 3, 15),
    FindingType.AUTOSCALER_WITHOUT_METRICS: Deduction(Severity.WARNING, 3, 12),
    FindingType.EVICTED: Deduction(Severity.WARNING, 2, 10),
    FindingType.POD_FAILED: Deduction(Severity.WARNING, 2, 10),
    FindingType.QUOTA_NEARLY_FULL: Deduction(Severity.WARNING, 2, 10),
    FindingType.SCHEDULING_GATED: Deduction(Severity.INFO, 0, 0),
}

TROUBLE_FINDINGS: Mapping[Trouble, FindingType] = {trouble: FindingType(trouble.value) for trouble in Trouble}
_TYPE_RANK = {kind: rank for rank, kind in enumerate(FindingType)}


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One thing wrong with one component. `message` holds Kubernetes' own words and numbers, no text that a workload
    wrote; `weight` how many pods it concerns; `application` the uid of the application hurt, or ""."""

    type: FindingType
    kind: str
    namespace: str
    name: str
    message: str
    weight: int = 1
    application: str = ""

    @property
    def severity(self) -> Severity:
        return DEDUCTIONS[self.type].severity

    @property
    def worst_first(self) -> tuple[int, int, int, str, str]:
        return SEVERITY_RANK[self.severity], _TYPE_RANK[self.type], -self.weight, self.namespace, self.name


def score(counts: Mapping[FindingType, int], *, performance: bool = False) -> int:
    """100 less each type's points times its findings, capped by type, never below 0."""
    lost = 0
    for kind, count in counts.items():
        deduction = DEDUCTIONS[kind]
        if not performance or deduction.performance:
            lost += min(deduction.points * count, deduction.cap)
    return max(0, 100 - lost)


def deductions_table() -> Iterable[str]:
    """The rows of docs/figures.md's table, so that the page cannot drift from the code."""
    for kind, deduction in DEDUCTIONS.items():
        performance = "yes" if deduction.performance else ""
        yield f"| `{kind}` | {deduction.severity} | {deduction.points} | {deduction.cap} | {performance} |"
