"""Quantiles, spans and shares of requests: figures that follow from what was measured, or none."""

import itertools
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.telemetry.model import ContainerSeries, Span, Unobserved, UsageHistory, WorkloadSelector
from opsapi.telemetry.quantiles import BeyondBuckets, quantile
from opsapi.telemetry.sources import MetricsSources
from opsapi.telemetry.utilisation import Utilisation, utilisation, utilisation_history
from support.metrics import FakeMetrics

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WEB = WorkloadSelector("StatefulSet", "shop", "web")
MINUTE = timedelta(minutes=1)


def test_a_quantile_is_linear_within_its_bucket() -> None:
    buckets = {0.1: 10.0, 0.5: 50.0, 1.0: 100.0, math.inf: 100.0}
    assert quantile(0.05, buckets) == pytest.approx(0.05)
    assert quantile(0.5, buckets) == pytest.approx(0.5)
    assert quantile(0.95, buckets) == pytest.approx(0.95)
    assert quantile(0.3, {-1.0: 10, 1.0: 10, math.inf: 10}) == -1.0


def test_beyond_the_last_bound_nothing_is_known() -> None:
    with pytest.raises(BeyondBuckets) as caught:
        quantile(0.95, {0.1: 94.0, math.inf: 100.0})
    assert caught.value.bound == 0.1


@pytest.mark.parametrize("buckets", [{}, {math.inf: 5.0}, {0.1: 5.0}, {0.1: 0.0, math.inf: 0.0}])
def test_without_observations_or_whole_buckets_there_is_no_quantile(buckets: dict[float, float]) -> None:
    assert quantile(0.5, buckets) is None


@given(st.lists(st.floats(0, 9.99), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_that_holds_it(values: list[float], share: float) -> None:
    bounds = [0.5, 1.0, 2.0, 5.0, 10.0]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds} | {
        math.inf: len(values) * 1.0
    }
    found = quantile(share, buckets)
    assert found is not None
    true = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    high = next(bound for bound in bounds if true <= bound)
    low = max((bound for bound in bounds if bound < high), default=0.0)
    assert low <= found <= high + 1e-9


@given(st.integers(1, 10_000), st.integers(1, 600))
def test_a_span_ends_within_a_step_of_where_it_was_to(seconds: int, step: int) -> None:
    span = Span.ending(AT, timedelta(seconds=seconds), timedelta(seconds=step))
    moments = span.moments()
    assert moments[0] == span.since.timestamp()
    assert 0 <= span.until.timestamp() - moments[-1] < step
    assert all(later - earlier == step for earlier, later in itertools.pairwise(moments))


@pytest.mark.parametrize(
    ("since", "step"),
    [
        (AT, MINUTE),
        (AT + MINUTE, MINUTE),
        (AT - MINUTE, timedelta(0)),
        (AT - MINUTE, -MINUTE),
        (AT - timedelta(days=365), MINUTE),
        (AT.replace(tzinfo=None) - MINUTE, MINUTE),
    ],
)
def test_absurd_spans_are_refused(since: datetime, step: timedelta) -> None:
    with pytest.raises(ValueError, match="span"):
        Span(since, AT, step)


def test_utilisation_is_usage_over_requests_of_the_pods_that_were_measured() -> None:
    series = (
        ContainerSeries("web-0", "app", (0.0, 60.0), (50.0, 100.0), (100, 200)),
        ContainerSeries("web-0", "proxy", (60.0,), (20.0,), (None,)),
        ContainerSeries("web-1", "app", (60.0,), (80.0,), (200,)),
    )
    history = UsageHistory(series, AT, MINUTE)
    assert history.points == 2
    assert utilisation(history, 100.0, 400) == (
        Utilisation(0.0, 50.0, 25.0, 1),
        Utilisation(60.0, 100.0, None, 2),
    )
    assert [one.cpu_percentage for one in utilisation(history, None, None)] == [None, None]
    assert [one.cpu_percentage for one in utilisation(history, 0.0, 0)] == [None, None]


async def test_the_first_source_with_figures_answers_and_the_rest_is_not_asked() -> None:
    first, second = FakeMetrics(), FakeMetrics()
    for one in (first, second):
        one.measure("web-0", "app", AT, cpu=50.0, memory=2**20)
    sources = MetricsSources(first, second)
    answer = await sources.usage_now("ws-123", "shop", ["web-0"])
    assert not isinstance(answer, Unobserved)
    assert (first.asked, second.asked) == (["usage_now"], [])
    first.away = "it is away"
    assert not isinstance(await sources.usage_now("ws-123", "shop", ["web-0"]), Unobserved)
    assert second.asked == ["usage_now"]
    second.away = "it is away too"
    assert await sources.usage_now("ws-123", "shop", ["web-0"]) == Unobserved("fake: it is away; fake: it is away too")


async def test_without_a_source_every_answer_says_so() -> None:
    nothing = MetricsSources()
    span = Span.ending(AT, timedelta(minutes=5), MINUTE)
    for answer in (
        await nothing.usage_now("ws", "shop", ["web-0"]),
        await nothing.usage_history("ws", WEB, span),
        await nothing.traffic("ws", WEB, MINUTE),
        await nothing.restarts("ws", WEB, MINUTE),
        await nothing.throttling("ws", WEB, MINUTE),
        await utilisation_history(nothing, "ws", WEB, span, cpu_request_millicores=1.0),
    ):
        assert answer == Unobserved("no source of metrics is connected")
