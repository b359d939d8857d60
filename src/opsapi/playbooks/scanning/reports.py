"""The Trivy operator's reports, read: their findings, their age, the images that they cover.

Group aquasecurity.github.io/v1alpha1. Matches of exposed secrets are not decoded at all.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from opsapi.playbooks.scanning.images import Image, reported
from opsapi.playbooks.scanning.model import (
    Category,
    Evidence,
    Finding,
    Severity,
    Source,
    Where,
    finding_id,
    shown,
)
from opsapi.workspaces.writing import JsonObject, Resource

GROUP, VERSION = "aquasecurity.github.io", "v1alpha1"
_KIND_LABEL = "trivy-operator.resource.kind"
_NAME_LABEL = "trivy-operator.resource.name"
_CONTAINER_LABEL = "trivy-operator.container.name"
_PACKAGES = 5
_TARGETS = 5
_MESSAGES = 3
_CHECK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/\-]{0,99}")
_UNNAMED = "unnamed"


class _Json(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that are not named here are passed over."""


class Owner(_Json, frozen=True):
    kind: str = ""
    name: str = ""


class Meta(_Json, frozen=True):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[Owner, ...] = ()


class Registry(_Json, frozen=True):
    server: str = ""


class Artifact(_Json, frozen=True):
    repository: str = ""
    tag: str = ""
    digest: str = ""


class Vulnerability(_Json, frozen=True):
    vulnerability_id: str = msgspec.field(default="", name="vulnerabilityID")
    resource: str = ""
    installed_version: str = ""
    fixed_version: str = ""
    severity: str = ""
    title: str = ""
    score: float | None = None


class ExposedSecret(_Json, frozen=True):
    rule_id: str = msgspec.field(default="", name="ruleID")
    severity: str = ""
    title: str = ""
    target: str = ""


class Scope(_Json, frozen=True):
    type: str = ""
    value: str = ""


class Check(_Json, frozen=True):
    check_id: str = msgspec.field(default="", name="checkID")
    severity: str = ""
    title: str = ""
    messages: tuple[str, ...] | None = None
    success: bool = False
    scope: Scope | None = None


class Body(_Json, frozen=True):
    """`checks` and the rest are null where there are none; RBAC and infrastructure reports have no time."""

    update_timestamp: datetime | None = None
    registry: Registry = Registry()
    artifact: Artifact = Artifact()
    vulnerabilities: tuple[Vulnerability, ...] | None = None
    secrets: tuple[ExposedSecret, ...] | None = None
    checks: tuple[Check, ...] | None = None


class Report(_Json, frozen=True):
    metadata: Meta
    report: Body

    @property
    def image(self) -> Image | None:
        artifact = self.report.artifact
        if not artifact.repository:
            return None
        return reported(self.report.registry.server, artifact.repository, artifact.tag, artifact.digest)

    @property
    def about(self) -> Where:
        """The object that was judged, by the operator's labels (long names stand in annotations, or with the owner), in
        the report's own namespace: whoever may write a report there says nothing of another."""
        meta = self.metadata
        owner = next(iter(meta.owner_references), Owner())
        return Where(
            kind=meta.labels.get(_KIND_LABEL) or owner.kind or "unknown",
            namespace=meta.namespace,
            name=meta.labels.get(_NAME_LABEL) or meta.annotations.get(_NAME_LABEL) or owner.name or meta.name,
            container=meta.labels.get(_CONTAINER_LABEL) or None,
        )


@dataclass(frozen=True, slots=True)
class ReportKind:
    resource: Resource
    category: Category

    @property
    def kind(self) -> str:
        return self.resource.kind


def _kind(kind: str, category: Category, *, namespaced: bool = True) -> ReportKind:
    return ReportKind(Resource(GROUP, VERSION, f"{kind.lower()}s", kind, namespaced), category)


VULNERABILITY_REPORT = _kind("VulnerabilityReport", Category.VULNERABILITY)
REPORT_KINDS = (
    VULNERABILITY_REPORT,
    _kind("ExposedSecretReport", Category.EXPOSED_SECRET),
    _kind("ConfigAuditReport", Category.CONFIGURATION),
    _kind("ClusterConfigAuditReport", Category.CONFIGURATION, namespaced=False),
    _kind("RbacAssessmentReport", Category.RBAC),
    _kind("ClusterRbacAssessmentReport", Category.RBAC, namespaced=False),
    _kind("InfraAssessmentReport", Category.INFRASTRUCTURE),
)

_SEVERITIES = {
    "CRITICAL": Severity.CRITICAL,
    "HIGH": Severity.HIGH,
    "MEDIUM": Severity.MEDIUM,
    "LOW": Severity.LOW,
}


