"""Stopping, deciding and undoing operations."""

from typing import Annotated

from msgspec import Meta

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import WORKSPACE_OPERATIONS, Body, Idempotency, LimitClass, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, InvalidState, PolicyDenied, ResourceNotFound, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.deciding import Decider
from opsapi.operations.desk import POLL_MS, PlanHash
from opsapi.operations.endpoints import OperationPath, visible_workspaces
from opsapi.operations.errors import ApprovalRefused, OperationInProgress, OperationNotFound, StalePlan
from opsapi.operations.model import Operation
from opsapi.operations.ports import Ledger
from opsapi.operations.view import OperationView, unobserved, untrusted, view

DECISIONS = LimitClass(WORKSPACE_OPERATIONS.name, WORKSPACE_OPERATIONS.per_minute)
"""As workspace operations, counted per account: the workspace is the operation's, which the path does not name."""
_OPERATION = "/internal/v1/operations/{operation_id}"
_TAG = "Operations"


class ReasonBody(Body, frozen=True, kw_only=True):
    """`reason` is kept in the audit."""

    reason: Annotated[str, Meta(max_length=1000)] | None = None


class ApproveBody(Body, frozen=True, kw_only=True):
    """`plan_hash` is the hash of the plan that was looked at, as the operation shows it: nobody approves unseen."""

    plan_hash: PlanHash
    reason: Annotated[str, Meta(max_length=1000)] | None = None


class OperationControlEndpoints:
    def __init__(self, ledger: Ledger, decider: Decider, clock: Clock) -> None:
        self._ledger = ledger
        self._decider = decider
        self._clock = clock

    @endpoint(
        "POST",
        _OPERATION + "/cancel",
        permission=None,
        scope=Scope.SYSTEM,
        limit=DECISIONS,
        idempotency=Idempotency.KEYED,
        summary="Cancel an operation",
        tag=_TAG,
        answer=OperationView,
        errors=(
            ValidationFailed,
            InsufficientInternalPermissions,
            OperationNotFound,
            InvalidState,
            DependencyUnavailable,
        ),
    )
    async def cancel_operation(self, call: Call, params: OperationPath, body: ReasonBody) -> Reply[OperationView]:
        """What has not begun ends at once; what runs stops before its next effect, and keeps its locks until it really
        has. Effects that it had stay: `rollback` takes them back. Its own requester may, and whoever holds the
        permission that it was begun with."""
        operation = await self._operation(call, params.operation_id, body.reason)
        if operation.requested_by != call.caller.account_id:
            _require(call, operation)
        return self._answer(await self._ledger.cancel(operation.id, call))

    @endpoint(
        "POST",
        _OPERATION + "/approve",
        permission=Permission.APPROVALS_WRITE,
        scope=Scope.SYSTEM,
        limit=DECISIONS,
        idempotency=Idempotency.KEYED,
        summary="Approve what waits for a decision",
        tag=_TAG,
        answer=OperationView,
        errors=(
            ValidationFailed,
            ApprovalRefused,
            PolicyDenied,
            OperationNotFound,
            ResourceNotFound,
            InvalidState,
            StalePlan,
            OperationInProgress,
            DependencyUnavailable,
        ),
    )
    async def approve_operation(self, call: Call, params: OperationPath, body: ApproveBody) -> Reply[OperationView]:
        """A person's yes to exactly the plan with `plan_hash`. It is planned again first: where something else would be
        done by now, the operation fails with the fresh plan attached and the answer is `STALE_PLAN`. Not for the
        requester, for whom it was requested, nor for who created the requesting account."""
        operation = await self._decidable(call, params.operation_id, body.reason)
        return self._answer(await self._decider.approve(operation, call, body.plan_hash))

    @endpoint(
        "POST",
        _OPERATION + "/reject",
        permission=Permission.APPROVALS_WRITE,
        scope=Scope.SYSTEM,
        limit=DECISIONS,
        idempotency=Idempotency.KEYED,
        summary="Reject what waits for a decision",
        tag=_TAG,
        answer=OperationView,
        errors=(ValidationFailed, ApprovalRefused, OperationNotFound, InvalidState, DependencyUnavailable),
    )
    async def reject_operation(self, call: Call, params: OperationPath, body: ReasonBody) -> Reply[OperationView]:
        """A person's no; the operation ends as cancelled."""
        operation = await self._decidable(call, params.operation_id, body.reason)
        return self._answer(await self._decider.reject(operation, call, one_line(body.reason)))

    @endpoint(
        "POST",
        _OPERATION + "/rollback",
        permission=None,
        scope=Scope.SYSTEM,
        limit=DECISIONS,
        idempotency=Idempotency.KEYED,
        summary="Take back what an operation did",
        tag=_TAG,
        answer=OperationView,
        success=(202,),
        errors=(
            ValidationFailed,
            InsufficientInternalPermissions,
            PolicyDenied,
            OperationNotFound,
            InvalidState,
            OperationInProgress,
            DependencyUnavailable,
        ),
    )
    async def rollback_operation(self, call: Call, params: OperationPath, body: ReasonBody) -> Reply[OperationView]:
        """Undoes an ended operation's effects, the last first, only where they are still as it wrote them; what cannot
        be undone is named in `result.undo_skipped`. Cooldowns and budgets do not hold it up; pauses and modes do."""
        operation = await self._operation(call, params.operation_id, body.reason)
        _require(call, operation)
        reopened = await self._decider.rollback(operation, call)
        reply = self._answer(reopened)
        reply.status, reply.operation_id, reply.poll_after_ms = 202, reopened.id, POLL_MS
        return reply

    async def _operation(self, call: Call, operation_id: str, reason: str | None) -> Operation:
        """As far as the caller may see it."""
        operation = await self._ledger.get(operation_id) if len(operation_id) <= 80 else None
        workspaces = visible_workspaces(call.caller.grants)
        if operation is None or (workspaces is not None and operation.workspace_id not in workspaces):
            raise OperationNotFound(operation_id)
        call.audit.workspace_id, call.audit.operation_id = operation.workspace_id, operation.id
        call.audit.reason = one_line(reason)
        return operation

    async def _decidable(self, call: Call, operation_id: str, reason: str | None) -> Operation:
        operation = await self._operation(call, operation_id, reason)
        if not call.caller.grants.allows(Permission.APPROVALS_WRITE, operation.workspace_id):
            raise InsufficientInternalPermissions(Permission.APPROVALS_WRITE, call.caller.grants)
        return operation

    def _answer(self, operation: Operation) -> Reply[OperationView]:
        now = self._clock.now()
        return Reply(view(operation, now), partial=unobserved(operation, now), untrusted=untrusted(operation))


def _require(call: Call, operation: Operation) -> None:
    permission = Permission(operation.permission or Permission.WORKSPACE_ADMIN)
    if not call.caller.grants.allows(permission, operation.workspace_id):
        raise InsufficientInternalPermissions(permission, call.caller.grants)
