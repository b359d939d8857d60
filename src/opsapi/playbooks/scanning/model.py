"""Findings of a security scan, and what a whole scan comes to. Pure."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from opsapi.kit.ids import stable_id
from opsapi.kit.text import one_line

LONGEST_TEXT = 200


class Severity(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


SEVERITIES = tuple(Severity)
_RANK = {severity: rank for rank, severity in enumerate(SEVERITIES)}


class Category(StrEnum):
    VULNERABILITY = "vulnerability"
    EXPOSED_SECRET = "exposed_secret"  # noqa: S105  a category
    """A secret that a scanner found in an image."""
    CONFIGURATION = "configuration"
    RBAC = "rbac"
    INFRASTRUCTURE = "infrastructure"
    POD_SECURITY = "pod_security"
    """The Pod Security Standards, judged by us."""
    HYGIENE = "hygiene"
    """Our further checks."""


class Source(StrEnum):
    TRIVY = "trivy"
    OPSAPI = "opsapi"


class Level(StrEnum):
    """Of the Pod Security Standards, the laxest first: the strictest that a workload satisfies."""

    PRIVILEGED = "privileged"
    BASELINE = "baseline"
    RESTRICTED = "restricted"


class Evidence(msgspec.Struct, frozen=True):
    """What was seen: `field` is a JSONPath in the resource, or a field of the report; `value` null is "not set".
    Values are text of workloads and reports, on one line and cut at 200 characters; a secret's value is never one."""

    field: str
    value: str | None


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """`namespace` "" for what has none; `container` null where the finding is about the whole object."""

    kind: str
    namespace: str
    name: str
    container: str | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`check` names the rule: a control of the Pod Security Standards, a check of ours, or what the report calls it.
    `level` is the level that the workload does not reach because of it. `score` is a CVSS base score.
    `reported_at` is the age of the report behind it, null for our own checks and where the report does not say."""

    id: str
    check: str
    category: Category
    severity: Severity
    source: Source
    resource: Where
    title: str
    evidence: tuple[Evidence, ...]
    remediation: str
    level: Level | None = None
    score: float | None = None
    reported_at: datetime | None = None
    stale: bool = False

    @property
    def weight(self) -> int:
        """Orders findings, the worst being the least: by severity, then what is certain (no score), then by score."""
        score = 10.0 if self.score is None else min(max(self.score, 0.0), 10.0)
        return _RANK[self.severity] * 10_000 + round((10.0 - score) * 100)


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Findings by severity; all of them, also those that are not kept."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0

    @property
    def total(self) -> int:
        return self.critical + self.high + self.medium + self.low

    def plus(self, other: "Tally") -> "Tally":
        mine, others = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return Tally(**{name: mine[name] + others[name] for name in mine})


def finding_id(workspace_id: str, category: Category, check: str, where: Where) -> str:
    """The same finding has the same id in every scan. The category is part of it: a report cannot take the place of
    a finding of ours by calling itself alike."""
    return stable_id(
        "sec", workspace_id, f"{category}/{check}", where.kind, where.namespace, where.name, where.container or ""
    )


def shown(value: object) -> str | None:
    """A value of a workload or report as evidence."""
    if value is None:
        return None
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return (one_line(text) or "")[:LONGEST_TEXT]


def tally(findings: Iterable[Finding]) -> Tally:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity.value] = counts.get(finding.severity.value, 0) + 1
    return Tally(**counts)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (finding.weight, finding.id))
