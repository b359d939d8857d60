"""An in-memory API server's objects: the Objects port over JSON that a test sets up.

It keeps what a real one insists on: uids, resourceVersions, generations, finalizers, disruption budgets; and counts
what was written through it. With an inventory, whatever changes here is seen there.
"""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.objects import KINDS, LabelSelector
from opsapi.workspaces.writing import (
    EvictionBlocked,
    JsonObject,
    ObjectKey,
    OutcomeUnknown,
    Resource,
    TargetGone,
    WriteConflict,
    WriteRefused,
)
from support.inventory import FakeInventory

START = datetime(2024, 1, 20, 12, 0, tzinfo=UTC)
PODS = Resource("", "v1", "pods", "Pod")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
_KINDS = {(kind.group, kind.resource): kind for kind in KINDS}
Place = tuple[Resource, str, str]


class Write(msgspec.Struct, frozen=True):
    """One write that took effect. `target` is `plural.group/namespace/name`."""

    verb: str
    target: str
    body: JsonObject = {}


class FakeObjects:
    """`away` and `lost` (a write is done, its answer never comes) are switches; `refuse` maps a verb to Kubernetes'
    reason word; `before` and `after` are called with (verb, target) around every write that is no dry run; `evicted`
    with each pod that went, for a test to play its controller."""

    def __init__(self, inventory: FakeInventory | None = None, workspace_id: str = "ws-123") -> None:
        self.inventory = inventory
        self.workspace_id = workspace_id
        self.held: dict[Place, JsonObject] = {}
        self.unserved: set[str] = set()
        self.writes: list[Write] = []
        self.dry_runs: list[Write] = []
        self.away = False
        self.lost = False
        self.refuse: dict[str, str] = {}
        self.before: Callable[[str, str], None] = lambda _verb, _target: None
        self.after: Callable[[str, str], None] = lambda _verb, _target: None
        self.evicted: Callable[[JsonObject], None] = lambda _pod: None
        self.at = START
        self._version = 100

    # what anybody else does

    def put(self, resource: Resource, body: JsonObject) -> JsonObject:
        """Creates or replaces; uid, version and generation are kept or made."""
        body = copy.deepcopy(body)
        meta = body.setdefault("metadata", {})
        place = (resource, meta.get("namespace", ""), meta["name"])
        old = self.held.get(place, {})
        named = {"apiVersion": resource.api_version, "kind": resource.kind}
        body = named | body
        kept = old.get("metadata", {})
        meta.setdefault("uid", kept.get("uid") or f"uid-{meta.get('namespace', '')}-{meta['name']}-{self._next()}")
        meta.setdefault("creationTimestamp", kept.get("creationTimestamp") or _text(self.at))
        changed = old.get("spec") != body.get("spec")
        generation = kept.get("generation", 0) + (1 if changed else 0)
        meta["generation"] = meta.get("generation") or max(1, generation)
        return self._keep(place, body)

    def merge(self, resource: Resource, namespace: str, name: str, changes: JsonObject) -> JsonObject:
        """As somebody else's patch would."""
        return self._written((resource, namespace, name), changes, "", strategic=False)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        self._drop((resource, namespace, name))

    def find(self, resource: Resource, namespace: str, name: str) -> JsonObject | None:
        held = self.held.get((resource, namespace, name))
        return None if held is None else copy.deepcopy(held)

    def targets(self, verb: str) -> list[str]:
        """What was written by a verb, in order."""
        return [write.target for write in self.writes if write.verb == verb]

    # the port

    async def served(self, workspace_id: str, resource: Resource) -> bool:
        self._answer()
        return str(resource) not in self.unserved

    async def get(self, key: ObjectKey, subresource: str = "") -> JsonObject:
        self._answer()
        held = self.held.get(_place(key))
        if held is None:
            raise TargetGone(f"{key} not found")
        if key.uid and held["metadata"]["uid"] != key.uid:
            raise WriteConflict(f"{key} was replaced by a namesake")
        return copy.deepcopy(held)

    async def list(
        self, workspace_id: str, resource: Resource, namespace: str = "", *, selector: str = ""
    ) -> list[JsonObject]:
        self._answer()
        if "list" in self.refuse:
            raise WriteRefused(self.refuse["list"], f"{resource} is forbidden", 403)
        if str(resource) in self.unserved:
            raise TargetGone("the server could not find the requested resource")
        found = [
            held
            for (kind, held_in, _), held in sorted(self.held.items(), key=lambda one: one[0][1:])
            if kind == resource and namespace in ("", held_in) and _selected(selector, held)
        ]
        return copy.deepcopy(found)

    async def create(
        self, workspace_id: str, resource: Resource, body: JsonObject, *, dry_run: bool = False
    ) -> JsonObject:
        meta = body["metadata"]
        place = (resource, meta.get("namespace", ""), meta["name"])
        self._begin("create", place, dry_run)
        if place in self.held:
            raise WriteConflict(f"{resource} {meta['name']} already exists")
        fresh = copy.deepcopy(body)
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp"):
            fresh["metadata"].pop(field, None)
        if dry_run:
            self.dry_runs.append(Write("create", _target(place), fresh))
            return fresh
        written = self.put(resource, fresh)
        self._done("create", place, fresh)
        return copy.deepcopy(written)

    async def patch(
        self,
        key: ObjectKey,
        changes: JsonObject,
        *,
        resource_version: str,
        subresource: str = "",
        strategic: bool = False,
        dry_run: bool = False,
    ) -> JsonObject:
        place = _place(key)
        self._begin("patch", place, dry_run)
        held = self._guard(key, resource_version)
        if dry_run:
            self.dry_runs.append(Write("patch", _target(place), changes))
            tried: JsonObject = _patched(held, changes, strategic)
            return tried
        written = self._written(place, changes, subresource, strategic=strategic)
        self._done("patch", place, changes)
        return copy.deepcopy(written)

    async def delete(
        self,
        key: ObjectKey,
        *,
        resource_version: str = "",
        propagation: str = "Background",
        dry_run: bool = False,
    ) -> None:
        place = _place(key)
        self._begin("delete", place, dry_run)
        self._guard(key, resource_version)
        if dry_run:
            self.dry_runs.append(Write("delete", _target(place)))
            return
        self._drop(place, propagation)
        self._done("delete", place, {"propagationPolicy": propagation})

    async def evict(self, key: ObjectKey, *, dry_run: bool = False) -> None:
        place = _place(key)
        self._begin("evict", place, dry_run)
        pod = self._guard(key, "")
        if self._budget_forbids(pod):
            raise EvictionBlocked("Cannot evict pod as it would violate the pod's disruption budget.")
        if dry_run:
            self.dry_runs.append(Write("evict", _target(place)))
            return
        self._drop(place)
        self.evicted(copy.deepcopy(pod))
        self._done("evict", place, {})

    # how it is kept

    def _begin(self, verb: str, place: Place, dry_run: bool) -> None:
        if not dry_run:
            self.before(verb, _target(place))
        self._answer()
        if verb in self.refuse:
            raise WriteRefused(self.refuse[verb], "admission webhook denied the request", 403)

    def _done(self, verb: str, place: Place, body: JsonObject) -> None:
        self.writes.append(Write(verb, _target(place), copy.deepcopy(body)))
        self.after(verb, _target(place))
        if self.lost:
            raise OutcomeUnknown("kubernetes_api", "a write was sent, but no answer came", workspace_id="ws-123")

    def _answer(self) -> None:
        if self.away:
            raise DependencyUnavailable("kubernetes_api", "connection refused", workspace_id=self.workspace_id)

    def _guard(self, key: ObjectKey, resource_version: str) -> JsonObject:
        held = self.held.get(_place(key))
        if held is None:
            raise TargetGone(f"{key} not found")
        meta = held["metadata"]
        if (key.uid and meta["uid"] != key.uid) or resource_version not in ("", meta["resourceVersion"]):
            raise WriteConflict(f"{key} was changed or replaced")
        return held

    def _written(self, place: Place, changes: JsonObject, subresource: str, *, strategic: bool) -> JsonObject:
        held = self.held[place]
        body = _patched(held, {k: v for k, v in changes.items() if k != "metadata"}, strategic)
        given = {k: v for k, v in changes.get("metadata", {}).items() if k not in ("uid", "resourceVersion")}
        body["metadata"] = _patched(held["metadata"], given, strategic=False)
        if subresource != "status" and body.get("spec") != held.get("spec"):
            body["metadata"]["generation"] = held["metadata"].get("generation", 1) + 1
        return self._keep(place, body)

    def _drop(self, place: Place, propagation: str = "Background") -> None:
        held = self.held[place]
        if held["metadata"].get("finalizers"):
            held["metadata"]["deletionTimestamp"] = _text(self.at)
            self._keep(place, held)
            return
        del self.held[place]
        kind = _KINDS.get((place[0].group, place[0].plural))
        if self.inventory is not None and kind is not None:
            self.inventory.remove(kind, place[1], place[2])
        if propagation != "Orphan":
            self._collect(held["metadata"]["uid"])

    def _collect(self, uid: str) -> None:
        """Garbage collection of what the dropped object owned."""
        for place, held in list(self.held.items()):
            owners = held["metadata"].get("ownerReferences") or []
            if place in self.held and any(owner.get("uid") == uid for owner in owners):
                self._drop(place)

    def _keep(self, place: Place, body: JsonObject) -> JsonObject:
        body["metadata"]["resourceVersion"] = self._next()
        self.held[place] = body
        kind = _KINDS.get((place[0].group, place[0].plural))
        if self.inventory is not None and kind is not None:
            self.inventory.put(kind, msgspec.json.decode(msgspec.json.encode(body), type=kind.struct))
        return body

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    def _budget_forbids(self, pod: JsonObject) -> bool:
        """As the eviction API judges a ready pod; one that is not ready may go where the budget's wish is met."""
        labels = pod["metadata"].get("labels") or {}
        for (resource, namespace, _), budget in self.held.items():
            if resource != BUDGETS or namespace != pod["metadata"].get("namespace"):
                continue
            spec, status = budget.get("spec") or {}, budget.get("status") or {}
            if not msgspec.convert(spec.get("selector") or {}, LabelSelector).matches(labels):
                continue
            wanted, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
            if not _is_ready(pod) and 0 < wanted <= healthy:
                continue
            return int(status.get("disruptionsAllowed", 0)) <= 0
        return False


