"""What objects count against ResourceQuotas, tallied per namespace while they change."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.normal import canonical_quantity
from opsapi.playground.machinery.pod_defaults import qos_class
from opsapi.playground.machinery.status import forbidden
from opsapi.playground.registry import ChangeType, Obj
from opsapi.playground.storage.store import StoredEvent

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

Usage = dict[str, Decimal]
_ONE = Decimal(1)
_COUNTED = {
    "configmaps",
    "secrets",
    "services",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
}
_SELDOM = {"resourcequotas"}


def usage_of(kind: Kind, obj: Obj) -> Usage:
    """One object's use by quota resource name. Pods that have ended use nothing but their count/pods."""
    resource = kind.resource
    used: Usage = {f"count/{kind.group_resource}": _ONE}
    if resource in _COUNTED:
        used[resource] = _ONE
    if resource == "pods":
        if (obj.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            used |= _pod_usage(obj.get("spec") or {})
    elif resource == "services":
        used |= _service_usage(obj.get("spec") or {})
    elif resource == "persistentvolumeclaims":
        requested = ((obj["spec"].get("resources") or {}).get("requests") or {}).get("storage")
        if requested:
            used["requests.storage"] = parse_quantity(requested)
    return used


def _pod_usage(spec: Obj) -> Usage:
    used: Usage = {"pods": _ONE}
    for part in ("requests", "limits"):
        for name, amount in pod_resources(spec, part).items():
            used[f"{part}.{name}"] = amount
            if part == "requests" and name in ("cpu", "memory", "ephemeral-storage"):
                used[name] = amount
    return used


def pod_resources(spec: Obj, part: str) -> Usage:
    """A pod's requests or limits: its containers' sum, or its largest init container where that is more."""
    total: Usage = {}
    for one in spec.get("containers") or []:
        for name, text in ((one.get("resources") or {}).get(part) or {}).items():
            total[name] = total.get(name, Decimal(0)) + parse_quantity(text)
    for one in spec.get("initContainers") or []:
        for name, text in ((one.get("resources") or {}).get(part) or {}).items():
            total[name] = max(total.get(name, Decimal(0)), parse_quantity(text))
    return total


def _service_usage(spec: Obj) -> Usage:
    ports = sum(1 for port in spec.get("ports") or [] if port.get("nodePort"))
    used: Usage = {"services.nodeports": Decimal(ports)} if ports else {}
    if spec.get("type") == "LoadBalancer":
        used["services.loadbalancers"] = _ONE
    return used


def in_scope(quota: Obj, kind: Kind, obj: Obj) -> bool:
    """Whether a quota's scopes take in the object; quotas without scopes take in everything."""
    spec = quota.get("spec") or {}
    scopes = list(spec.get("scopes") or [])
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if not scopes and not expressions:
        return True
    if kind.resource != "pods":
        return False
    return all(_scope(name, obj) for name in scopes) and all(_expression(one, obj) for one in expressions)


def _scope(name: str, pod: Obj) -> bool:
    spec = pod.get("spec") or {}
    checks: dict[str, Callable[[], bool]] = {
        "BestEffort": lambda: qos_class(spec) == "BestEffort",
        "NotBestEffort": lambda: qos_class(spec) != "BestEffort",
        "Terminating": lambda: spec.get("activeDeadlineSeconds") is not None,
        "NotTerminating": lambda: spec.get("activeDeadlineSeconds") is None,
    }
    check = checks.get(name)
    return check is not None and check()


def _expression(one: Obj, pod: Obj) -> bool:
    if one.get("scopeName") != "PriorityClass":
        return _scope(one.get("scopeName", ""), pod)
    name = (pod.get("spec") or {}).get("priorityClassName", "")
    values = one.get("values") or []
    operators = {
        "In": name in values,
        "NotIn": name not in values,
        "Exists": bool(name),
        "DoesNotExist": not name,
    }
    return operators.get(one.get("operator", ""), False)


class QuotaUsage:
    """Live tallies. A namespace is counted when first asked for and kept up to date from then on."""

    def __init__(self, registry: "ObjectRegistry") -> None:
        self._registry = registry
        self._tallies: dict[str, dict[str, Counter[str]]] = {}
        registry.store.listen("*", self._follow)

    def used(self, quota: Obj) -> Usage:
        """What the quota's namespace uses of each resource in its spec.hard."""
        namespace = quota["metadata"]["namespace"]
        hard = (quota.get("spec") or {}).get("hard") or {}
        if (quota.get("spec") or {}).get("scopes") or (quota.get("spec") or {}).get("scopeSelector"):
            return self._scan(quota, namespace, hard)
        totals = self._totals(namespace)
        return {name: Decimal(totals.get(name, 0)) for name in hard}

    def _scan(self, quota: Obj, namespace: str, hard: Obj) -> Usage:
        kind = self._registry.kinds.stored("pods")
        used = dict.fromkeys(hard, Decimal(0))
        for pod in self._registry.iterate("pods", namespace):
            if in_scope(quota, kind, pod):
                for name, amount in usage_of(kind, pod).items():
                    if name in used:
                        used[name] += amount
        return used

    def _totals(self, namespace: str) -> Usage:
        tally = self._tallies.get(namespace)
        if tally is None:
            tally = self._tallies[namespace] = {"": Counter()}
            for kind in self._registry.kinds.storage_kinds():
                if kind.namespaced:
                    for entry in self._registry.store.unordered(kind.resource, namespace):
                        _add(tally[""], usage_of(kind, entry.obj), 1)
        return dict(tally[""])  # type: ignore[arg-type]

    def _follow(self, event: StoredEvent) -> None:
        tally = self._tallies.get(event.new.key[0])
        if tally is None or not event.new.key[0]:
            return
        kind = self._registry.kinds.stored(event.resource)
        if event.old is not None:
            _add(tally[""], usage_of(kind, event.old.obj), -1)
        if event.type is not ChangeType.DELETED:
            _add(tally[""], usage_of(kind, event.new.obj), 1)


def _add(tally: Counter[str], used: Usage, sign: int) -> None:
    for name, amount in used.items():
        tally[name] += amount * sign  # type: ignore[assignment]


def quantity_text(amount: Decimal, name: str) -> str:
    """A tally as a quota's status shows it."""
    if name.endswith(("memory", "storage")) and amount and amount % 1024 == 0:
        return canonical_quantity(f"{int(amount) // 1024}Ki")
    return canonical_quantity(format(amount, "f"))


def check(registry: "ObjectRegistry", kind: Kind, obj: Obj, old: Obj | None) -> None:
    """Raises ApiError (403) when a quota of the namespace would be exceeded."""
    namespace = obj["metadata"].get("namespace", "")
    if not namespace or kind.resource in _SELDOM:
        return
    quotas = list(registry.iterate("resourcequotas", namespace))
    if not quotas:
        return
    asked = usage_of(kind, obj)
    before = {} if old is None else usage_of(kind, old)
    delta = {name: amount - before.get(name, Decimal(0)) for name, amount in asked.items()}
    for quota in quotas:
        if in_scope(quota, kind, obj):
            _check_one(registry, kind, obj, quota, delta, created=old is None)


def _check_one(registry: "ObjectRegistry", kind: Kind, obj: Obj, quota: Obj, delta: Usage, *, created: bool) -> None:
    hard = {name: parse_quantity(text) for name, text in (quota["spec"].get("hard") or {}).items()}
    name = quota["metadata"]["name"]
    if kind.resource == "pods" and created:
        missing = _unspecified(obj["spec"], hard)
        if missing:
            raise forbidden(kind, obj["metadata"]["name"], f"failed quota: {name}: must specify {missing}")
    wanted = {one: amount for one, amount in delta.items() if one in hard and amount > 0}
    if not wanted:
        return
    used = registry.quota_usage.used(quota)
    over = sorted(one for one, amount in wanted.items() if used[one] + amount > hard[one])
    if over:
        told = ", ".join(
            f"{label}: " + ",".join(f"{one}={quantity_text(values[one], one)}" for one in over)
            for label, values in (("requested", wanted), ("used", used), ("limited", hard))
        )
        raise forbidden(kind, obj["metadata"]["name"], f"exceeded quota: {name}, {told}")


def _unspecified(spec: Obj, hard: Usage) -> str:
    """`limits.cpu for: web; limits.memory for: web,side`: containers that leave out what the quota counts."""
    missing: dict[str, list[str]] = {}
    for name in sorted(hard):
        part, _, resource = name.rpartition(".")
        part = part or "requests"
        if part not in ("requests", "limits") or resource not in ("cpu", "memory"):
            continue
        for one in spec.get("containers") or []:
            if resource not in ((one.get("resources") or {}).get(part) or {}):
                missing.setdefault(name, []).append(one["name"])
    return "; ".join(f"{name} for: {','.join(who)}" for name, who in missing.items())
