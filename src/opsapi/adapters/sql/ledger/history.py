"""What was done lately, as policy asks it: budgets by wall time, targets by the cluster's."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.operation_rows import OPERATION
from opsapi.adapters.sql.tables import operation_targets, operations, pauses, policy_scopes
from opsapi.operations.model import Outcome, State
from opsapi.policy.admission import Admission
from opsapi.policy.evaluation import HOUR
from opsapi.policy.model import EVERYWHERE, Ask, History, Pause, PolicySettings, TargetHistory

TARGET = operation_targets.c
_MOST_ROWS = 1000
_LOOKED_BACK = 50
"""Operations of one target that are looked at, the newest first."""
_LONGEST_WAIT = timedelta(days=8)
"""What was begun longer ago than a request may wait for its approval cannot have been approved within the hour."""


async def read_history(
    connection: AsyncConnection, admission: Admission, now: datetime, *, but: str = "", lock: bool = False
) -> History:
    """`but` is the operation that is being judged itself. `lock` makes others who count the same wait."""
    ask, settings = admission.ask, admission.settings
    workspace_id = ask.subject.workspace_id
    paused = await read_pause(connection, workspace_id)
    if not settings.guards(ask.subject.kind):
        asked = ask.cooldown_seconds > 0 and not admission.waits and not admission.exempt
        targets = {one: await _target(connection, ask, one, but) for one in ask.targets} if asked else {}
        return History(paused=paused, targets=targets)
    scopes = sorted((f"account/{ask.subject.account_id}", f"workspace/{workspace_id}"))
    if lock:
        await _lock_scopes(connection, scopes)
    if admission.waits:
        return History(paused=paused, pending=await _pending(connection, ask.subject.account_id, but))
    if not ask.counted or admission.exempt:
        return History(paused=paused)
    by_account = OPERATION.requested_by == ask.subject.account_id
    in_workspace = sa.and_(
        OPERATION.workspace_id == workspace_id,
        OPERATION.requested_by_kind.in_([str(k) for k in settings.guarded_kinds]),
    )
    return History(
        paused=paused,
        account_changes=await _changes(connection, by_account, now, but),
        workspace_changes=await _changes(connection, in_workspace, now, but),
        targets={target: await _target(connection, ask, target, but) for target in ask.targets},
    )


async def read_pause(connection: AsyncConnection, workspace_id: str) -> Pause | None:
    statement = sa.select(pauses).where(pauses.c.scope.in_((EVERYWHERE, workspace_id))).order_by(pauses.c.scope)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else pause_of(row)


def pause_of(row: sa.RowMapping) -> Pause:
    return Pause(scope=row["scope"], paused_at=row["paused_at"], paused_by=row["paused_by"], reason=row["reason"])


async def _lock_scopes(connection: AsyncConnection, scopes: list[str]) -> None:
    """PostgreSQL only; on SQLite the write transaction excludes everyone."""
    rows = [{"scope": scope} for scope in scopes]
    await connection.execute(insert(policy_scopes).on_conflict_do_nothing(), rows)
    scope = policy_scopes.c.scope
    await connection.execute(sa.select(scope).where(scope.in_(scopes)).order_by(scope).with_for_update())


async def _pending(connection: AsyncConnection, account_id: str, but: str) -> int:
    statement = (
        sa.select(sa.func.count())
        .select_from(operations)
        .where(OPERATION.requested_by == account_id, OPERATION.state == State.PENDING_APPROVAL, OPERATION.id != but)
    )
    return int((await connection.execute(statement)).scalar_one())


def _really_began() -> sa.ColumnElement[bool]:
    """Neither waiting for a decision, nor ended before anything was tried, nor without anything to change."""
    return sa.and_(
        OPERATION.state != State.PENDING_APPROVAL,
        sa.or_(OPERATION.state != State.CANCELLED, OPERATION.started_at.is_not(None)),
        sa.or_(OPERATION.outcome.is_(None), OPERATION.outcome.not_in((Outcome.NOTHING_TO_DO, Outcome.PROPOSED))),
    )


async def _changes(
    connection: AsyncConnection, whose: sa.ColumnElement[bool], now: datetime, but: str
) -> tuple[datetime, ...]:
    moment = sa.func.coalesce(OPERATION.approved_at, OPERATION.created_at, type_=OPERATION.created_at.type)
    statement = (
        sa.select(moment)
        .where(whose, OPERATION.created_at > now - _LONGEST_WAIT, moment > now - HOUR)
        .where(OPERATION.counted.is_(True), OPERATION.id != but, _really_began())
        .order_by(moment.desc())
        .limit(_MOST_ROWS)
    )
    return tuple(reversed((await connection.execute(statement)).scalars().all()))


async def _target(connection: AsyncConnection, ask: Ask, target: str, but: str) -> TargetHistory:
    return weigh(await _rows(connection, target, but), ask.action, ask.at)


async def _rows(connection: AsyncConnection, target: str, but: str) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    statement = (
        sa.select(
            TARGET.at,
            TARGET.action,
            OPERATION.state,
            OPERATION.outcome,
            OPERATION.finished_at,
            OPERATION.rollback_requested_at,
        )
        .join(operations, OPERATION.id == TARGET.operation_id)
        .where(TARGET.target == target, TARGET.operation_id != but, OPERATION.counted.is_(True), _really_began())
        .order_by(TARGET.at.desc())
        .limit(_LOOKED_BACK)
    )
    return (await connection.execute(statement)).all()


def weigh(rows: Sequence[sa.Row[*tuple[Any, ...]]], action: str, at: datetime) -> TargetHistory:
    """Rows are the newest first."""
    repeats = tuple(sorted(row.at for row in rows if row.action == action and row.at > at - HOUR))
    failures, failed_at = 0, None
    for row in rows:
        if row.state in (State.FAILED, State.ROLLED_BACK) and row.rollback_requested_at is None:
            failures += 1
            failed_at = failed_at or row.finished_at
        elif row.state == State.COMPLETED:
            break
    return TargetHistory(
        changed_at=rows[0].at if rows else None, repeats=repeats, failures=failures, failed_at=failed_at
    )


async def failing_targets(
    connection: AsyncConnection, settings: PolicySettings, now: datetime
) -> dict[str, TargetHistory]:
    """Targets that failed as often in a row as blocks them, the last time within the block."""
    limits = settings.limits
    since = now - timedelta(seconds=limits.block_seconds)
    recent = (
        sa.select(TARGET.target)
        .join(operations, OPERATION.id == TARGET.operation_id)
        .where(OPERATION.finished_at > since, OPERATION.state.in_((State.FAILED, State.ROLLED_BACK)))
        .group_by(TARGET.target)
        .limit(_MOST_ROWS)
    )
    found = {}
    for target in (await connection.execute(recent)).scalars().all():
        history = weigh(await _rows(connection, target, ""), "", now)
        if history.failures >= limits.failures_to_block:
            found[target] = history
    return found
