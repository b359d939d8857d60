from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.duration import format_age, format_seconds, format_uptime, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("60s", 60),
        ("5m", 300),
        ("1h30m", 5400),
        ("15d 4h 23m", 15 * 86400 + 4 * 3600 + 23 * 60),
        ("1w", 604800),
    ],
)
def test_a_duration_reads_as_written(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5m5m", "5s5m", "-5m", "1.5h", " 5m", "5m ", "5 m", "9999999999999s", "99999d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-5, "0s"), (35, "35s"), (3600 * 53, "2d5h"), (3600 * 4, "4h"), (86400 * 2 + 61, "2d"), (90, "1m30s")],
)
def test_an_age_shows_its_two_largest_units(seconds: int, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text


def test_uptime_is_written_as_in_the_specification() -> None:
    assert format_uptime(timedelta(days=15, hours=4, minutes=23, seconds=9)) == "15d 4h 23m"
    assert format_uptime(timedelta(seconds=9)) == "9s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5s"), (60, "60s"), (120, "2m"), (0.4, "0.4s"), (0, "0s"), (121, "121s")]
)
def test_step_durations_are_written_as_in_the_specification(seconds: float, text: str) -> None:
    assert format_seconds(timedelta(seconds=seconds)) == text


@given(st.integers(0, 10**8))
def test_an_age_is_never_more_than_the_span_and_close_below_it(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    shown = parse_duration(format_age(span))
    assert (
        timedelta(0) <= span - shown < max(span * 0.1, timedelta(seconds=1)) + timedelta(hours=24) * (seconds > 86400)
    )
