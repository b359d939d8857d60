"""Label selectors and node selector terms over plain objects."""

from typing import Any

from opsapi.playground.registry import Obj

Labels = dict[str, str]


def _requirement(requirement: Obj, labels: Labels) -> bool:
    key, operator = requirement["key"], requirement["operator"]
    values: list[str] = requirement.get("values") or []
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt":
            return _compare(labels.get(key), operator, values)
    return False


def _compare(text: str | None, operator: str, values: list[str]) -> bool:
    try:
        left, right = int(text or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def matches(selector: Obj | None, labels: Labels | None) -> bool:
    """metav1.LabelSelector: an absent selector matches nothing, an empty one everything."""
    if selector is None:
        return False
    labels = labels or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_requirement(item, labels) for item in selector.get("matchExpressions") or [])


def matches_map(selector: Labels | None, labels: Labels | None) -> bool:
    """A Service's selector: an empty one matches nothing."""
    if not selector:
        return False
    labels = labels or {}
    return all(labels.get(key) == value for key, value in selector.items())


def matches_node_terms(terms: list[Obj], node: Obj) -> bool:
    """nodeSelectorTerms: any term whose expressions and fields all hold; a term with neither matches nothing."""
    labels: Labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    for term in terms:
        expressions: list[Any] = term.get("matchExpressions") or []
        by_field: list[Any] = term.get("matchFields") or []
        if not expressions and not by_field:
            continue
        if all(_requirement(item, labels) for item in expressions) and all(
            _requirement(item, fields) for item in by_field
        ):
            return True
    return False


def tolerates(tolerations: list[Obj], taint: Obj) -> Obj | None:
    """The first toleration that covers the taint; None where the pod does not tolerate it."""
    for toleration in tolerations:
        if toleration.get("effect") and toleration["effect"] != taint["effect"]:
            continue
        key = toleration.get("key")
        if key and key != taint["key"]:
            continue
        if toleration.get("operator", "Equal") == "Exists":
            return toleration
        if key and toleration.get("value", "") == taint.get("value", ""):
            return toleration
    return None
