"""The rule over any load: bounds, direction, and that it comes to rest."""

import math

from hypothesis import given
from hypothesis import strategies as st

from opsapi.applications.autoscaling import most_after, replicas_for, wish
from opsapi.applications.autoscaling_model import (
    Measurement,
    PastLoad,
    ScalingAction,
    Thresholds,
    Trigger,
    Window,
    Wish,
)

NO_PAST = Window(300, (), "nobody was asked")
USUAL = Thresholds(80, 30)
counts = st.integers(1, 100)
percentages = st.floats(0, 1000, allow_nan=False)


@st.composite
def thresholds(draw: st.DrawFn) -> Thresholds:
    down = draw(st.floats(5, 60))
    return Thresholds(draw(st.floats(50, 95)), down) if down < 50 else Thresholds(draw(st.floats(61, 95)), down)


def decide(
    current: int,
    percentage: float | None,
    held: Thresholds = USUAL,
    window: Window = NO_PAST,
    *,
    ready: int | None = None,
    maximum: int = 1000,
) -> Wish:
    measured = current if ready is None else ready
    seen = Measurement(percentage=percentage, ready=measured, measured=measured, source="prometheus")
    return wish(Trigger.CPU, current, seen, held, window, maximum=maximum)


def steady(percentage: float, pods: int) -> Window:
    return Window(300, tuple(PastLoad(60.0 * i, percentage * pods / 100, pods) for i in range(5)))


def test_the_specifications_example_comes_out() -> None:
    found = decide(3, 85.3)
    assert (found.action, found.replicas) == (ScalingAction.UP, 5)
    assert found.reason == "CPU usage of 85.3% exceeded the 80% threshold: (3 ready x 85.3%) / 55% = 5 replicas"


def test_an_exact_multiple_of_the_target_needs_no_pod_more() -> None:
    for pods in range(1, 200):
        assert replicas_for(pods * 0.55, 55) == pods


@given(counts, st.floats(0, 1), thresholds())
def test_between_the_thresholds_nothing_moves(current: int, place: float, held: Thresholds) -> None:
    percentage = min(held.up, held.down + place * (held.up - held.down))
    found = decide(current, percentage, held, steady(percentage, current))
    assert (found.action, found.replicas) == (ScalingAction.NONE, current)


@given(counts, percentages, thresholds(), st.integers(1, 200), st.integers(0, 100))
def test_a_wish_is_at_least_one_at_most_a_step_and_goes_the_way_it_says(
    current: int, percentage: float, held: Thresholds, maximum: int, past: int
) -> None:
    found = decide(current, percentage, held, steady(float(past), current), maximum=maximum)
    assert 1 <= found.replicas <= max(most_after(current), current)
    assert found.replicas <= max(current, maximum)
    match found.action:
        case ScalingAction.UP:
            assert found.replicas > current
            assert percentage > held.up
        case ScalingAction.DOWN:
            assert found.replicas < current
            assert percentage < held.down
        case ScalingAction.NONE:
            assert found.replicas == current


@given(counts, percentages, percentages, thresholds())
def test_more_load_never_asks_for_fewer_replicas(current: int, one: float, other: float, held: Thresholds) -> None:
    low, high = sorted((one, other))
    assert decide(current, low, held, steady(low, current)).replicas <= (
        decide(current, high, held, steady(high, current)).replicas
    )


@given(counts, percentages, thresholds())
def test_a_load_that_stays_is_answered_and_then_left_alone(current: int, percentage: float, held: Thresholds) -> None:
    load = current * percentage / 100
    seen = []
    for _ in range(20):
        share = 100 * load / current
        found = decide(current, share, held, steady(share, current), maximum=100_000)
        if found.action is ScalingAction.NONE:
            break
        seen.append(found.action)
        current = found.replicas
    assert found.action is ScalingAction.NONE
    assert len(set(seen)) <= 1, "it went up and down on one load"


@given(counts, st.floats(80.1, 400), st.integers(0, 50))
def test_growing_counts_pods_that_are_not_ready_as_idle(ready: int, percentage: float, unready: int) -> None:
    current = ready + unready
    found = decide(current, percentage, ready=ready)
    needed = math.ceil(ready * percentage / 55 - 1e-9)
    assert found.replicas == max(current, min(needed, most_after(current)))


@given(counts, st.floats(0, 29.9), st.integers(0, 50))
def test_shrinking_counts_pods_that_are_not_known_as_fully_used(ready: int, percentage: float, unknown: int) -> None:
    current = ready + unknown
    found = decide(current, percentage, window=steady(percentage, ready), ready=ready)
    needed = max(1, math.ceil((ready * percentage + unknown * 100) / 55 - 1e-9))
    assert found.replicas == min(current, needed)


@given(st.integers(2, 100), st.floats(0, 29), st.lists(st.floats(0, 200), min_size=1, max_size=10))
def test_shrinking_stops_at_the_highest_wish_of_the_window(current: int, now: float, past: list[float]) -> None:
    window = Window(300, tuple(PastLoad(60.0 * i, share * current / 100, current) for i, share in enumerate(past)))
    found = decide(current, now, window=window)
    for share in past:
        if share >= 30:
            assert found.action is ScalingAction.NONE
        assert found.replicas >= min(current, replicas_for(share * current / 100, 55))


def test_without_a_history_nothing_is_taken_away_and_it_is_said() -> None:
    found = decide(10, 5.0, window=Window(300, (), "readings are kept since two minutes"))
    assert (found.action, found.replicas) == (ScalingAction.NONE, 10)
    assert "nothing is taken away without a history: readings are kept since two minutes" in found.reason


def test_a_step_is_cut_to_the_double_or_four_and_says_what_would_be_needed() -> None:
    assert decide(1, 900.0).replicas == 5
    found = decide(10, 300.0)
    assert (found.replicas, found.warnings) == (20, ("55 replicas would be needed; one step adds at most 10",))


def test_policys_maximum_is_reached_and_never_passed() -> None:
    assert decide(90, 90.0, maximum=100).replicas == 100
    full = decide(100, 90.0, maximum=100)
    assert (full.action, full.replicas) == (ScalingAction.NONE, 100)
    assert "maximum of 100 replicas is reached" in full.reason
    beyond = decide(120, 90.0, maximum=100)
    assert (beyond.action, beyond.replicas) == (ScalingAction.NONE, 120)


def test_what_is_scaled_to_zero_stays_there() -> None:
    assert decide(0, 90.0, ready=1).action is ScalingAction.NONE
