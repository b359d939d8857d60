from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.machinery import managed, schema
from opsapi.playground.machinery.apply import Applied, apply, field_path
from opsapi.playground.machinery.managed import Writer, difference, intersection, members, union
from opsapi.playground.registry import ApiError

KEYS = st.sampled_from(["f:a", "f:b", "f:c"])
DEPLOYMENT = schema.structs()["apps/v1.Deployment"]


@st.composite
def sets(draw: st.DrawFn) -> dict[str, Any]:
    """A set of up to six fields, as FieldsV1 writes it."""
    root: dict[str, Any] = {}
    for path in draw(st.lists(st.lists(KEYS, min_size=1, max_size=3), max_size=6)):
        made: dict[str, Any] = {}
        for key in reversed(path):
            made = {key: made}
        root = union(root, made)
    return root


def as_paths(fields: dict[str, Any]) -> set[tuple[str, ...]]:
    return set(members(fields))


@given(sets(), sets())
def test_sets_of_fields_are_sets(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert as_paths(union(left, right)) == as_paths(left) | as_paths(right)
    assert as_paths(difference(left, right)) == as_paths(left) - as_paths(right)
    assert as_paths(intersection(left, right)) == as_paths(left) & as_paths(right)


def writer(name: str) -> Writer:
    return Writer(name, "apps/v1", "2024-01-20T15:30:00Z")


def config(**spec: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": spec}


def applied(before: Applied | None, sent: dict[str, Any], who: str, *, force: bool = False) -> Applied:
    live = None if before is None else managed.with_entries(before.obj, before.entries)
    return apply(DEPLOYMENT, live, sent, writer(who), force=force)


def test_two_appliers_share_a_field_that_they_agree_on() -> None:
    first = applied(None, config(replicas=2), "one")
    second = applied(first, config(replicas=2), "two")
    assert {entry["manager"] for entry in second.entries} == {"one", "two"}
    third = applied(second, config(paused=True), "two")
    assert third.obj["spec"] == {"replicas": 2, "paused": True}


def test_a_conflict_names_the_owner_and_the_field_and_force_takes_it() -> None:
    first = applied(None, config(replicas=2), "one")
    with pytest.raises(ApiError) as raised:
        applied(first, config(replicas=3), "two")
    assert raised.value.status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".spec.replicas"}
    ]
    forced = applied(first, config(replicas=3), "two", force=True)
    assert [entry["manager"] for entry in forced.entries] == ["two"]


def test_what_an_applier_no_longer_lists_goes_unless_another_owns_it() -> None:
    both = config(replicas=2, paused=True, minReadySeconds=5)
    first = applied(None, both, "one")
    second = applied(first, config(replicas=2), "two")
    third = applied(second, config(paused=True), "one")
    assert third.obj["spec"] == {"replicas": 2, "paused": True}


def test_containers_are_owned_by_name_and_leave_with_their_owner() -> None:
    def pods(*containers: dict[str, Any]) -> dict[str, Any]:
        return config(template={"spec": {"containers": list(containers)}})

    first = applied(None, pods({"name": "a", "image": "x"}, {"name": "b", "image": "y"}), "one")
    second = applied(first, pods({"name": "c", "image": "z"}), "two")
    assert [one["name"] for one in second.obj["spec"]["template"]["spec"]["containers"]] == ["a", "b", "c"]
    third = applied(second, pods({"name": "a", "image": "x"}), "one")
    assert [one["name"] for one in third.obj["spec"]["template"]["spec"]["containers"]] == ["a", "c"]


def test_field_paths_read_as_the_api_server_writes_them() -> None:
    path = ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"a"}', "f:image")
    assert field_path(path) == '.spec.template.spec.containers[name="a"].image'
    assert field_path(("f:metadata", "f:finalizers", 'v:"x"')) == '.metadata.finalizers[="x"]'
