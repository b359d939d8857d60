"""How far a memory limit is raised after an OOM kill."""

from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.quantity import whole
from opsapi.playbooks.healing.memory import Bounds, bounds_of, raised
from opsapi.playbooks.healing.model import MemoryOrder
from opsapi.workspaces.objects import Container, Resources

MI = 2**20


def container(limit: str, request: str = "") -> Container:
    requests = {"memory": request} if request else {}
    return Container(name="app", resources=Resources(limits={"memory": limit} if limit else {}, requests=requests))


@given(st.integers(1, 64 * 1024), st.integers(1, 64 * 1024))
def test_it_is_raised_by_a_quarter_or_100_mib_and_never_beyond_the_bound(limit: int, most: int) -> None:
    made = raised(container(f"{limit}Mi"), Bounds(maximum=most * MI, why="the maximum"))
    if most <= limit:
        assert isinstance(made, str)
        return
    assert isinstance(made, MemoryOrder)
    after = whole(made.limit_after)
    assert limit * MI < after <= most * MI
    assert after <= max(limit * 1.25 * MI + MI, (limit + 100) * MI)


def test_a_request_that_equals_its_limit_goes_with_it() -> None:
    made = raised(container("1Gi", "1Gi"), bounds_of("8Gi", []))
    assert made == MemoryOrder(
        container="app", limit_before="1Gi", limit_after="1280Mi", request_before="1Gi", request_after="1280Mi"
    )


def test_a_smaller_request_stays() -> None:
    made = raised(container("160Mi", "96Mi"), bounds_of("8Gi", []))
    assert made == MemoryOrder(container="app", limit_before="160Mi", limit_after="260Mi")


def test_without_a_limit_it_is_the_node_that_ran_out() -> None:
    assert "its node ran out of memory" in str(raised(container(""), bounds_of("8Gi", [])))


def test_a_limit_ranges_ratio_takes_the_request_along() -> None:
    ranges = [
        {
            "metadata": {"name": "r"},
            "spec": {"limits": [{"type": "Container", "maxLimitRequestRatio": {"memory": "2"}}]},
        }
    ]
    made = raised(container("200Mi", "100Mi"), bounds_of("8Gi", ranges))
    assert isinstance(made, MemoryOrder)
    assert (made.limit_after, made.request_after) == ("300Mi", "150Mi")
