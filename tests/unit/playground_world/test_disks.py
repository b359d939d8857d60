"""What volumes hold, and the durations of backup specs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.disks import EMPTY, Contents, Disks
from opsapi.playground.snapshots.objects import moment_of, quantity_of, ready_status
from opsapi.playground.velero.durations import seconds

WRITES = st.lists(st.text(max_size=20), max_size=6)


def after(writes: list[str]) -> Contents:
    held = EMPTY
    for text in writes:
        held = held.after(text)
    return held


@given(WRITES, WRITES)
def test_contents_are_equal_exactly_when_their_writes_are(first: list[str], second: list[str]) -> None:
    assert (after(first) == after(second)) is (first == second)
    assert after(first).revision == len(first)


@given(WRITES, WRITES)
def test_a_snapshot_keeps_what_was_there_whatever_is_written_later(before: list[str], later: list[str]) -> None:
    disks = Disks()
    for text in before:
        disks.write("volume", text)
    disks.take("snapshot", "volume", 1 << 30, 5.0)
    for text in later:
        disks.write("volume", text)
    again = disks.take("snapshot", "volume", 1, 9.0)
    assert (again.contents, again.size, again.taken_at) == (after(before), 1 << 30, 5.0)
    disks.fill("copy", again.contents)
    disks.delete("volume")
    assert disks.contents("copy") == after(before)
    assert disks.contents("volume") == EMPTY


def test_a_snapshot_that_is_deleted_is_gone() -> None:
    disks = Disks()
    disks.take("snapshot", "volume", 1, 0.0)
    disks.delete_snapshot("snapshot")
    assert disks.snapshot("snapshot") is None
    assert disks.snapshots() == {}


@given(st.datetimes().map(lambda moment: moment.replace(tzinfo=moment_of(0).tzinfo)))
def test_a_contents_creation_time_is_nanoseconds_since_1970(moment: object) -> None:
    made = ready_status("handle", 1, moment, ready=True)  # type: ignore[arg-type]
    assert moment_of(made["creationTime"]) == moment


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1024, "1Ki"), (1536, "1536"), (5 << 30, "5Gi"), (3 << 40, "3Ti")]
)
def test_a_size_is_written_in_the_largest_unit_that_fits(size: int, text: str) -> None:
    assert quantity_of(size) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("720h0m0s", 2_592_000.0),
        ("10m0s", 600.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("", 7.0),
        (None, 7.0),
        ("0s", 7.0),
        ("soon", 7.0),
        ("5m!", 7.0),
    ],
)
def test_durations_are_gos_and_what_is_none_is_the_default(text: str | None, expected: float) -> None:
    assert seconds(text, 7.0) == expected
