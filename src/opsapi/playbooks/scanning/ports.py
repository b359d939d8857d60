"""What scanning needs: a place for findings, kept for the last scan of each workspace."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from opsapi.playbooks.scanning.model import Category, Finding, Severity, Source


class LastScan(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is that of its operation; `at` when it began to look, in the cluster's time; `namespaces` what the
    workspace was limited to then, empty for a whole cluster; `report` what the operation's result holds."""

    id: str
    at: datetime
    namespaces: tuple[str, ...]
    report: dict[str, Any]


class FindingFilter(msgspec.Struct, frozen=True, kw_only=True):
    """All that are given must hold. `after` continues after (weight, id) of a page's last finding."""

    severities: frozenset[Severity] | None = None
    categories: frozenset[Category] | None = None
    namespace: str | None = None
    after: tuple[int, str] | None = None
    limit: int = 50


class FindingStore(Protocol):
    """Every method is one transaction. All raise DependencyUnavailable when the database is away."""

    async def stage(self, workspace_id: str, scan_id: str, source: Source, findings: Sequence[Finding]) -> None:
        """Takes the place of what the scan held of the source, so that a step may be repeated. Once the scan is
        published nothing changes any more."""
        ...

    async def publish(self, workspace_id: str, scan: LastScan) -> None:
        """Makes it the workspace's last scan, and forgets the findings of the one before and of scans that never
        ended. A scan that began to look earlier than the published one stays unpublished, and is forgotten."""
        ...

    async def last(self, workspace_id: str) -> LastScan | None: ...

    async def find(self, scan_id: str, wanted: FindingFilter) -> list[Finding]:
        """The worst first, by weight and id."""
        ...

    async def count(self, scan_id: str) -> int: ...
