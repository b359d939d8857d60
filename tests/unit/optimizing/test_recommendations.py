"""The figures: what is recommended from which usage, and what it saves."""

import math
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.applications.costs import CostSettings, monthly_cpu, monthly_memory
from opsapi.kit.quantity import parse_quantity
from opsapi.playbooks.optimizing.model import Quantities, Row, same
from opsapi.playbooks.optimizing.recommending import (
    MEBIBYTE,
    Used,
    cpu_request,
    memory_bound,
    oom_limits,
    recommend,
    steered_by,
    used,
)
from opsapi.telemetry.model import ContainerSeries
from opsapi.workspaces.objects import (
    Container,
    ContainerState,
    ContainerStatus,
    MetricSpec,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
    ResourceMetric,
    Resources,
    Terminated,
)
from support.workloads import make_autoscaler

HOURS = timedelta(hours=4)
COSTS = CostSettings()


def of(*figures: float, points: int = 240, span: timedelta = HOURS) -> Used:
    return Used(tuple(figures), points, span)


def row(
    cpu: Used | None = None,
    memory: Used | None = None,
    *,
    requests: dict[str, str] | None = None,
    limits: dict[str, str] | None = None,
    unknown: dict[str, str] | None = None,
    oom_limit: float | None = None,
    replicas: int = 1,
) -> Row:
    resources = Resources(requests=requests or {}, limits=limits or {})
    return recommend(
        Container(name="app", resources=resources),
        cpu or of(50.0),
        memory or of(200.0 * MEBIBYTE),
        unknown=unknown or {},
        oom_limit=oom_limit,
        replicas=replicas,
        costs=COSTS,
        change_percentage=10,
    )


def test_cpu_is_the_95th_percentile_that_was_measured() -> None:
    figures = [float(one) for one in range(1, 101)]
    assert cpu_request(of(*figures)) == 95
    assert cpu_request(of(*figures, 5000.0)) == 96
    assert cpu_request(of(0.2)) == 10, "the floor"
    assert cpu_request(of(33.1)) == 34


def test_memory_is_the_highest_and_fifteen_percent_more_in_whole_mebibytes() -> None:
    assert memory_bound(200 * MEBIBYTE, None) == 230 * MEBIBYTE
    assert memory_bound(200 * MEBIBYTE + 1, None) == 231 * MEBIBYTE
    assert memory_bound(1, None) == 100 * MEBIBYTE, "the floor"
    assert memory_bound(250 * MEBIBYTE, 256 * MEBIBYTE) == 320 * MEBIBYTE, "1.25 x the limit hit"
    assert memory_bound(900 * MEBIBYTE, 256 * MEBIBYTE) == 1035 * MEBIBYTE


@given(st.lists(st.floats(0, 1e5), min_size=1), st.integers(0, 2**40), st.none() | st.integers(1, 2**40))
def test_recommendations_cover_what_they_are_made_from(cpu: list[float], peak: int, oom: int | None) -> None:
    request = cpu_request(of(*cpu))
    assert request >= 10
    assert sum(one <= request for one in cpu) >= math.ceil(0.95 * len(cpu)) or request == 10
    bound = memory_bound(peak, oom)
    for least in (Decimal(peak) * Decimal("1.15"), Decimal(100 * MEBIBYTE), Decimal(oom or 0) * Decimal("1.25")):
        assert bound >= least
    assert bound % MEBIBYTE == 0


def test_memory_request_and_limit_become_one_and_no_cpu_limit_is_invented() -> None:
    found = row(of(120.0), requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "2Gi"})
    assert found.recommended == Quantities(cpu_request="120m", memory_request="230Mi", memory_limit="230Mi")
    assert row(of(120.0), limits={"cpu": "100m"}).recommended.cpu_request == "100m", "never above its limit"
    assert row(of(120.0), limits={"cpu": "100m"}).recommended.cpu_limit == "100m"


def test_what_differs_little_is_left_as_it_is() -> None:
    stands = row(of(105.0), requests={"cpu": "100m", "memory": "220Mi"}, limits={"memory": "220Mi"})
    assert not stands.changes
    assert stands.savings is None
    assert row(of(115.0), requests={"cpu": "100m", "memory": "230Mi"}, limits={"memory": "230Mi"}).changes


def test_an_oom_kill_is_answered_however_little_it_differs() -> None:
    killed = row(memory=of(255.0 * MEBIBYTE), limits={"memory": "300Mi"}, oom_limit=256.0 * MEBIBYTE)
    assert (killed.recommended.memory_limit, killed.oom_killed) == ("320Mi", True)


