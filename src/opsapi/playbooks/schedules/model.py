"""A schedule, and when it is due. Pure."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Meta

from opsapi.kit.endpoint import Body
from opsapi.kit.errors import ValidationFailed

GRACE = timedelta(hours=1)
"""A tick that was missed for longer (nobody served) is let pass; the next one comes."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """`cron` has five fields, in `timezone`. It acts as the account that made it, with what that account may do when
    the tick comes. `last_error`: why the last tick began nothing."""

    id: str
    workspace_id: str
    operation: str
    parameters: dict[str, Any]
    cron: str
    timezone: str
    reason: str | None
    enabled: bool
    created_by: str
    created_at: datetime
    next_at: datetime
    last_at: datetime | None = None
    last_operation_id: str | None = None
    last_error: dict[str, Any] | None = None


class ScheduleBody(Body, frozen=True, kw_only=True):
    """`cron`: minute, hour, day of month, month, day of week (`0 2 * * *`). `parameters` are those of `operation`."""

    operation: Annotated[str, Meta(min_length=1, max_length=40)]
    cron: Annotated[str, Meta(max_length=120)]
    timezone: Annotated[str, Meta(max_length=64)] = "UTC"
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    reason: Annotated[str, Meta(max_length=1000)] | None = None
    enabled: bool = True


class SchedulePatch(Body, frozen=True, kw_only=True):
    """What is left out stays."""

    cron: Annotated[str, Meta(max_length=120)] | None = None
    timezone: Annotated[str, Meta(max_length=64)] | None = None
    enabled: bool | None = None


def next_tick(cron: str, timezone: str, after: datetime) -> datetime:
    """The first tick after a moment, in UTC. Raises ValidationFailed for what can never be due.

    Daylight saving as cron does: a skipped hour's ticks come right after it, a repeated hour's once (fixed times).
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValidationFailed({"timezone": f"{timezone[:64]!r} is no time zone; like Europe/Vienna"}) from None
    if len(cron.split()) != 5:
        raise ValidationFailed({"cron": "needs five fields: minute, hour, day of month, month, day of week"})
    try:
        return next(CronSim(cron, after.astimezone(zone))).astimezone(after.tzinfo)
    except (CronSimError, StopIteration):
        raise ValidationFailed({"cron": f"{cron[:120]!r} is no cron expression, or never due"}) from None


def tick_key(schedule: Schedule) -> str:
    """The Idempotency-Key of the tick that is due: however many replicas begin it, one operation comes of it."""
    return f"{schedule.id}:{schedule.next_at.isoformat()}"
