"""Schedules of a workspace's operations."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import WORKSPACE_OPERATIONS, Idempotency, NoBody, Params, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, ResourceNotFound, ValidationFailed
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.playbooks.schedules.model import Schedule, ScheduleBody, SchedulePatch, next_tick
from opsapi.playbooks.schedules.ports import ScheduleStore

_SCHEDULES = "/internal/v1/workspaces/{workspace_id}/schedules"
_SCHEDULE = _SCHEDULES + "/{schedule_id}"
_TAG = "Schedules"
MAX_PER_WORKSPACE = 100
Check = Callable[[str, Mapping[str, Any]], None]
"""Whether an operation of that name takes these parameters. Raises ValidationFailed."""


class ScheduleList(msgspec.Struct, frozen=True):
    schedules: list[Schedule]


class Removed(msgspec.Struct, frozen=True):
    schedule_id: str
    removed: bool


class SchedulesParams(Params, frozen=True, kw_only=True):
    workspace_id: str


class ScheduleParams(Params, frozen=True, kw_only=True):
    workspace_id: str
    schedule_id: str


class ScheduleEndpoints:
    def __init__(self, store: ScheduleStore, check: Check, clock: Clock) -> None:
        self._store = store
        self._check = check
        self._clock = clock

    @endpoint(
        "POST",
        _SCHEDULES,
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Schedule a workspace operation",
        tag=_TAG,
        answer=Schedule,
        success=(201,),
        errors=(ValidationFailed, DependencyUnavailable),
    )
    async def create_schedule(self, call: Call, params: SchedulesParams, body: ScheduleBody) -> Reply[Schedule]:
        """Begins the operation at each tick, once over all replicas, as the account that made the schedule and within
        the guardrails that hold then. What policy puts before a person waits for one each time."""
        self._check(body.operation, body.parameters)
        if len(await self._store.of_workspace(params.workspace_id)) >= MAX_PER_WORKSPACE:
            raise ValidationFailed({"workspace_id": f"has {MAX_PER_WORKSPACE} schedules already"})
        now = self._clock.now()
        schedule = Schedule(
            id=new_id("sch"),
            workspace_id=params.workspace_id,
            operation=body.operation,
            parameters=body.parameters,
            cron=body.cron,
            timezone=body.timezone,
            reason=one_line(body.reason),
            enabled=body.enabled,
            created_by=call.caller.account_id,
            created_at=now,
            next_at=next_tick(body.cron, body.timezone, now),
        )
        await self._store.add(schedule, call)
        return _shown(schedule, status=201)

    @endpoint(
        "GET",
        _SCHEDULES,
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="List schedules",
        tag=_TAG,
        answer=ScheduleList,
        errors=(DependencyUnavailable,),
        fields=True,
    )
    async def list_schedules(self, _call: Call, params: SchedulesParams, _body: NoBody) -> Reply[ScheduleList]:
        """All of the workspace, with when each is due next and what its last tick began."""
        found = await self._store.of_workspace(params.workspace_id)
        untrusted = [f"/schedules/{i}/{name}" for i in range(len(found)) for name in ("reason", "parameters")]
        return Reply(ScheduleList([_whole(one) for one in found]), untrusted=untrusted)

    @endpoint(
        "PATCH",
        _SCHEDULE,
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Change a schedule",
        tag=_TAG,
        answer=Schedule,
        errors=(ValidationFailed, ResourceNotFound, DependencyUnavailable),
    )
    async def change_schedule(self, call: Call, params: ScheduleParams, body: SchedulePatch) -> Reply[Schedule]:
        """When it is due, or whether at all. Who changes it becomes whom it acts as."""
        held = await self._store.get(params.workspace_id, params.schedule_id)
        if held is None:
            raise ResourceNotFound("schedule", params.schedule_id)
        cron, timezone = body.cron or held.cron, body.timezone or held.timezone
        changed = msgspec.structs.replace(
            held,
            cron=cron,
            timezone=timezone,
            enabled=held.enabled if body.enabled is None else body.enabled,
            created_by=call.caller.account_id,
            next_at=next_tick(cron, timezone, self._clock.now()),
        )
        if not await self._store.replace(changed, call):
            raise ResourceNotFound("schedule", params.schedule_id)
        return _shown(changed)

    @endpoint(
        "DELETE",
        _SCHEDULE,
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.NATURAL,
        summary="Remove a schedule",
        tag=_TAG,
        answer=Removed,
        errors=(ResourceNotFound, DependencyUnavailable),
    )
    async def remove_schedule(self, call: Call, params: ScheduleParams, _body: NoBody) -> Reply[Removed]:
        """What its last tick began goes on."""
        if not await self._store.remove(params.workspace_id, params.schedule_id, call):
            raise ResourceNotFound("schedule", params.schedule_id)
        return Reply(Removed(params.schedule_id, removed=True))


def _shown(schedule: Schedule, status: int = 200) -> Reply[Schedule]:
    untrusted = ["/reason"] if schedule.reason is not None else []
    return Reply(_whole(schedule), status=status, untrusted=[*untrusted, "/parameters"])


def _whole(schedule: Schedule) -> Schedule:
    return msgspec.structs.replace(schedule, created_at=schedule.created_at.replace(microsecond=0))
