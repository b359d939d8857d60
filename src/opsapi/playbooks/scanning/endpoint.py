"""GET /workspaces/{id}/security/findings: the last scan's list."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    WORKSPACE_OPERATIONS,
    Example,
    Idempotency,
    NoBody,
    Params,
    Partial,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.playbooks.scanning.errors import NoScan
from opsapi.playbooks.scanning.examples import FINDINGS
from opsapi.playbooks.scanning.model import Category, Finding, Severity, Source, Tally
from opsapi.playbooks.scanning.ports import FindingFilter, FindingStore, LastScan
from opsapi.playbooks.scanning.reporting import ReportsRead, UnscannedImages
from opsapi.playbooks.scanning.workloads import Judged
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Clusters


class FindingsParams(Params, frozen=True, kw_only=True):
    """Filters; all that are given must hold. `severity` and `category` may list several, comma-separated."""

    workspace_id: str
    severity: list[Severity] | None = None
    category: list[Category] | None = None
    namespace: Annotated[str, Meta(max_length=253)] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: str | None = None


class Unread(msgspec.Struct, frozen=True):
    kind: str
    reason: str


class Totals(Tally, frozen=True, kw_only=True):
    """`total` were found, `listed` of them, the worst of each source, are in the list."""

    total: int
    listed: int


class ScanView(msgspec.Struct, frozen=True, kw_only=True):
    """The scan behind the list. `by_category` null: nothing is known, which is not the same as nothing found."""

    operation_id: str
    scanned_at: datetime
    findings: Totals
    by_category: dict[str, Tally | None]
    reports: list[ReportsRead]
    unscanned_images: UnscannedImages
    pod_security: Judged
    unread: list[Unread]


class SecurityFindings(msgspec.Struct, frozen=True, kw_only=True):
    workspace_id: str
    scan: ScanView
    findings: list[Finding]


class Position(msgspec.Struct, frozen=True):
    weight: int
    id: str


class FindingEndpoints:
    def __init__(self, clusters: Clusters, store: FindingStore) -> None:
        self._clusters = clusters
        self._store = store

    @endpoint(
        "GET",
        "/internal/v1/workspaces/{workspace_id}/security/findings",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Read the last security scan",
        tag="Workspaces",
        answer=SecurityFindings,
        params=FindingsParams,
        errors=(ValidationFailed, WorkspaceNotFound, NoScan, DependencyUnavailable),
        examples=(Example("findings", response=FINDINGS),),
        fields=True,
    )
    async def list_security_findings(
        self, _call: Call, params: FindingsParams, _body: NoBody
    ) -> Reply[SecurityFindings]:
        """What the last `security_scan` that has ended found, the worst first: vulnerabilities and audits from the
        Trivy operator's reports with their age, and our own checks against the Pod Security Standards. A cursor goes
        on in the scan that it comes from; once there is a newer one, begin again without it."""
        cluster = self._clusters.find(params.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(params.workspace_id)
        scan = await self._store.last(params.workspace_id)
        if scan is None or not _within(scan.namespaces, cluster.workspace.namespaces):
            raise NoScan(params.workspace_id)
        purpose = f"security {scan.id} {_sorted(params.severity)} {_sorted(params.category)} {params.namespace}"
        after = None
        if params.cursor is not None:
            position = decode_cursor(purpose, params.cursor, Position)
            after = (position.weight, position.id)
        wanted = FindingFilter(
            severities=frozenset(params.severity) if params.severity else None,
            categories=frozenset(params.category) if params.category else None,
            namespace=params.namespace,
            after=after,
            limit=params.limit + 1,
        )
        found = await self._store.find(scan.id, wanted)
        page, more = found[: params.limit], len(found) > params.limit
        view = scan_view(scan)
        return Reply(
            SecurityFindings(workspace_id=params.workspace_id, scan=view, findings=page),
            observed_at=scan.at,
            partial=unknown(view),
            truncated=more,
            untrusted=_untrusted(view, page),
            next_cursor=encode_cursor(purpose, Position(page[-1].weight, page[-1].id)) if more else None,
        )


def scan_view(scan: LastScan) -> ScanView:
    held: dict[str, Any] = scan.report | {"operation_id": scan.id, "scanned_at": scan.at.replace(microsecond=0)}
    return msgspec.convert(held, ScanView)


def unknown(view: ScanView) -> list[Partial]:
    """Why what a reader looks for is null."""
    reasons = {one.kind: one.reason or "there are no such reports" for one in view.reports if not one.reports}
    kinds = {
        "vulnerability": "VulnerabilityReport",
        "exposed_secret": "ExposedSecretReport",
        "configuration": "ConfigAuditReport",
        "rbac": "RbacAssessmentReport",
        "infrastructure": "InfraAssessmentReport",
    }
    found = [
        Partial(f"scan.by_category.{category}", reasons.get(kinds.get(category, ""), "not observed"))
        for category, counted in view.by_category.items()
        if counted is None
    ]
    if view.unscanned_images.count is None:
        reason = view.unscanned_images.reason or "not observed"
        found += [Partial(f"scan.unscanned_images.{field}", reason) for field in ("count", "images")]
    return found


def _within(scanned: tuple[str, ...], shown: tuple[str, ...]) -> bool:
    """Whether the workspace may still see all that was scanned: it may have been limited since."""
    return not shown or (bool(scanned) and set(scanned) <= set(shown))


def _untrusted(view: ScanView, page: list[Finding]) -> list[str]:
    pointers = ["/scan/unscanned_images/images"] if view.unscanned_images.images else []
    for place, finding in enumerate(page):
        if finding.source is Source.TRIVY:
            pointers.append(f"/findings/{place}/title")
        if finding.evidence:
            pointers.append(f"/findings/{place}/evidence")
    return pointers


def _sorted(given: list[Any] | None) -> list[str]:
    return sorted(one.value for one in given or ())