def read(held: JsonObject) -> Report:
    """Raises msgspec.ValidationError for what is no report."""
    return msgspec.convert(held, Report)


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes findings of reports. `owner` leads from what was judged to the workload that it belongs to."""

    workspace_id: str
    now: datetime
    stale_after: timedelta
    owner: Callable[[Where], Where]

    def stale(self, report: Report) -> bool:
        at = report.report.update_timestamp
        return at is not None and self.now - at > self.stale_after

    def findings(self, kind: ReportKind, report: Report) -> list[Finding]:
        about = self.owner(report.about)
        body = report.report
        match kind.category:
            case Category.VULNERABILITY:
                made = self._vulnerabilities(report, about, body.vulnerabilities or ())
            case Category.EXPOSED_SECRET:
                made = self._secrets(report, about, body.secrets or ())
            case category:
                made = self._checks(report, about, category, body.checks or ())
        return list(made)

    def _vulnerabilities(self, report: Report, about: Where, held: Iterable[Vulnerability]) -> Iterator[Finding]:
        """One a vulnerability, with the packages that have it."""
        by_id: dict[str, list[Vulnerability]] = {}
        for one in held:
            by_id.setdefault(check_name(one.vulnerability_id), []).append(one)
        for check, group in by_id.items():
            worst = min(group, key=lambda one: _order(one.severity))
            fixed = [one for one in group if one.fixed_version]
            evidence = [_package(one) for one in group[:_PACKAGES]]
            if len(group) > _PACKAGES:
                evidence.append(Evidence("packages", f"{len(group)} in all"))
            remedy = (
                "No fixed version is published: weigh the risk, or use an image without the package."
                if not fixed
                else "Rebuild the image with the fixed version and roll it out."
                if len(fixed) == len(group)
                else "Rebuild the image with the fixed versions and roll it out; some packages have none yet."
            )
            scores = [one.score for one in group if one.score is not None]
            yield self._finding(
                report, about, Category.VULNERABILITY, check, worst.severity, worst.title, evidence, remedy,
                max(scores, default=None),
            )  # fmt: skip

    def _secrets(self, report: Report, about: Where, held: Iterable[ExposedSecret]) -> Iterator[Finding]:
        by_rule: dict[str, list[ExposedSecret]] = {}
        for one in held:
            by_rule.setdefault(check_name(one.rule_id), []).append(one)
        remedy = "Revoke the secret, take it out of the image and its layers, and mount it from a Secret."
        for check, group in by_rule.items():
            worst = min(group, key=lambda one: _order(one.severity))
            targets = list(dict.fromkeys(one.target for one in group))
            evidence = [Evidence("target", shown(target)) for target in targets[:_TARGETS]]
            if len(group) > 1:
                evidence.append(Evidence("matches", str(len(group))))
            yield self._finding(
                report, about, Category.EXPOSED_SECRET, check, worst.severity, worst.title, evidence, remedy
            )

    def _checks(self, report: Report, about: Where, category: Category, held: Iterable[Check]) -> Iterator[Finding]:
        remedy = "Correct what the check names in the object's manifest and let the operator look again."
        by_place: dict[tuple[str, str], list[Check]] = {}
        for one in held:
            if not one.success:
                container = one.scope.value if one.scope is not None and one.scope.type == "Container" else ""
                by_place.setdefault((check_name(one.check_id), container), []).append(one)
        for (check, container), group in by_place.items():
            worst = min(group, key=lambda one: _order(one.severity))
            place = Where(kind=about.kind, namespace=about.namespace, name=about.name, container=_label(container))
            messages = [message for one in group for message in one.messages or () if message]
            evidence = [Evidence("message", shown(message)) for message in messages[:_MESSAGES]]
            yield self._finding(report, place, category, check, worst.severity, worst.title, evidence, remedy)

    def _finding(
        self,
        report: Report,
        about: Where,
        category: Category,
        check: str,
        severity: str,
        title: str,
        evidence: list[Evidence],
        remediation: str,
        score: float | None = None,
    ) -> Finding:
        image = report.image
        if image is not None:
            version = f"@{image.digest}" if image.digest else f":{image.tag}"
            evidence.append(Evidence("image", shown(f"{image.registry}/{image.repository}{version}")))
        judged = _SEVERITIES.get(severity.upper())
        if judged is None:
            evidence.append(Evidence("severity", shown(severity) or "none"))
        return Finding(
            id=finding_id(self.workspace_id, category, check, about),
            check=check,
            category=category,
            severity=judged or Severity.LOW,
            source=Source.TRIVY,
            resource=about,
            title=shown(title) or check,
            evidence=tuple(evidence),
            remediation=remediation,
            score=score,
            reported_at=report.report.update_timestamp,
            stale=self.stale(report),
        )


def check_name(text: str) -> str:
    """Names of checks stand among our own words, so only what looks like one is repeated."""
    return text if _CHECK.fullmatch(text) else _UNNAMED


def _label(text: str) -> str | None:
    return (text if _CHECK.fullmatch(text) else _UNNAMED) if text else None


def _order(severity: str) -> int:
    return list(_SEVERITIES).index(severity.upper()) if severity.upper() in _SEVERITIES else len(_SEVERITIES)


def _package(one: Vulnerability) -> Evidence:
    fixed = f", fixed in {one.fixed_version}" if one.fixed_version else ", no fixed version"
    return Evidence("package", shown(f"{one.resource} {one.installed_version}{fixed}"))
