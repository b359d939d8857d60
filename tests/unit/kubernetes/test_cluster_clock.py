"""The cluster's time from Date headers: skewed, fast, set, or not told at all."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.adapters.kubernetes.clustertime import ClusterClock
from support.leaping import START, LeapingTime


class Cluster:
    """A server whose clock runs at `rate`, and which cuts its Date headers to whole seconds."""

    def __init__(self, rate: float = 1.0, offset: float = 0.0) -> None:
        self.time = LeapingTime()
        self.clock = ClusterClock(self.time)
        self.rate = rate
        self.offset = offset

    @property
    def theirs(self) -> datetime:
        return START + timedelta(seconds=self.offset + self.time.seconds * self.rate)

    def answer(self, latency: float = 0.01) -> None:
        sent = self.time.seconds
        self.time.seconds += latency / 2
        date = format_datetime(self.theirs.astimezone(UTC), usegmt=True)
        self.time.seconds += latency / 2
        self.clock.observe(date, sent, self.time.seconds)

    def error(self) -> float:
        return abs((self.clock.now() - self.theirs).total_seconds())


def test_before_any_answer_it_is_our_own_time() -> None:
    cluster = Cluster(offset=500)
    assert cluster.clock.now() == cluster.time.now()


@pytest.mark.parametrize("header", [None, "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_what_is_no_date_is_ignored(header: str | None) -> None:
    cluster = Cluster()
    cluster.clock.observe(header, 0.0, 0.1)
    assert cluster.clock.now() == cluster.time.now()


@settings(deadline=None)
@given(
    offset=st.floats(-1e6, 1e6),
    gaps=st.lists(st.floats(0.05, 20), min_size=1, max_size=60),
    latency=st.floats(0.001, 0.5),
)
def test_a_skewed_clock_is_known_to_a_second_and_never_goes_back(
    offset: float, gaps: list[float], latency: float
) -> None:
    cluster = Cluster(offset=offset)
    last = datetime.min.replace(tzinfo=UTC)
    for gap in gaps:
        cluster.answer(latency)
        assert cluster.error() <= 1.1 + latency
        cluster.time.seconds += gap
        now = cluster.clock.now()
        assert now >= last
        last = now


@settings(deadline=None)
@given(rate=st.floats(2, 600), busy=st.booleans())
def test_a_clock_that_runs_faster_is_followed(rate: float, busy: bool) -> None:
    cluster = Cluster(rate=rate)
    for _ in range(12):
        cluster.answer()
        if busy:
            for _ in range(20):
                cluster.time.seconds += 0.05
                cluster.answer()
        cluster.time.seconds += 5
    cluster.answer()
    assert cluster.clock.rate == pytest.approx(rate, rel=0.05, abs=0.2)
    cluster.time.seconds += 5
    assert cluster.error() <= 2.0 + 0.05 * 5 * rate


def test_a_clock_that_was_set_is_believed_at_the_next_answer() -> None:
    cluster = Cluster()
    for _ in range(6):
        cluster.answer()
        cluster.time.seconds += 5
    cluster.offset = 3600
    cluster.answer()
    assert cluster.error() <= 1.1
    cluster.time.seconds += 5
    assert cluster.clock.rate == 1.0
    assert cluster.error() <= 1.1
    for _ in range(6):
        cluster.answer()
        cluster.time.seconds += 5
    assert cluster.clock.rate == 1.0
    assert cluster.error() <= 1.1


def test_a_clock_that_changes_its_pace_is_followed_again() -> None:
    cluster = Cluster(rate=1.0)
    for rate in (1.0, 60.0, 1.0):
        offset = cluster.offset + cluster.time.seconds * (cluster.rate - rate)
        cluster.rate, cluster.offset = rate, offset
        for _ in range(10):
            cluster.answer()
            cluster.time.seconds += 5
        cluster.answer()
        assert cluster.clock.rate == pytest.approx(rate, rel=0.05)
        assert cluster.error() <= 3
