"""What operations and changes have done lately, for overviews: answered from memory, read again every few seconds."""

import asyncio
import logging
from collections.abc import Sequence

from opsapi.applications.autoscaling_planning import ACTION as AUTOSCALE
from opsapi.applications.changes_model import Change
from opsapi.applications.changes_ports import ChangeStore
from opsapi.applications.scaling import ACTION
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import Operation, State
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.workspaces.activity import MAX_DETAILS, Activity, Entry, shortened

_KEPT = 500
"""Of each, over all workspaces."""
_PER_WORKSPACE = 50
_log = logging.getLogger(__name__)


class RecentActivity:
    """Implements workspaces' ActivitySource; `run` keeps it fresh until cancelled."""

    def __init__(self, ledger: Ledger, changes: ChangeStore, *, every_seconds: float = 2.0) -> None:
        self._ledger = ledger
        self._changes = changes
        self._every = every_seconds
        self._entries: dict[str, list[Entry]] = {}

    def recent(self, workspace_id: str, limit: int) -> Sequence[Entry]:
        return self._entries.get(workspace_id, [])[:limit]

    async def run(self) -> None:
        while True:
            try:
                await self.refresh()
            except DependencyUnavailable as error:
                _log.warning("recent activity is not fresh: %s", error.message)
            except Exception:
                # A fault of ours must not end the reading: the overview would show old news for ever.
                _log.exception("recent activity is not fresh")
            await asyncio.sleep(self._every)

    async def refresh(self) -> None:
        """Raises DependencyUnavailable; what was known stays."""
        operations = await self._ledger.find(OperationFilter(workspaces=None, limit=_KEPT))
        changes = await self._changes.newest(_KEPT)
        entries: dict[str, list[Entry]] = {}
        for operation in operations:
            entries.setdefault(operation.workspace_id, []).append(operation_entry(operation))
        for change in changes:
            if change.operation_id is None:  # the others are told by their operation
                entries.setdefault(change.workspace_id, []).append(change_entry(change))
        for held in entries.values():
            held.sort(key=lambda entry: entry.activity.timestamp, reverse=True)
            del held[_PER_WORKSPACE:]
        self._entries = entries


_SCALING = (ACTION, AUTOSCALE)
_VERBS = {
    State.PENDING_APPROVAL: "awaits_approval",
    State.QUEUED: "queued",
    State.RUNNING: "started",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.ROLLED_BACK: "rolled_back",
}


def operation_entry(operation: Operation) -> Entry:
    """`scaled` on the deployment for a finished scaling, else the action and what became of it."""
    moment = operation.finished_at or operation.started_at or operation.created_at
    name = str(operation.parameters.get("name", operation.resource_id))
    action, details = f"{operation.action}_{_VERBS[operation.state]}", None
    if operation.action in _SCALING:
        before, after = operation.parameters.get("previous"), operation.parameters.get("replicas")
        details = f"Scaling from {before} to {after} replicas for {operation.requested_by}"
        if operation.state is State.COMPLETED:
            action, details = "scaled", f"Scaled from {before} to {after} replicas by {operation.requested_by}"
    if operation.error is not None:
        details = f"{details or operation.action}: {operation.error.message}"
    return Entry(
        Activity(
            timestamp=moment.replace(microsecond=0),
            type="deployment" if operation.action in _SCALING else "operation",
            resource=name,
            action=action,
            details=shortened(details, MAX_DETAILS) if details else None,
            namespace=str(operation.parameters.get("namespace", "")),
            operation_id=operation.id,
        ),
        untrusted=False,
    )


def change_entry(change: Change) -> Entry:
    who = f" by {change.manager}" if change.manager else ""
    details = f"{change.field}: {_shown(change.before)} -> {_shown(change.after)}{who}"
    return Entry(
        Activity(
            timestamp=(change.changed_at or change.observed_at).replace(microsecond=0),
            type=change.kind.lower(),
            resource=change.name,
            action="changed",
            details=shortened(details, MAX_DETAILS),
            namespace=change.namespace,
        ),
        untrusted=True,
    )


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