@pytest.mark.parametrize(
    ("points", "span", "reason"),
    [
        (99, timedelta(hours=5), "99 readings over 5h; at least 100 over 3h are needed"),
        (150, timedelta(hours=2, minutes=30), "150 readings over 2h30m; at least 100 over 3h are needed"),
        (0, timedelta(), "0 readings; at least 100 over 3h are needed"),
    ],
)
def test_too_short_a_history_recommends_nothing_and_says_so(points: int, span: timedelta, reason: str) -> None:
    short = Used((50.0,) if points else (), points, span)
    found = row(short, short, requests={"cpu": "2"})
    assert found.recommended == found.current
    assert found.unknown == {"cpu": reason, "memory": reason}


def test_what_an_autoscaler_steers_by_is_not_touched() -> None:
    reasons = steered_by(make_autoscaler(name="web-hpa"))
    assert reasons == {"cpu": "HorizontalPodAutoscaler web-hpa scales by its cpu"}
    found = row(of(50.0), requests={"cpu": "2"}, unknown=reasons)
    assert found.recommended.cpu_request == "2"
    assert found.recommended.memory_limit == "230Mi"
    assert steered_by(None) == {}
    metric = MetricSpec(type="ContainerResource", container_resource=ResourceMetric(name="memory"))
    scaler = make_autoscaler()

    spec = msgspec.structs.replace(scaler.spec, metrics=(metric,))
    assert list(steered_by(msgspec.structs.replace(scaler, spec=spec))) == ["memory"]


def test_savings_are_of_what_is_paid_for_whichever_is_more() -> None:
    assert monthly_cpu(COSTS, 1000, 0) == pytest.approx(0.031611 * 730)
    assert monthly_memory(COSTS, 2**30, 0) == pytest.approx(0.004237 * 730)
    assert monthly_cpu(COSTS, 100, 400) == monthly_cpu(COSTS, 400, 0)
    found = row(of(100.0), requests={"cpu": "1", "memory": "230Mi"}, limits={"memory": "230Mi"}, replicas=3)
    assert found.savings == pytest.approx(0.9 * 0.031611 * 730 * 3, abs=0.005)
    more = row(of(400.0), requests={"cpu": "100m", "memory": "230Mi"}, limits={"memory": "230Mi"})
    assert more.savings == 0, "it uses that much already"


def test_the_price_book_is_named() -> None:
    assert CostSettings().named.startswith("the service's default price book")
    assert CostSettings(vcpu_hour=0.05).named == "the configured price book"
    assert CostSettings(source="our contract of 2026").named == "our contract of 2026"


def test_quantities_are_compared_by_amount() -> None:
    assert same(
        Quantities(memory_limit="1024Mi", cpu_request="0.1"), Quantities(memory_limit="1Gi", cpu_request="100m")
    )
    assert not same(Quantities(memory_limit="1Gi"), Quantities())
    found = row(memory=of(890.4 * MEBIBYTE))
    assert found.recommended.memory_limit == "1Gi"
    assert parse_quantity(found.recommended.memory_limit) == 2**30


def test_points_are_moments_whatever_the_number_of_pods() -> None:
    one = ContainerSeries("web-1", "app", (60.0, 120.0), (10.0, None), (5, 6))
    two = ContainerSeries("web-2", "app", (120.0, 180.0), (30.0, 40.0), (7, None))
    cpu, memory = used((one, two), timedelta(minutes=1))
    assert (cpu.figures, cpu.points, cpu.span) == ((10.0, 30.0, 40.0), 3, timedelta(minutes=3))
    assert (sorted(memory.figures), memory.points, memory.span) == ([5, 6, 7], 2, timedelta(minutes=2))


def test_a_kill_is_remembered_with_the_limit_that_it_hit() -> None:
    def pod(limit: str, reason: str) -> Pod:
        ended = ContainerState(terminated=Terminated(exit_code=137, reason=reason))
        return Pod(
            metadata=ObjectMeta(name="web-1"),
            spec=PodSpec(containers=(Container(name="app", resources=Resources(limits={"memory": limit})),)),
            status=PodStatus(container_statuses=(ContainerStatus(name="app", last_state=ended),)),
        )

    assert oom_limits([pod("128Mi", "OOMKilled"), pod("256Mi", "OOMKilled"), pod("1Gi", "Error")]) == {
        "app": 256.0 * MEBIBYTE
    }