def _place(key: ObjectKey) -> Place:
    return (key.resource, key.namespace, key.name)


def _target(place: Place) -> str:
    return str(ObjectKey("", *place))


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _is_ready(pod: JsonObject) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _selected(selector: str, held: JsonObject) -> bool:
    """Equality and existence alone: all that the product asks."""
    labels = held["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        if (labels.get(key) != value.lstrip("=")) if equals else (key not in labels):
            return False
    return True


def _patched(held: Any, changes: Any, strategic: bool) -> Any:
    """RFC 7396; a strategic patch merges lists of named things by their names."""
    if not isinstance(changes, dict):
        if strategic and isinstance(changes, list) and isinstance(held, list) and changes and _all_named(changes):
            return _merged_by_name(held, changes)
        return copy.deepcopy(changes)
    result = dict(held) if isinstance(held, dict) else {}
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif key == "$patch":
            continue
        else:
            replaced = strategic and isinstance(value, dict) and value.get("$patch") == "replace"
            result[key] = _patched({} if replaced else result.get(key), value, strategic)
    return copy.deepcopy(result)


def _all_named(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and "name" in item for item in items)


def _merged_by_name(held: list[Any], changes: list[Any]) -> list[Any]:
    given = {change["name"]: change for change in changes}
    merged = [_patched(item, given.pop(item.get("name"), {}), True) for item in held]
    return [*merged, *given.values()]
