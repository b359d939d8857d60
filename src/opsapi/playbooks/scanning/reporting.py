"""What the reports of a cluster come to: findings, the age of each kind, the images that none covers. Steps of a scan
feed it page by page."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from opsapi.playbooks.scanning.images import Coverage, unscanned
from opsapi.playbooks.scanning.model import Category, Finding, Tally, tally, worst_first
from opsapi.playbooks.scanning.reports import VULNERABILITY_REPORT, Reader, Report, ReportKind

NAMED_IMAGES = 20


class ReportsRead(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of report. `reports` null: it could not be read, and `reason` says why; then nothing is known, which is
    not the same as nothing found. `undated` reports do not say their time; `superseded` ones are about ReplicaSets
    that were replaced, and `unreadable` ones are no reports: neither counts."""

    kind: str
    reports: int | None
    reason: str | None = None
    oldest: datetime | None = None
    newest: datetime | None = None
    oldest_age_hours: float | None = None
    stale: int = 0
    undated: int = 0
    superseded: int = 0
    unreadable: int = 0


class UnscannedImages(msgspec.Struct, frozen=True, kw_only=True):
    """Images that run and that no vulnerability report covers. `count` null: reports could not be read at all."""

    running: int
    count: int | None
    images: list[str] | None
    truncated: bool
    reason: str | None = None


class Kept:
    """The worst findings, at most `limit` of them, and the count of all. One a finding id."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, Finding] = {}
        self._seen: set[str] = set()
        self.counts: dict[Category, Tally] = {}

    def add(self, findings: list[Finding]) -> None:
        fresh = {one.id: one for one in findings if one.id not in self._seen}
        self._seen |= fresh.keys()
        self._held |= fresh
        for category in {one.category for one in fresh.values()}:
            counted = tally(one for one in fresh.values() if one.category is category)
            self.counts[category] = self.counts.get(category, Tally()).plus(counted)
        if len(self._held) > 2 * self._limit:
            self._held = {one.id: one for one in self.worst()}

    def worst(self) -> list[Finding]:
        return worst_first(self._held.values())[: self._limit]


@dataclass(slots=True)
class KindReader:
    """One kind's reports, added page by page."""

    kind: ReportKind
    reader: Reader
    kept: Kept
    coverage: Coverage
    reports: int = 0
    stale: int = 0
    undated: int = 0
    superseded: int = 0
    unreadable: int = 0
    _times: list[datetime] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.reports += 1
        at = report.report.update_timestamp
        if at is None:
            self.undated += 1
        else:
            self._times = [min([*self._times, at]), max([*self._times, at])]
        self.stale += self.reader.stale(report)
        if self.kind is VULNERABILITY_REPORT and report.image is not None:
            self.coverage.add(report.image)
        self.kept.add(self.reader.findings(self.kind, report))

    def told(self, reason: str | None) -> ReportsRead:
        oldest, newest = self._times if self._times else (None, None)
        age = round((self.reader.now - oldest).total_seconds() / 3600, 1) if oldest is not None else None
        return ReportsRead(
            kind=self.kind.kind,
            reports=self.reports if reason is None or self.reports else None,
            reason=reason,
            oldest=oldest,
            newest=newest,
            oldest_age_hours=age,
            stale=self.stale,
            undated=self.undated,
            superseded=self.superseded,
            unreadable=self.unreadable,
        )


def images_told(running: Mapping[str, Set[str]], coverage: Coverage, vulnerabilities: ReportsRead) -> UnscannedImages:
    if vulnerabilities.reports is None:
        return UnscannedImages(
            running=len(running), count=None, images=None, truncated=False, reason=vulnerabilities.reason
        )
    missing = unscanned(running, coverage)
    return UnscannedImages(
        running=len(running),
        count=len(missing),
        images=missing[:NAMED_IMAGES],
        truncated=len(missing) > NAMED_IMAGES,
        reason=vulnerabilities.reason,
    )


def by_category(kept: Kept, read: list[tuple[ReportKind, ReportsRead]]) -> dict[str, Any]:
    """Null for what nothing is known of: no report of the category could be read, or there is none."""
    known = {kind.category for kind, told in read if told.reports}
    return {
        category.value: msgspec.to_builtins(kept.counts.get(category, Tally())) if category in known else None
        for category in dict.fromkeys(kind.category for kind, _ in read)
    }
