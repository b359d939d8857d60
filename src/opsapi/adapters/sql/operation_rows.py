"""Rows of `operations` and `operation_steps` to and from the domain's Structs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.tables import operation_steps, operations
from opsapi.audit.model import AuditEntry, system_entry
from opsapi.kit.caller import AuditTrail, Call, System
from opsapi.operations.model import (
    Approval,
    Claim,
    Failure,
    Item,
    NewOperation,
    Operation,
    Outcome,
    State,
    Step,
    StepState,
    Undo,
)

STEP = operation_steps.c
OPERATION = operations.c
_OPERATION_FIELDS = [field.name for field in msgspec.structs.fields(Operation) if field.name in OPERATION]
_STEP_FIELDS = [field.name for field in msgspec.structs.fields(Step)]


def new_operation(new: NewOperation, call: Call, now: datetime) -> dict[str, Any]:
    return {
        "id": new.id,
        "action": new.action,
        "version": new.version,
        "state": State.QUEUED if new.approval is None else State.PENDING_APPROVAL,
        "workspace_id": new.workspace_id,
        "application_id": new.application_id,
        "resource_id": new.resource_id,
        "resource_uid": new.resource_uid,
        "parameters": new.parameters,
        "plan": new.plan,
        "plan_hash": new.plan_hash,
        "requested_by": call.caller.account_id,
        "requested_by_kind": call.caller.kind.value,
        "on_behalf_of": call.caller.on_behalf_of,
        "agent_run": call.caller.agent_run,
        "request_id": call.request_id,
        "reason": new.reason,
        "permission": new.permission,
        "counted": new.counted,
        "approval": None if new.approval is None else msgspec.to_builtins(new.approval),
        "approval_expires_at": new.approval_expires_at,
        "created_at": now,
        "updated_at": now,
        "estimated_completion": new.estimated_completion,
        "deadline_at": new.deadline_at,
        "attempts": 0,
        "lease_token": 0,
    }


def new_steps(new: NewOperation) -> list[dict[str, Any]]:
    return [
        {
            "operation_id": new.id,
            "position": position,
            "name": step.name,
            "state": StepState.PENDING,
            "estimated_seconds": step.estimated_seconds,
            "attempts": 0,
        }
        for position, step in enumerate(new.steps)
    ]


async def load(connection: AsyncConnection, rows: Sequence[sa.RowMapping]) -> list[Operation]:
    """Operations with their steps, in the order of `rows`; two statements however many there are."""
    if not rows:
        return []
    wanted = [row["id"] for row in rows]
    statement = sa.select(operation_steps).where(STEP.operation_id.in_(wanted)).order_by(STEP.position)
    steps: dict[str, list[Step]] = {operation_id: [] for operation_id in wanted}
    for row in (await connection.execute(statement)).mappings():
        steps[row["operation_id"]].append(_step(row))
    return [_operation(row, steps[row["id"]]) for row in rows]


async def load_one(connection: AsyncConnection, operation_id: str) -> Operation | None:
    rows = (await connection.execute(sa.select(operations).where(OPERATION.id == operation_id))).mappings().all()
    found = await load(connection, rows)
    return found[0] if found else None


async def load_row(connection: AsyncConnection, row: sa.RowMapping) -> Operation:
    """The operation of a row that this transaction has just written."""
    return (await load(connection, [row]))[0]


def _step(row: sa.RowMapping) -> Step:
    values = {name: row[name] for name in _STEP_FIELDS}
    values["state"] = StepState(row["state"])
    values["undo"] = None if row["undo"] is None else msgspec.convert(row["undo"], Undo)
    values["error"] = None if row["error"] is None else msgspec.convert(row["error"], Failure)
    values["items"] = msgspec.convert(row["items"] or {}, dict[str, Item])
    return Step(**values)


def _operation(row: sa.RowMapping, steps: list[Step]) -> Operation:
    values = {name: row[name] for name in _OPERATION_FIELDS}
    values["state"] = State(row["state"])
    values["outcome"] = None if row["outcome"] is None else Outcome(row["outcome"])
    values["error"] = None if row["error"] is None else msgspec.convert(row["error"], Failure)
    values["locks"] = tuple(row["locks"] or ())
    values["approval"] = None if row["approval"] is None else msgspec.convert(row["approval"], Approval)
    return Operation(**values, steps=tuple(steps))


async def set_step(connection: AsyncConnection, claim: Claim, position: int, values: dict[str, Any]) -> None:
    await connection.execute(
        sa.update(operation_steps)
        .where(STEP.operation_id == claim.operation.id, STEP.position == position)
        .values(values)
    )


async def merge(
    connection: AsyncConnection,
    held: sa.RowMapping,
    result: Mapping[str, Any] | None,
    outcome: Outcome | None,
    **values: object,
) -> sa.RowMapping:
    """Adds to the row that this transaction has locked; returns it as it then stands."""
    if result:
        values["result"] = (held["result"] or {}) | dict(result)
    if outcome is not None:
        values["outcome"] = outcome
    if not values:
        return held
    statement = sa.update(operations).where(OPERATION.id == held["id"]).values(**values).returning(operations)
    row: sa.RowMapping = (await connection.execute(statement)).mappings().one()
    return row


def engine_entry(operation: Operation, action: str, at: datetime) -> AuditEntry:
    """What the engine did for whoever asked for the operation."""
    trail = AuditTrail(
        workspace_id=operation.workspace_id,
        resource=operation.resource_id,
        operation_id=operation.id,
        reason=operation.reason,
    )
    by = System("operations", action, user=operation.requested_by)
    status = 500 if operation.state in (State.FAILED, State.ROLLED_BACK) else 200
    entry = system_entry(by, status, at=at, trail=trail)
    if status == 500 and operation.error is not None:
        entry = msgspec.structs.replace(entry, error_code=operation.error.code)
    return entry
