"""LabelSelectors as objects hold them (matchLabels and matchExpressions)."""

from opsapi.playground.machinery import names
from opsapi.playground.machinery.status import Cause, forbidden_field, invalid_value, not_supported, required
from opsapi.playground.registry import Obj

_OPERATORS = ["DoesNotExist", "Exists", "In", "NotIn"]


def matches(selector: Obj | None, labels: dict[str, str]) -> bool:
    """None selects nothing; an empty selector selects everything."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_requirement(one, labels) for one in selector.get("matchExpressions") or [])


def _requirement(one: Obj, labels: dict[str, str]) -> bool:
    key, operator, values = one["key"], one["operator"], one.get("values") or []
    if operator == "In":
        return bool(key in labels and labels[key] in values)
    if operator == "NotIn":
        return bool(labels.get(key) not in values)
    return bool((key in labels) == (operator == "Exists"))


def selector_text(selector: Obj | None) -> str:
    """`app=web,tier in (a,b)`: the string form, sorted by key, as Scale.status.selector has it."""
    parts: list[tuple[str, str]] = []
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        parts.append((key, f"{key}={value}"))
    for one in (selector or {}).get("matchExpressions") or []:
        key, values = one["key"], ",".join(sorted(one.get("values") or []))
        words = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append((key, words[one["operator"]]))
    return ",".join(text for _, text in sorted(parts))


def selector_causes(at: str, selector: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in (selector.get("matchLabels") or {}).items():
        causes.extend(invalid_value(f"{at}.matchLabels", key, why) for why in names.qualified(key))
        causes.extend(invalid_value(f"{at}.matchLabels", value, why) for why in names.label_value(value))
    for index, one in enumerate(selector.get("matchExpressions") or []):
        where = f"{at}.matchExpressions[{index}]"
        operator = one.get("operator")
        if operator not in _OPERATORS:
            causes.append(not_supported(f"{where}.operator", operator, _OPERATORS))
        elif operator in ("In", "NotIn") and not one.get("values"):
            why = "must be specified when `operator` is 'In' or 'NotIn'"
            causes.append(required(f"{where}.values", why))
        elif operator in ("Exists", "DoesNotExist") and one.get("values"):
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden_field(f"{where}.values", why))
        causes.extend(
            invalid_value(f"{where}.key", one.get("key", ""), why) for why in names.qualified(one.get("key", ""))
        )
    return causes
