"""Operations as the API shows them: the specification's fields, and what an operator asks next."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from opsapi.kit.duration import format_seconds
from opsapi.kit.endpoint import Partial
from opsapi.operations.estimates import remaining_completion
from opsapi.operations.model import Operation, Step, StepState


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """`duration` once it has ended, `estimated_duration` before; `attempts` and `undo` where there is more to tell."""

    step: str
    status: str
    duration: str | UnsetType = UNSET
    estimated_duration: str | UnsetType = UNSET
    result: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    undo: str | UnsetType = UNSET


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: pending_approval, queued, running, completed, failed, cancelled or rolled_back. `outcome`: changed,
    nothing_to_do, proposed or partial. `estimated_completion` of an ended operation is what was last promised.
    What may be left out is what the specification does not know of; we always send it."""

    operation_id: str
    operation: str
    status: str
    outcome: str | UnsetType | None = UNSET
    workspace_id: str | UnsetType = UNSET
    application_id: str | UnsetType | None = UNSET
    started_at: datetime | None
    finished_at: datetime | UnsetType | None = UNSET
    created_at: datetime | UnsetType = UNSET
    estimated_completion: datetime | None
    steps: list[StepView]
    requested_by: str | UnsetType = UNSET
    requested_by_kind: str | UnsetType = UNSET
    on_behalf_of: str | UnsetType | None = UNSET
    agent_run: str | UnsetType | None = UNSET
    approved_by: str | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    plan_hash: str | UnsetType | None = UNSET
    result: dict[str, Any] | UnsetType | None = UNSET
    error: dict[str, Any] | UnsetType | None = UNSET


class OperationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a list: what fits on a line."""

    operation_id: str
    operation: str
    status: str
    outcome: str | None
    workspace_id: str
    application_id: str | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_completion: datetime | None
    reason: str | None
    error_code: str | None


class OperationList(msgspec.Struct, frozen=True):
    operations: list[OperationSummary]


def view(operation: Operation, now: datetime) -> OperationView:
    return OperationView(
        operation_id=operation.id,
        operation=operation.action,
        status=operation.state.value,
        outcome=operation.outcome.value if operation.outcome is not None else None,
        workspace_id=operation.workspace_id,
        application_id=operation.application_id,
        started_at=_to_the_second(operation.started_at),
        finished_at=_to_the_second(operation.finished_at),
        created_at=operation.created_at.replace(microsecond=0),
        estimated_completion=_estimate(operation, now),
        steps=[_step(step) for step in operation.steps],
        requested_by=operation.requested_by,
        requested_by_kind=operation.requested_by_kind,
        on_behalf_of=operation.on_behalf_of,
        agent_run=operation.agent_run,
        approved_by=operation.approved_by,
        reason=operation.reason,
        parameters=operation.parameters,
        plan_hash=operation.plan_hash,
        result=operation.result,
        error=msgspec.to_builtins(operation.error) if operation.error is not None else None,
    )


def summary(operation: Operation, now: datetime) -> OperationSummary:
    return OperationSummary(
        operation_id=operation.id,
        operation=operation.action,
        status=operation.state.value,
        outcome=operation.outcome.value if operation.outcome is not None else None,
        workspace_id=operation.workspace_id,
        application_id=operation.application_id,
        requested_by=operation.requested_by,
        created_at=operation.created_at.replace(microsecond=0),
        started_at=_to_the_second(operation.started_at),
        finished_at=_to_the_second(operation.finished_at),
        estimated_completion=_estimate(operation, now),
        reason=operation.reason,
        error_code=operation.error.code if operation.error is not None else None,
    )


def unobserved(operation: Operation, now: datetime) -> list[Partial]:
    """Why fields that a reader will look for are null."""
    found = []
    if operation.started_at is None:
        found.append(Partial("started_at", f"the operation is {operation.state.value}"))
    if _estimate(operation, now) is None:
        found.append(Partial("estimated_completion", "a step has no estimate yet"))
    return found


def untrusted(operation: Operation) -> list[str]:
    """Pointers to text that the caller wrote, and to findings, which quote workloads."""
    found = ["/result/findings"] if "findings" in (operation.result or {}) else []
    found += [f"/parameters/{key}" for key in ("context", "found") if key in operation.parameters]
    if operation.reason is None:
        return found
    return [*found, "/reason", *(["/parameters/reason"] if "reason" in operation.parameters else [])]


def _estimate(operation: Operation, now: datetime) -> datetime | None:
    if operation.state.final:
        return _to_the_second(operation.estimated_completion)
    return _to_the_second(remaining_completion(operation, now))


def _step(step: Step) -> StepView:
    taken = step.duration
    open_ = step.state in (StepState.PENDING, StepState.IN_PROGRESS)
    return StepView(
        step=step.name,
        status=step.state.value,
        duration=format_seconds(taken) if taken is not None and not open_ else UNSET,
        estimated_duration=_seconds(step.estimated_seconds) if open_ else UNSET,
        result=step.message if step.message is not None else UNSET,
        attempts=step.attempts if step.attempts > 1 else UNSET,
        error=msgspec.to_builtins(step.error) if step.error is not None else UNSET,
        undo=": ".join(filter(None, (step.undo.state.value, step.undo.reason))) if step.undo is not None else UNSET,
    )


def _seconds(estimate: float | None) -> str | UnsetType:
    return UNSET if estimate is None else format_seconds(timedelta(seconds=estimate))


def _to_the_second(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)
