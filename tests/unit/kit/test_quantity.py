"""Quantities: the specification's own arithmetic, and properties over everything the grammar allows."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.quantity import (
    format_bytes,
    format_cpu,
    format_cpu_quantity,
    millicores,
    parse_quantity,
    percentage,
    whole,
)

GI = 2**30


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("250m", "0.25"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("100Mi", "104857600"),
        ("1Gi", "1073741824"),
        ("1k", "1000"),
        ("2E", "2e18"),
        ("2Ei", str(2 * 2**60)),
        ("1e3", "1000"),
        ("12E2", "1200"),
        ("100n", "1e-7"),
        ("-1", "-1"),
        ("128974848000m", "128974848"),
    ],
)
def test_a_quantity_reads_as_kubernetes_reads_it(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1gi", "1KB", "abc", "1..2", "--1", "0x10", "1e", "1Kib", "٣", "1e9999"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("part", "total", "percent"),
    [
        (8.5, 16, 53.1),
        (24 * GI, 32 * GI, 75.0),
        (450 * GI, 1024 * GI, 43.9),
        (187, 512, 36.5),
        (1, 3, 33.3),
        (1, 8, 12.5),
    ],
)
def test_percentages_round_as_the_specification_states(part: float, total: float, percent: float) -> None:
    assert percentage(part, total) == percent


def test_a_percentage_of_nothing_is_none() -> None:
    assert percentage(5, 0) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(24 * GI, "24Gi"), (450 * GI, "450Gi"), (1024 * GI, "1Ti"), (int(14.5 * GI), "14.5Gi"), (512, "512"), (0, "0")],
)
def test_bytes_are_written_as_the_specification_writes_them(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(("millis", "text"), [(8500, "8.5"), (16000, "16"), (3800, "3.8"), (0, "0"), (250, "0.25")])
def test_cores_are_written_as_the_specification_writes_them(millis: int, text: str) -> None:
    assert format_cpu(millis) == text


@given(st.integers(0, 10**9))
def test_cpu_survives_a_round_trip_through_either_form(millis: int) -> None:
    assert millicores(format_cpu_quantity(millis)) == millis
    assert millicores(format_cpu(millis)) == millis


@given(st.integers(0, 2**62), st.integers(0, 4))
def test_formatted_bytes_stay_within_half_a_unit_of_the_last_place(count: int, places: int) -> None:
    text = format_bytes(count, places)
    unit = next((2**power for suffix, power in _POWERS.items() if text.endswith(suffix)), 1)
    assert abs(parse_quantity(text) - count) * 2 * 10**places <= unit


_POWERS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


@given(st.decimals(0, 10**6, places=3, allow_nan=False))
def test_whole_units_round_up(value: Decimal) -> None:
    rounded = whole(format(value, "f"))
    assert 0 <= rounded - value < 1
