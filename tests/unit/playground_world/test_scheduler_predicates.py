"""The scheduler's filters and its words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.scheduler.predicates import (
    Demand,
    NodeState,
    demand_of,
    reasons_against,
    unschedulable_message,
)
from opsapi.playground.selection import matches, matches_node_terms, tolerates


def node(name: str = "n1", cpu: str = "4", memory: str = "8Gi", pods: str = "110", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "disk": "ssd"}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods}},
    }


def pod(cpu: str = "100m", memory: str = "64Mi", **spec: Any) -> dict[str, Any]:
    return {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}], **spec}


def why(spec: dict[str, Any], state: NodeState) -> list[str]:
    return reasons_against(spec, demand_of(spec), state)[0]


def test_the_largest_init_container_counts_where_it_is_more_than_all_others_together() -> None:
    spec = pod("100m", "64Mi", initContainers=[{"name": "i", "resources": {"requests": {"cpu": "2"}}}])
    assert demand_of(spec) == Demand(2000, 64 << 20)


def test_a_sidecar_counts_beside_the_containers() -> None:
    sidecar = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}}
    assert demand_of(pod("100m", initContainers=[sidecar])).cpu == 150


def test_a_limit_without_a_request_is_the_request() -> None:
    spec = {"containers": [{"name": "a", "resources": {"limits": {"cpu": "250m"}}}]}
    assert demand_of(spec).cpu == 250


@pytest.mark.parametrize(
    ("spec", "target", "expected"),
    [
        (pod("5"), node(), ["Insufficient cpu"]),
        (pod("5", "9Gi"), node(), ["Insufficient cpu", "Insufficient memory"]),
        (pod(), node(pods="0"), ["Too many pods"]),
        (pod(), node(unschedulable=True), ["node(s) were unschedulable"]),
        (pod(nodeSelector={"disk": "hdd"}), node(), ["node(s) didn't match Pod's node affinity/selector"]),
        (
            pod(),
            node(taints=[{"key": "team", "value": "db", "effect": "NoSchedule"}]),
            ["node(s) had untolerated taint {team: db}"],
        ),
        (pod(), node(taints=[{"key": "team", "effect": "PreferNoSchedule"}]), []),
        (
            pod(tolerations=[{"key": "team", "operator": "Exists"}]),
            node(taints=[{"key": "team", "value": "db", "effect": "NoExecute"}]),
            [],
        ),
    ],
)
def test_each_filter_has_its_words(spec: dict[str, Any], target: dict[str, Any], expected: list[str]) -> None:
    assert why(spec, NodeState(target)) == expected


def test_host_ports_collide() -> None:
    spec = {"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}
    state = NodeState(node())
    state.add(demand_of(spec), [("TCP", 8080)])
    assert why(spec, state) == ["node(s) didn't have free ports for the requested pod ports"]


def test_the_message_counts_reasons_and_what_preemption_could_do() -> None:
    message = unschedulable_message(3, ["node(s) didn't match Pod's node affinity/selector"] * 3, 3, 0)
    assert message == (
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert unschedulable_message(0, [], 0, 0) == "no nodes available to schedule pods"


@given(st.lists(st.integers(50, 3000), max_size=40), st.integers(500, 8000))
def test_what_fits_never_exceeds_what_the_node_has(requests: list[int], capacity: int) -> None:
    state = NodeState(node(cpu=f"{capacity}m"))
    for request in requests:
        spec = pod(f"{request}m")
        if not why(spec, state):
            state.add(demand_of(spec), [])
    assert state.cpu <= capacity
    for request in requests:
        state.add(demand_of(pod(f"{request}m")), [])
        state.add(demand_of(pod(f"{request}m")), [], -1)
    assert state.cpu <= capacity


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}, True),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, False),
        ({"key": "gpu", "operator": "NotIn", "values": ["a100"]}, True),
        ({"key": "disk", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "DoesNotExist"}, True),
        ({"key": "cores", "operator": "Gt", "values": ["8"]}, True),
        ({"key": "cores", "operator": "Lt", "values": ["8"]}, False),
        ({"key": "disk", "operator": "Gt", "values": ["8"]}, False),
    ],
)
def test_selector_expressions(expression: dict[str, Any], expected: bool) -> None:
    labels = {"disk": "ssd", "cores": "16"}
    assert matches({"matchExpressions": [expression]}, labels) is expected


def test_no_selector_matches_nothing_and_an_empty_one_everything() -> None:
    assert not matches(None, {"a": "b"})
    assert matches({}, {"a": "b"})


def test_a_term_without_expressions_matches_no_node() -> None:
    assert not matches_node_terms([{}], node())


def test_an_empty_key_with_exists_tolerates_everything() -> None:
    assert tolerates([{"operator": "Exists"}], {"key": "any", "effect": "NoExecute"})
