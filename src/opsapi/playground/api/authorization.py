"""RBAC: who may do what, from the stored Roles, ClusterRoles and bindings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opsapi.playground.api.request import Target
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.machinery.status import failure
from opsapi.playground.registry import ApiError, Change, Obj, User

SUPERUSERS = "system:masters"
_ROLES = "roles.rbac.authorization.k8s.io"
_CLUSTER_ROLES = "clusterroles.rbac.authorization.k8s.io"
_ROLE_BINDINGS = "rolebindings.rbac.authorization.k8s.io"
_CLUSTER_BINDINGS = "clusterrolebindings.rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Attributes:
    """One question to RBAC."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def is_resource(self) -> bool:
        return not self.path


def attributes_of(target: Target) -> Attributes:
    if not target.is_resource:
        return Attributes(target.verb, path=target.path)
    return Attributes(target.verb, target.group, target.resource, target.subresource, target.namespace, target.name)


class Authorizer:
    """Answers from the registry's RBAC objects. Grants are cached per user until one of those objects changes."""

    def __init__(self, registry: ObjectRegistry) -> None:
        self._registry = registry
        self._rules: dict[tuple[User, str], list[Obj]] = {}
        for resource in (_ROLES, _CLUSTER_ROLES, _ROLE_BINDINGS, _CLUSTER_BINDINGS):
            registry.subscribe(resource, self._forget)

    def _forget(self, _: Change) -> None:
        self._rules.clear()

    def allows(self, user: User, attributes: Attributes) -> bool:
        if SUPERUSERS in user.groups:
            return True
        return any(covers(rule, attributes) for rule in self.rules(user, attributes.namespace))

    def rules(self, user: User, namespace: str) -> list[Obj]:
        """Every rule that the user has cluster-wide and, with a namespace, there."""
        key = (user, namespace)
        known = self._rules.get(key)
        if known is None:
            known = self._rules[key] = list(self._collect(user, namespace))
        return known

    def _collect(self, user: User, namespace: str) -> Iterator[Obj]:
        if SUPERUSERS in user.groups:
            yield {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            yield {"verbs": ["*"], "nonResourceURLs": ["*"]}
        for binding in self._registry.iterate(_CLUSTER_BINDINGS):
            if any(_is_subject(one, user, "") for one in binding.get("subjects") or []):
                yield from self._role(binding["roleRef"], "")
        if namespace:
            for binding in self._registry.iterate(_ROLE_BINDINGS, namespace):
                if any(_is_subject(one, user, namespace) for one in binding.get("subjects") or []):
                    yield from self._role(binding["roleRef"], namespace)

    def _role(self, ref: Obj, namespace: str) -> list[Obj]:
        if ref["kind"] == "ClusterRole":
            role = self._registry.find(_CLUSTER_ROLES, "", ref["name"])
        else:
            role = self._registry.find(_ROLES, namespace, ref["name"])
        rules: list[Obj] = (role or {}).get("rules") or []
        return rules


def _is_subject(subject: Obj, user: User, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name")
    if kind == "User":
        return user.name == name
    if kind == "Group":
        return name in user.groups
    if kind == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"
    return False


def covers(rule: Obj, asked: Attributes) -> bool:
    if not _any(rule.get("verbs"), asked.verb):
        return False
    if not asked.is_resource:
        return any(_url_matches(pattern, asked.path) for pattern in rule.get("nonResourceURLs") or [])
    if not _any(rule.get("apiGroups"), asked.group):
        return False
    full = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    if not any(_resource_matches(one, full, asked.subresource) for one in rule.get("resources") or []):
        return False
    names = rule.get("resourceNames") or []
    return not names or asked.name in names


def _any(allowed: list[str] | None, wanted: str) -> bool:
    return bool(allowed) and ("*" in allowed or wanted in allowed)  # type: ignore[operator]


def _resource_matches(pattern: str, full: str, subresource: str) -> bool:
    return pattern in ("*", full) or (bool(subresource) and pattern == f"*/{subresource}")


def _url_matches(pattern: str, path: str) -> bool:
    if pattern == "*" or pattern == path:
        return True
    return pattern.endswith("*") and path.startswith(pattern[:-1])


def refusal(user: User, asked: Attributes) -> ApiError:
    """The 403 that names who may not do what, and where."""
    if not asked.is_resource:
        told = f'forbidden: User "{user.name}" cannot {asked.verb} path "{asked.path}"'
        return failure(403, "Forbidden", told, {})
    full = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    what = f'User "{user.name}" cannot {asked.verb} resource "{full}" in API group "{asked.group}" {where}'
    group_resource = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    named = f' "{asked.name}"' if asked.name else ""
    details: dict[str, Any] = {}
    if asked.name:
        details["name"] = asked.name
    if asked.group:
        details["group"] = asked.group
    details["kind"] = asked.resource
    return failure(403, "Forbidden", f"{group_resource}{named} is forbidden: {what}", details)
