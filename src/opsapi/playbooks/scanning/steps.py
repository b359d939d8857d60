"""security_scan, step by step: read the reports, judge the workloads, tell what was found. Nothing in the cluster is
written, so a step that was interrupted is simply done again."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from opsapi.operations.errors import StepFailed
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure
from opsapi.operations.work import StepWork
from opsapi.playbooks.scanning.gathering import (
    Gatherer,
    cluster_of,
    namespaces_of,
    running_images,
    superseded,
    workload_behind,
)
from opsapi.playbooks.scanning.images import Coverage
from opsapi.playbooks.scanning.model import Finding, Source, Tally
from opsapi.playbooks.scanning.ports import FindingFilter, FindingStore, LastScan
from opsapi.playbooks.scanning.reporting import Kept, KindReader, ReportsRead, by_category, images_told
from opsapi.playbooks.scanning.reports import (
    GROUP,
    REPORT_KINDS,
    VERSION,
    VULNERABILITY_REPORT,
    Reader,
    ReportKind,
    read,
)
from opsapi.playbooks.scanning.workloads import judge_workloads
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import JsonObject, Objects, WriteRefused

ACTION = "security_scan"
COLLECT, CHECK, SUMMARISE = "collect_reports", "check_workloads", "summarise"
STEPS = (COLLECT, CHECK, SUMMARISE)
TOP = 20
_DEADLINE = timedelta(minutes=15)


class ScanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`stale_report_hours`: older reports are called stale (the operator's own default is to look again after 24).
    `findings_kept` of each source, the worst ones; all are counted."""

    stale_report_hours: float = 72
    findings_kept: int = 10_000


class ScanOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the steps need to know, wherever they run."""

    namespaces: tuple[str, ...] = ()
    """What the workspace was limited to when it was asked for."""
    reason: str | None = None


class ScanSteps:
    def __init__(self, clusters: Clusters, objects: Objects, store: FindingStore, settings: ScanSettings) -> None:
        self._clusters = clusters
        self._objects = objects
        self._store = store
        self._settings = settings

    def procedure(self, replan: Replanner) -> Procedure:
        return Procedure(
            action=ACTION,
            steps=(
                StepProcedure(COLLECT, self.collect, timedelta(seconds=10)),
                StepProcedure(CHECK, self.check, timedelta(seconds=20)),
                StepProcedure(SUMMARISE, self.summarise, timedelta(seconds=1)),
            ),
            deadline=_DEADLINE,
            replan=replan,
        )

    async def collect(self, work: StepWork) -> StepDone:
        cluster = cluster_of(self._clusters, work)
        now = cluster.inventory.now()
        kept, coverage = Kept(self._settings.findings_kept), Coverage()
        reader = Reader(
            work.operation.workspace_id,
            now,
            timedelta(hours=self._settings.stale_report_hours),
            lambda about: workload_behind(cluster, about),
        )
        told = [(kind, await self._read_kind(work, cluster, KindReader(kind, reader, kept, coverage)))
                for kind in REPORT_KINDS]  # fmt: skip
        vulnerabilities = next(one for kind, one in told if kind is VULNERABILITY_REPORT)
        images = images_told(running_images(cluster), coverage, vulnerabilities)
        await self._stage(work, Source.TRIVY, kept.worst())
        result = {
            "scanned_at": _wire(now),
            "namespaces": list(cluster.workspace.namespaces),
            "reports": msgspec.to_builtins([one for _, one in told]),
            "unscanned_images": msgspec.to_builtins(images),
            "by_category": by_category(kept, told),
        }
        return StepDone(_reports_message([one for _, one in told]), result=result)

    async def _read_kind(self, work: StepWork, cluster: Cluster, reader: KindReader) -> ReportsRead:
        reason = await self._unserved(work, cluster, reader.kind)
        if reason is not None:
            return reader.told(reason)
        gatherer = Gatherer(self._objects, work)
        async for held in gatherer.each(reader.kind.resource, namespaces_of(cluster)):
            _add(cluster, reader, held)
        return reader.told(gatherer.unread.get(reader.kind.kind))

    async def _unserved(self, work: StepWork, cluster: Cluster, kind: ReportKind) -> str | None:
        """Why the kind cannot be read at all."""
        if cluster.workspace.namespaces and not kind.resource.namespaced:
            return "the workspace is limited to namespaces, and these reports have none"
        try:
            served = await self._objects.served(work.operation.workspace_id, kind.resource)
        except WriteRefused as refused:
            return f"the credentials may not ask whether {GROUP} is served: {refused.reason}"
        if served:
            return None
        return f"the cluster does not serve {kind.resource} {VERSION}: the Trivy operator is not installed"

    async def check(self, work: StepWork) -> StepDone:
        cluster = cluster_of(self._clusters, work)
        kept = Kept(self._settings.findings_kept)
        gatherer = Gatherer(self._objects, work)
        judged = await judge_workloads(cluster, gatherer, kept)
        await self._stage(work, Source.OPSAPI, kept.worst())
        ours = {category.value: msgspec.to_builtins(counted) for category, counted in kept.counts.items()}
        zero = {category: msgspec.to_builtins(Tally()) for category in ("pod_security", "hygiene")}
        result = {
            "pod_security": msgspec.to_builtins(judged),
            "unread": [{"kind": kind, "reason": why} for kind, why in sorted(gatherer.unread.items())],
            "by_category": (work.operation.result or {}).get("by_category", {}) | zero | ours,
        }
        levels = judged.levels
        message = (
            f"Judged {judged.workloads} workloads: {levels['privileged']} privileged, {levels['baseline']} baseline, "
            f"{levels['restricted']} restricted"
        )
        return StepDone(message, result=result)

    async def summarise(self, work: StepWork) -> StepDone:
        """The list becomes the workspace's last one; the result is small whatever was found."""
        held = work.operation.result or {}
        scan_id = work.operation.id
        counted = [msgspec.convert(one, Tally) for one in held.get("by_category", {}).values() if one is not None]
        total = Tally()
        for one in counted:
            total = total.plus(one)
        top = await self._store.find(scan_id, FindingFilter(limit=TOP))
        listed = await self._store.count(scan_id)
        result: dict[str, Any] = {
            "findings": msgspec.to_builtins(total) | {"total": total.total, "listed": listed},
            "top": [_outline(one) for one in top],
            "truncated": total.total > len(top),
        }
        scan = LastScan(
            id=scan_id,
            at=_moment(held.get("scanned_at")),
            namespaces=tuple(held.get("namespaces", ())),
            report={name: value for name, value in (held | result).items() if name != "top"},
        )
        await self._store.publish(work.operation.workspace_id, scan)
        message = f"Found {total.critical} critical, {total.high} high, {total.medium} medium and {total.low} low"
        return StepDone(message, result=result)

    async def _stage(self, work: StepWork, source: Source, findings: list[Finding]) -> None:
        await self._store.stage(work.operation.workspace_id, work.operation.id, source, findings)


def _add(cluster: Cluster, reader: KindReader, held: JsonObject) -> None:
    try:
        report = read(held)
    except msgspec.ValidationError:
        reader.unreadable += 1
        return
    if superseded(cluster, report.about):
        reader.superseded += 1
        return
    reader.add(report)


def _outline(finding: Finding) -> dict[str, Any]:
    """For the operation's result: what has text of others is in the list alone."""
    shown = {
        "id": finding.id,
        "check": finding.check,
        "category": finding.category.value,
        "severity": finding.severity.value,
        "resource": msgspec.to_builtins(finding.resource),
        "remediation": finding.remediation,
    }
    return shown | ({"score": finding.score} if finding.score is not None else {})


def _reports_message(told: list[ReportsRead]) -> str:
    read_ones = [one for one in told if one.reports is not None]
    if not read_ones:
        return "No reports of the Trivy operator could be read"
    reports = sum(one.reports or 0 for one in read_ones)
    stale = sum(one.stale for one in read_ones)
    missing = len(told) - len(read_ones)
    more = f", {stale} of them stale" if stale else ""
    return f"Read {reports} reports{more}" + (f"; {missing} kinds could not be read" if missing else "")


def _wire(moment: datetime) -> str:
    text: str = msgspec.to_builtins(moment.replace(microsecond=0))
    return text


def _moment(text: object) -> datetime:
    """Raises StepFailed where an earlier step left nothing."""
    if not isinstance(text, str):
        raise StepFailed("INTERNAL_ERROR", "The scan's first step left no result")
    return msgspec.convert(text, datetime)
