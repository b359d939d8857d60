"""Cron schedules: what they accept and when they fire."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opsapi.playground.controllers.cron import ScheduleError, parse_schedule

NOW = datetime(2026, 3, 2, 9, 7, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/15 * * * *", "2026-03-02T09:15"),
        ("0 3 * * *", "2026-03-03T03:00"),
        ("@hourly", "2026-03-02T10:00"),
        ("@weekly", "2026-03-08T00:00"),
        ("30 9 1 * *", "2026-04-01T09:30"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("5,10-12 9 * * *", "2026-03-02T09:10"),
        ("0 12 * jan,jul mon-fri", "2026-07-01T12:00"),
        ("0 0 13 * 5", "2026-03-06T00:00"),
        ("0 0 * * 0", "2026-03-08T00:00"),
        ("TZ=Europe/Berlin 0 10 * * *", "2026-03-03T09:00"),
        ("@every 1h30m", "2026-03-02T10:37"),
    ],
)
def test_the_next_time_of_a_schedule(text: str, expected: str) -> None:
    following = parse_schedule(text).next_after(NOW)
    assert following is not None
    assert following.strftime("%Y-%m-%dT%H:%M") == expected


def test_a_time_zone_of_the_spec_counts() -> None:
    following = parse_schedule("0 10 * * *", "Asia/Tokyo").next_after(NOW)
    assert following == datetime(2026, 3, 3, 1, 0, tzinfo=UTC)


def test_a_day_that_never_comes_gives_no_time() -> None:
    assert parse_schedule("0 0 30 2 *").next_after(NOW) is None


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
     "5-1 * * * *", "*/0 * * * *", "a * * * *", "@often", "TZ=Nowhere/City 0 0 * * *", "@every 0s", "1,,2 * * * *"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError):
        parse_schedule(text)


FIELDS = st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(1, 12), st.integers(0, 6))


@given(FIELDS, st.sets(st.integers(0, 4), max_size=5), st.integers(0, 4 * 365 * 86400))
def test_the_next_time_matches_and_nothing_before_it_does(
    values: tuple[int, ...], starred: set[int], offset: int
) -> None:
    text = " ".join("*" if index in starred else str(value) for index, value in enumerate(values))
    schedule = parse_schedule(text)
    begin = NOW + timedelta(seconds=offset)
    following = schedule.next_after(begin)
    assume(following is not None)
    assert following is not None
    assert following > begin
    assert following.second == 0
    assert following.minute in schedule.minutes
    assert following.hour in schedule.hours
    assert following.month in schedule.months
    before = following - timedelta(minutes=1)
    if before > begin:
        assert schedule.next_after(before) == following
