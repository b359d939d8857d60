"""Which objects a backup or a restore is about: namespaces, resources, labels, and what belongs to what was found."""

from dataclasses import dataclass

from opsapi.playground.kinds import Kind, KindTable
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.registry import Obj
from opsapi.playground.selection import matches
from opsapi.playground.velero.storage import Item

_EXCLUDE = "velero.io/exclude-from-backup"
_OLD_LISTS = ("includedResources", "excludedResources")
_NEW_LISTS = (
    "includedClusterScopedResources",
    "excludedClusterScopedResources",
    "includedNamespaceScopedResources",
    "excludedNamespaceScopedResources",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """An include list and an exclude list; an empty include list means everything."""

    included: frozenset[str]
    excluded: frozenset[str]

    @property
    def everything(self) -> bool:
        return (not self.included or "*" in self.included) and not self.excluded

    def takes(self, name: str) -> bool:
        if name in self.excluded or "*" in self.excluded:
            return False
        return not self.included or "*" in self.included or name in self.included


def problems_of(spec: Obj) -> list[str]:
    """What Velero's validation says about the lists of a backup's or restore's spec."""
    found: list[str] = []
    for what in ("Resources", "Namespaces"):
        named = what.lower().removesuffix("s")
        included, excluded = spec.get(f"included{what}") or [], spec.get(f"excluded{what}") or []
        head = f"Invalid included/excluded {named} lists: "
        if "*" in included and len(included) > 1:
            found.append(head + "includes list must either contain '*' only, or a non-empty list of items")
        if "*" in excluded:
            found.append(head + "excludes list cannot contain '*'")
        for name in excluded:
            if name != "*" and name in included:
                found.append(head + f"excludes list cannot contain an item in the includes list: {name}")
    return found


def mixes_filters(spec: Obj) -> bool:
    """Whether the old resource lists are used together with those by scope."""
    old = any(spec.get(name) for name in _OLD_LISTS) or spec.get("includeClusterResources") is not None
    return old and any(spec.get(name) for name in _NEW_LISTS)


class Filter:
    """A spec's lists against the kinds that the cluster serves."""

    def __init__(self, kinds: KindTable, spec: Obj) -> None:
        self._kinds = kinds
        self.namespaces = _choice(spec, "Namespaces")
        self._resources = self._resolved(spec, "Resources")
        self._cluster = self._resolved(spec, "ClusterScopedResources")
        self._namespaced = self._resolved(spec, "NamespaceScopedResources")
        self._by_scope = any(spec.get(name) for name in _NEW_LISTS)
        self._with_cluster: bool | None = spec.get("includeClusterResources")
        one, several = spec.get("labelSelector"), spec.get("orLabelSelectors")
        self._selectors: list[Obj] = several or ([one] if one is not None else [])

    @property
    def selects_by_label(self) -> bool:
        return bool(self._selectors)

    def _resolved(self, spec: Obj, what: str) -> Choice:
        plain = _choice(spec, what)
        return Choice(
            *(frozenset(self._resource(name) for name in names) for names in (plain.included, plain.excluded))
        )

    def _resource(self, name: str) -> str:
        """`po`, `pod`, `Pods` or `deployments.apps` -> the Registry's name; what is not served stays as it is."""
        wanted = name.lower()
        for kind in self._kinds.storage_kinds():
            known = {kind.resource, kind.plural, kind.singular, *kind.short_names}
            if wanted in known or wanted == f"{kind.singular}.{kind.group}":
                return kind.resource
        return wanted

    def takes_kind(self, kind: Kind) -> bool:
        if self._by_scope:
            if kind.namespaced:
                return self._namespaced.takes(kind.resource)
            return bool(self._cluster.included) and self._cluster.takes(kind.resource)
        if not self._resources.takes(kind.resource):
            return False
        if kind.namespaced:
            return True
        if self._with_cluster is None:
            return self.namespaces.everything
        return self._with_cluster

    def takes_related(self, resource: str) -> bool:
        """What comes along with another object is left out only where the spec says so."""
        excluded = self._resources.excluded | self._cluster.excluded
        return resource not in excluded and self._with_cluster is not False

    def takes_labels(self, labels: dict[str, str] | None) -> bool:
        return not self._selectors or any(matches(one, labels) for one in self._selectors)

    def takes(self, obj: Obj) -> bool:
        meta = obj["metadata"]
        labels = meta.get("labels") or {}
        namespace = meta.get("namespace", "")
        if namespace and not self.namespaces.takes(namespace):
            return False
        return labels.get(_EXCLUDE) != "true" and self.takes_labels(labels)


def _choice(spec: Obj, what: str) -> Choice:
    return Choice(frozenset(spec.get(f"included{what}") or ()), frozenset(spec.get(f"excluded{what}") or ()))


def collect(registry: ObjectRegistry, spec: Obj) -> tuple[Item, ...]:
    """All objects that a backup with this spec holds, ordered by resource, namespace and name."""
    chosen = Filter(registry.kinds, spec)
    found: dict[tuple[str, str, str], Item] = {}
    for kind in registry.kinds.storage_kinds():
        if kind.resource == "namespaces" or not chosen.takes_kind(kind):
            continue
        for obj in registry.iterate(kind.resource):
            if chosen.takes(obj) and "deletionTimestamp" not in obj["metadata"]:
                _add(found, kind.resource, obj)
    for item in list(found.values()):
        _add_related(registry, chosen, found, item)
    _add_namespaces(registry, chosen, found)
    return tuple(found[key] for key in sorted(found))


def _add(found: dict[tuple[str, str, str], Item], resource: str, obj: Obj | None) -> Item | None:
    if obj is None:
        return None
    meta = obj["metadata"]
    key = (resource, meta.get("namespace", ""), meta["name"])
    made = found[key] = Item(*key, obj)
    return made


def _add_related(registry: ObjectRegistry, chosen: Filter, found: dict[tuple[str, str, str], Item], item: Item) -> None:
    """A pod brings its claims, a claim its volume, a custom resource its definition."""
    claims = [item] if item.resource == "persistentvolumeclaims" else []
    if item.resource == "pods":
        for volume in item.obj["spec"].get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            claim = registry.find("persistentvolumeclaims", item.namespace, name) if name else None
            if chosen.takes_related("persistentvolumeclaims"):
                added = _add(found, "persistentvolumeclaims", claim)
                claims += [added] if added is not None else []
    for claim_item in claims:
        volume_name = claim_item.obj["spec"].get("volumeName")
        if volume_name and chosen.takes_related("persistentvolumes"):
            _add(found, "persistentvolumes", registry.find("persistentvolumes", "", volume_name))
    if registry.kind_of(item.resource).custom and chosen.takes_related(_DEFINITIONS):
        _add(found, _DEFINITIONS, registry.find(_DEFINITIONS, "", item.resource))


_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


def _add_namespaces(registry: ObjectRegistry, chosen: Filter, found: dict[tuple[str, str, str], Item]) -> None:
    """Every included namespace; with a label selector, only those in which something was found."""
    used = {item.namespace for item in found.values()}
    for obj in registry.iterate("namespaces"):
        name = obj["metadata"]["name"]
        if chosen.namespaces.takes(name) and (name in used or not chosen.selects_by_label):
            _add(found, "namespaces", obj)
