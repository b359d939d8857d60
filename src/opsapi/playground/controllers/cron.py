"""Cron schedules as CronJobs write them: five fields, names, lists, ranges, steps, `@daily` and a time zone.

Semantics are robfig/cron's: when both day of month and day of week are restricted, either may match.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6))
_HORIZON = timedelta(days=366 * 5)


class ScheduleError(ValueError):
    """`text` is no schedule; `why` says what is wrong with it."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"invalid schedule {text!r}: {why}")
        self.text = text
        self.why = why


def _names(index: int, text: str) -> str:
    names = {3: _MONTHS, 4: _DAYS}.get(index, ())
    offset = 1 if index == 3 else 0
    return re.sub(r"[a-z]+", lambda m: str(names.index(m[0]) + offset) if m[0] in names else m[0], text.lower())


def _part(index: int, part: str, text: str) -> set[int]:
    name, low, high = _FIELDS[index]
    match = re.fullmatch(r"(\*|\?|\d+(?:-\d+)?)(?:/(\d+))?", _names(index, part))
    if match is None:
        raise ScheduleError(text, f"{part!r} is not a {name}")
    span, step = match.group(1), int(match.group(2) or 1)
    if span in ("*", "?"):
        first, last = low, high
    else:
        bounds = [int(value) for value in span.split("-")]
        first, last = bounds[0], bounds[-1]
        if match.group(2) and len(bounds) == 1:
            last = high
    if step == 0 or first < low or last > high or first > last:
        raise ScheduleError(text, f"{part!r} is outside {low}-{high} for the {name}")
    return set(range(first, last + 1, step))


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    zone: ZoneInfo
    every: timedelta | None = None

    def _day_matches(self, moment: datetime) -> bool:
        of_month = moment.day in self.days
        of_week = moment.isoweekday() % 7 in self.weekdays
        return (of_month or of_week) if self.either_day else (of_month and of_week)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first activation strictly after `moment`; None where none comes within five years (30 February)."""
        if self.every is not None:
            return (moment + self.every).replace(microsecond=0)
        utc = moment.tzinfo
        local = moment.astimezone(self.zone).replace(second=0, microsecond=0) + timedelta(minutes=1)
        end = local + _HORIZON
        while local < end:
            if local.month not in self.months:
                local = (local.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
            elif not self._day_matches(local):
                local = local.replace(hour=0, minute=0) + timedelta(days=1)
            elif local.hour not in self.hours:
                local = local.replace(minute=0) + timedelta(hours=1)
            elif local.minute not in self.minutes:
                local += timedelta(minutes=1)
            else:
                return local.astimezone(utc)
        return None


def parse_schedule(text: str, time_zone: str | None = None) -> Schedule:
    """Raises ScheduleError."""
    zone_name = time_zone or "UTC"
    body = text.strip()
    zoned = re.fullmatch(r"(?:CRON_)?TZ=(\S+)\s+(.*)", body)
    if zoned is not None:
        zone_name, body = zoned.group(1), zoned.group(2)
    try:
        zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleError(text, f"unknown time zone {zone_name}") from error
    every = re.fullmatch(r"@every\s+(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", body)
    if every is not None and any(every.groups()):
        hours, minutes, seconds = (int(value or 0) for value in every.groups())
        span = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        if span < timedelta(seconds=1):
            raise ScheduleError(text, "the interval is below a second")
        none: frozenset[int] = frozenset()
        return Schedule(none, none, none, none, none, False, zone, span)
    fields = _MACROS.get(body.lower(), body).split()
    if len(fields) != 5:
        raise ScheduleError(text, f"expected exactly 5 fields, found {len(fields)}")
    sets = [frozenset[int]().union(*(_part(i, part, text) for part in fields[i].split(","))) for i in range(5)]
    starred = any(fields[i][0] in "*?" for i in (2, 4))
    return Schedule(sets[0], sets[1], sets[2], sets[3], sets[4], not starred, zone)
