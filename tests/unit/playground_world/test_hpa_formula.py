"""The autoscaler's formula against worked examples, and its bounds in general."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.controllers.hpa_formula import History, PodSample, bounded, propose, stabilize

SPEC: dict[str, Any] = {"minReplicas": 2, "maxReplicas": 20}


def pods(*usages: float | None, request: float = 100) -> list[PodSample]:
    return [PodSample(usage, request) for usage in usages]


@pytest.mark.parametrize(
    ("usages", "target", "expected"),
    [
        ((100, 100, 100), 50, 6),
        ((52, 52, 52), 50, 3),
        ((55, 55, 55), 50, 3),
        ((56, 56, 56), 50, 4),
        ((20, 20, 20), 50, 2),
        ((0, 0), 50, 0),
    ],
)
def test_replicas_follow_the_ratio_outside_the_tolerance(
    usages: tuple[float, ...], target: float, expected: int
) -> None:
    proposal = propose(len(usages), pods(*usages), target, percent=True)
    assert proposal is not None
    assert proposal.replicas == expected


def test_pods_without_metrics_slow_the_way_down_as_if_they_were_busy() -> None:
    proposal = propose(3, pods(10, 10, None), 50, percent=True)
    assert proposal is not None
    # (10 + 10 + 100) / 300 = 40 % of the request: ratio 0.8, three pods -> ceil(2.4) = 3.
    assert proposal.replicas == 3


def test_unready_pods_slow_the_way_up_as_if_they_were_idle() -> None:
    samples = [*pods(90, 90), PodSample(90, 100, unready=True)]
    proposal = propose(3, samples, 50, percent=True)
    assert proposal is not None
    # (90 + 90 + 0) / 300 = 60 %: ratio 1.2 over three pods -> ceil(3.6) = 4, not the 6 of 90 %.
    assert proposal.replicas == 4


def test_without_any_metrics_there_is_no_proposal() -> None:
    assert propose(3, pods(None, None), 50, percent=True) is None


def test_a_target_of_an_average_value_needs_no_requests() -> None:
    proposal = propose(2, [PodSample(300, 0), PodSample(300, 0)], 200, percent=False)
    assert proposal is not None
    assert proposal.replicas == 3


def test_going_down_waits_for_the_highest_recommendation_of_five_minutes() -> None:
    history = History.empty()
    assert stabilize(10, 10, SPEC, history, 0) == 10
    assert stabilize(10, 4, SPEC, history, 200) == 10
    assert stabilize(10, 4, SPEC, history, 301) == 4


def test_going_up_at_once_is_limited_to_double_or_four_more() -> None:
    assert bounded(3, 18, SPEC, History.empty(), 0)[:2] == (7, "ScaleUpLimit")
    assert bounded(8, 18, SPEC, History.empty(), 0)[:2] == (16, "ScaleUpLimit")


def test_a_policy_of_one_pod_a_minute_holds_over_the_whole_minute() -> None:
    policies = [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    spec = {**SPEC, "behavior": {"scaleDown": {"policies": policies, "stabilizationWindowSeconds": 0}}}
    history = History.empty()
    assert bounded(10, 2, spec, history, 0)[0] == 9
    history.downs.append((0.0, 1))
    assert bounded(9, 2, spec, history, 30)[0] == 9
    assert bounded(9, 2, spec, history, 61)[0] == 8


def test_a_disabled_direction_does_not_move() -> None:
    spec = {**SPEC, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}
    assert bounded(10, 2, spec, History.empty(), 0)[0] == 10


@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 10), st.integers(0, 40))
def test_the_result_lies_within_the_bounds_or_on_the_way_to_them(
    current: int, wanted: int, low: int, more: int
) -> None:
    spec = {"minReplicas": low, "maxReplicas": low + more}
    replicas, reason, _ = bounded(current, wanted, spec, History.empty(), 0)
    assert low <= replicas <= low + more or min(current, wanted) <= replicas <= max(current, wanted)
    if reason == "DesiredWithinRange":
        assert replicas == wanted
