"""The arithmetic of rolling updates: never too few available, never too many at all, and always an end."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.controllers.rollout import (
    Slice,
    fenceposts,
    proportions,
    scale_down_old,
    scale_up_to,
    scaled_value,
)


def deployment(replicas: int, surge: int | str, unavailable: int | str) -> dict[str, Any]:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (3, 0, 1, (0, 1)),
        (4, 0, 0, (0, 1)),
        (3, "0%", "10%", (0, 1)),
        (2, 5, 5, (5, 2)),
    ],
)
def test_fenceposts_round_surge_up_and_unavailable_down(
    replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]
) -> None:
    assert fenceposts(deployment(replicas, surge, unavailable)) == expected


@pytest.mark.parametrize(
    ("value", "up", "expected"), [("34%", True, 4), ("34%", False, 3), (7, True, 7), ("6", True, 6)]
)
def test_int_or_percent(value: int | str, up: bool, expected: int) -> None:
    assert scaled_value(value, 10, round_up=up) == expected


@given(st.integers(1, 60), st.integers(0, 12), st.integers(0, 12), st.randoms(use_true_random=False))
def test_a_rollout_keeps_its_bounds_at_each_step_and_ends(replicas: int, surge: int, down: int, chance: Any) -> None:
    surge, down = fenceposts(deployment(replicas, surge, down))
    new, old = Slice(0, 0), Slice(replicas, replicas)
    for _ in range(20 * replicas + 20):
        size = scale_up_to(replicas, surge, new, new.replicas + old.replicas)
        if size != new.replicas:
            new = Slice(size, new.available)
        else:
            (kept,) = scale_down_old(replicas, down, new, [old])
            old = Slice(kept, min(old.available, kept))
        assert new.replicas + old.replicas <= replicas + surge
        assert new.available + old.available >= replicas - down
        ready = new.available + chance.randint(0, new.replicas - new.available)
        new = Slice(new.replicas, max(ready, min(new.replicas, new.available + 1)))
        if new == Slice(replicas, replicas) and old.replicas == 0:
            return
    pytest.fail(f"still at {new}, {old}")


@given(st.lists(st.integers(1, 50), min_size=2, max_size=4), st.integers(0, 80))
def test_a_resize_in_mid_rollout_shares_out_exactly_what_is_allowed(sizes: list[int], allowed: int) -> None:
    result = proportions(sizes, [sum(sizes)] * len(sizes), allowed)
    assert sum(result) == allowed
    assert all(size >= 0 for size in result)
