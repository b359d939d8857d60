from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.machinery import patches, schema, strategic
from opsapi.playground.registry import ApiError

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=2), JSON, max_size=4)
DEPLOYMENT = schema.structs()["apps/v1.Deployment"]


def without_nulls(value: Any) -> Any:
    return (
        {key: without_nulls(one) for key, one in value.items() if one is not None} if isinstance(value, dict) else value
    )


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_applied_twice_is_applied_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = patches.merge(target, patch)
    assert patches.merge(once, patch) == once


@given(OBJECTS)
def test_a_document_merged_into_nothing_is_itself_without_nulls(patch: dict[str, Any]) -> None:
    assert patches.merge({}, patch) == without_nulls(patch)


@given(OBJECTS, st.text("abc", max_size=2), JSON)
def test_an_added_member_can_be_read_and_removed_again(target: dict[str, Any], name: str, value: Any) -> None:
    added = patches.json_patch(target, [{"op": "add", "path": f"/{name}", "value": value}])
    assert added[name] == value
    assert patches.json_patch(added, [{"op": "test", "path": f"/{name}", "value": value}]) == added
    removed = patches.json_patch(added, [{"op": "remove", "path": f"/{name}"}])
    assert removed == {key: one for key, one in target.items() if key != name}


@given(JSON, JSON)
def test_whatever_is_sent_as_a_json_patch_fails_with_a_status_or_works(target: Any, patch: Any) -> None:
    code = 200
    try:
        patches.json_patch(target, patch)
    except ApiError as error:
        code = error.code
    assert code in (200, 400, 422)


def test_patching_leaves_the_original_alone() -> None:
    target = {"a": {"b": [1, 2, 3]}}
    made = patches.json_patch(
        target,
        [
            {"op": "replace", "path": "/a/b/1", "value": 9},
            {"op": "add", "path": "/a/b/-", "value": 4},
            {"op": "move", "from": "/a/b/0", "path": "/first"},
            {"op": "copy", "from": "/first", "path": "/a/copy"},
        ],
    )
    assert made == {"a": {"b": [9, 3, 4], "copy": 1}, "first": 1}
    assert target == {"a": {"b": [1, 2, 3]}}


@pytest.mark.parametrize("path", ["/a/b/3", "/a/b/01", "/a/b/x", "/nosuch/x", "no-slash", "/a/b/-1"])
def test_a_path_that_leads_nowhere_is_rejected(path: str) -> None:
    with pytest.raises(ApiError) as raised:
        patches.json_patch({"a": {"b": [1, 2, 3]}}, [{"op": "replace", "path": path, "value": 1}])
    assert raised.value.code == 422


def deployment(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def patched(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return strategic.apply(DEPLOYMENT, target, patch)


def containers_of(value: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = value["spec"]["template"]["spec"]["containers"]
    return found


def test_containers_merge_by_name_and_environments_too() -> None:
    target = deployment({"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y"})
    made = patched(target, deployment({"name": "a", "image": "z", "env": [{"name": "F", "value": "2"}]}))
    assert containers_of(made)[0]["image"] == "z"
    assert [one["name"] for one in containers_of(made)[0]["env"]] == ["F", "E"]
    assert containers_of(made)[1] == {"name": "b", "image": "y"}


def test_patch_delete_removes_an_item_and_patch_replace_the_rest() -> None:
    target = deployment({"name": "a"}, {"name": "b"})
    made = patched(target, deployment({"name": "a", "$patch": "delete"}))
    assert containers_of(made) == [{"name": "b"}]
    made = patched(target, deployment({"$patch": "replace"}, {"name": "c"}))
    assert containers_of(made) == [{"name": "c"}]


def test_set_element_order_decides_where_items_stand() -> None:
    target = deployment({"name": "a"}, {"name": "b"})
    order = [{"name": "c"}, {"name": "b"}, {"name": "a"}]
    patch = {"spec": {"template": {"spec": {"$setElementOrder/containers": order, "containers": [{"name": "c"}]}}}}
    assert [one["name"] for one in containers_of(patched(target, patch))] == ["c", "b", "a"]


def test_retain_keys_clears_what_it_does_not_name() -> None:
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    made = patched(target, {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})
    assert made["spec"]["strategy"] == {"type": "Recreate"}


def test_primitive_lists_lose_what_the_patch_deletes() -> None:
    target = {"metadata": {"finalizers": ["a", "b", "c"]}}
    made = patched(target, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}})
    assert sorted(made["metadata"]["finalizers"]) == ["a", "c", "d"]


def test_lists_without_a_merge_strategy_are_replaced() -> None:
    target = deployment({"name": "a", "args": ["x", "y"]})
    assert containers_of(patched(target, deployment({"name": "a", "args": ["z"]})))[0]["args"] == ["z"]


def test_an_item_without_its_merge_key_is_refused() -> None:
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        patched(deployment({"name": "a"}), deployment({"image": "x"}))


@given(OBJECTS, OBJECTS)
def test_without_schema_and_directives_it_is_a_merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> None:
    assert strategic.apply(None, target, without_nulls(patch)) == patches.merge(target, without_nulls(patch))
