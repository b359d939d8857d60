"""The Registry: what every write passes on its way into the storage, whoever sends it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from opsapi.kit.clock import Clock, rfc3339
from opsapi.playground.kinds import Kind, KindTable
from opsapi.playground.machinery import (
    admission,
    allocation,
    custom,
    defaults,
    identity,
    managed,
    objects,
    pod_defaults,
    quota,
    services,
    status,
    strategy,
)
from opsapi.playground.machinery.normal import Normalizer
from opsapi.playground.machinery.validation import validate_create, validate_update
from opsapi.playground.registry import CONTROLLER_MANAGER, Change, Obj, User
from opsapi.playground.storage.store import Store, StoredEvent


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What a client may say about a write. An empty manager means: by the user's name."""

    dry_run: bool = False
    manager: str = ""
    operation: str = "Update"
    decoded: bool = False
    """The object has been through the normalizer, and nobody else holds it."""
    managed_fields: list[Obj] | None = None
    """Set by server-side apply, which works out the ownership itself."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_seconds: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


DEFAULT_WRITE = WriteOptions()


class ObjectRegistry:
    """Implements the Registry protocol and what the HTTP layer needs beyond it.

    `clock` stamps creationTimestamp and the like; `seed` makes uids, generated names and cluster IPs repeatable.
    """

    def __init__(self, clock: Clock, *, seed: int = 0, history: int = 4096, encoded_bytes: int = 256 << 20) -> None:
        self.clock = clock
        self.kinds = KindTable()
        self.store = Store(history=history, encoded_bytes=encoded_bytes)
        self.identity = identity.Identity(seed)
        self.normalizer = Normalizer(self.kinds)
        self.custom = custom.CustomResources(self)
        self.pod_specs = pod_defaults.PodSpecs(self)
        self.addresses = services.Addresses(self)
        self.quota_usage = quota.QuotaUsage(self)

    # Reads

    def get(self, resource: str, namespace: str, name: str) -> Obj:
        entry = self.store.get(resource, (namespace, name))
        if entry is None:
            raise status.not_found(self.kind_of(resource), name)
        return entry.obj

    def find(self, resource: str, namespace: str, name: str) -> Obj | None:
        entry = self.store.get(resource, (namespace, name))
        return None if entry is None else entry.obj

    def iterate(self, resource: str, namespace: str = "") -> Iterator[Obj]:
        return iter([entry.obj for entry in self.store.entries(resource, namespace)])

    def by_owner(self, owner_uid: str, resource: str) -> list[Obj]:
        return [entry.obj for entry in self.store.owned(owner_uid, resource)]

    def pods_on_node(self, node: str) -> list[Obj]:
        return [entry.obj for entry in self.store.pods_on_node(node)]

    def kind_of(self, resource: str) -> Kind:
        """The storage version. Raises ApiError (404) on a resource that this cluster does not serve."""
        if not self.kinds.knows(resource):
            raise status.no_such_resource()
        return self.kinds.stored(resource)

    def now(self) -> str:
        return rfc3339(self.clock.now())

    # Writes

    def create(
        self,
        resource: str,
        namespace: str,
        obj: Obj,
        *,
        user: User = CONTROLLER_MANAGER,
        options: WriteOptions = DEFAULT_WRITE,
    ) -> Obj:
        kind = self.kind_of(resource)
        known_spec = self.pod_specs.defaulted.get(obj.get("spec")) if resource == "pods" else None
        made = self._normalized(kind, obj, options, known_spec)
        meta = objects.fresh_metadata(made["metadata"], namespace if kind.namespaced else "", self.now())
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = self._generated_name(kind, namespace, meta["generateName"])
        made["metadata"] = meta
        name = meta.get("name", "")
        admission.admit_namespace(self, kind, namespace, name)
        strategy.prepare_create(kind, made)
        if known_spec is None:
            made = self._defaulted(kind, made, None)
            if resource == "pods" and not options.decoded:
                self.pod_specs.defaulted.put(obj["spec"], made["spec"])
        made = self._with_fields(kind, None, made, user, options, "")
        allocation.allocate(self, kind, made)
        admission.mutate_create(self, kind, made)
        objects.stamp_identity(made, self.identity.uid(), strategy.first_generation(kind))
        validate_create(self, kind, made)
        if self.store.get(resource, (namespace, name)) is not None:
            raise status.already_exists(kind, name)
        admission.check_quota(self, kind, made, None)
        if options.dry_run:
            return made
        entry = self.store.put(resource, (namespace, name), lambda version: objects.with_version(made, version))
        self._after_write(kind, entry.obj)
        return entry.obj

    def update(
        self,
        resource: str,
        namespace: str,
        name: str,
        obj: Obj,
        *,
        subresource: str = "",
        user: User = CONTROLLER_MANAGER,
        options: WriteOptions = DEFAULT_WRITE,
    ) -> Obj:
        kind = self.kind_of(resource)
        old = self.get(resource, namespace, name)
        self._check_version(kind, name, obj, old)
        made = obj if options.decoded else self.normalizer.normalize(kind, obj, old)
        meta = objects.carried_metadata(made["metadata"], old["metadata"])
        made = {**made, "metadata": meta}
        uid_sent = obj["metadata"].get("uid")
        if uid_sent and uid_sent != old["metadata"]["uid"]:
            raise status.precondition_failed(kind, name, "UID", uid_sent, old["metadata"]["uid"])
        made = strategy.prepare_update(kind, made, old, subresource)
        if subresource != "status":
            made = self._defaulted(kind, made, old)
            allocation.reallocate(self, kind, made, old)
        validate_update(self, kind, made, old, subresource)
        if subresource not in ("status", "finalize"):
            admission.check_quota(self, kind, made, old)
        return self._commit_update(kind, old, made, user, options, subresource)

    def _commit_update(
        self, kind: Kind, old: Obj, made: Obj, user: User, options: WriteOptions, subresource: str
    ) -> Obj:
        namespace, name = old["metadata"].get("namespace", ""), old["metadata"]["name"]
        if subresource not in ("status", "binding") and strategy.bumps_generation(kind, made, old):
            made["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if options.operation == "Update" and objects.same_but_for_version(made, old):
            return old
        made = self._with_fields(kind, old, made, user, options, subresource)
        if objects.same_but_for_version(made, old):
            return old
        if objects.ready_to_go(made, old):
            return made if options.dry_run else self._remove(kind, made)
        if options.dry_run:
            return made
        entry = self.store.put(kind.resource, (namespace, name), lambda version: objects.with_version(made, version))
        self._after_write(kind, entry.obj)
        return entry.obj

    def patch_status(self, resource: str, namespace: str, name: str, status: Obj) -> Obj:
        old = self.get(resource, namespace, name)
        if old.get("status") == status:
            return old
        return self.update(resource, namespace, name, {**old, "status": status}, subresource="status")

    def delete(
        self,
        resource: str,
        namespace: str,
        name: str,
        *,
        grace_seconds: int | None = None,
        propagation: str = "Background",
        uid: str = "",
        user: User = CONTROLLER_MANAGER,
    ) -> Obj:
        del user  # Deletions leave no trace of who asked for them: ownership of fields ends with the object.
        options = DeleteOptions(grace_seconds=grace_seconds, propagation=propagation, uid=uid)
        return self.delete_with(resource, namespace, name, options)[0]

    def delete_with(self, resource: str, namespace: str, name: str, options: DeleteOptions) -> tuple[Obj, bool]:
        """Deletes or begins to; the object's last state and whether it is gone at once."""
        kind = self.kind_of(resource)
        old = self.get(resource, namespace, name)
        admission.check_delete(kind, name)
        self.check_preconditions(resource, old, options)
        marked = strategy.mark_deleted(kind, old, options.grace_seconds, options.propagation, self.clock.now())
        if marked is None:
            gone = old if options.dry_run else self._remove(kind, old)
            return gone, True
        if marked is old or options.dry_run:
            return marked, False
        final = marked
        entry = self.store.put(resource, (namespace, name), lambda version: objects.with_version(final, version))
        return entry.obj, False

    def check_preconditions(self, resource: str, obj: Obj, options: DeleteOptions) -> None:
        """Raises ApiError (409) where the object is another than the one meant, or has changed since."""
        meta, kind = obj["metadata"], self.kind_of(resource)
        if options.uid and options.uid != meta["uid"]:
            raise status.precondition_failed(kind, meta["name"], "UID", options.uid, meta["uid"])
        if options.resource_version and options.resource_version != meta["resourceVersion"]:
            found = meta["resourceVersion"]
            raise status.precondition_failed(kind, meta["name"], "ResourceVersion", options.resource_version, found)

    def subscribe(self, resource: str, callback: Callable[[Change], None]) -> Callable[[], None]:
        def pass_on(event: StoredEvent) -> None:
            old = None if event.old is None else event.old.obj
            callback(Change(event.type, event.resource, event.new.obj, old))

        return self.store.listen(resource, pass_on)

    def load(self, resource: str, namespace: str, obj: Obj) -> Obj:
        """Stores a complete object as it is: a snapshot's, or one of many in a synthetic fleet. No checks."""
        kind = self.kind_of(resource)
        meta = dict(obj["metadata"])
        meta.setdefault("uid", self.identity.uid())
        meta.setdefault("creationTimestamp", self.now())
        if kind.namespaced:
            meta["namespace"] = namespace
        made = {"kind": kind.kind, "apiVersion": kind.api_version, **obj, "metadata": meta}
        key = (namespace, meta["name"])
        entry = self.store.put(resource, key, lambda version: objects.with_version(made, version))
        self._after_write(kind, entry.obj)
        return entry.obj

    # The inside of writes

    def _normalized(self, kind: Kind, obj: Obj, options: WriteOptions, known_spec: Obj | None) -> Obj:
        if options.decoded:
            return dict(obj)
        if known_spec is None:
            return self.normalizer.normalize(kind, obj)
        made = self.normalizer.normalize(kind, {"metadata": obj.get("metadata") or {}})
        return {
            "kind": made["kind"],
            "apiVersion": made["apiVersion"],
            "metadata": made["metadata"],
            "spec": known_spec,
        }

    def _defaulted(self, kind: Kind, made: Obj, old: Obj | None) -> Obj:
        if kind.custom:
            return self.custom.default(kind, made)
        if old is None or not objects.same_workload(made, old):
            defaults.apply(kind, made)
        if old is not None:
            objects.share(made, old)
        return made

    def _remove(self, kind: Kind, last: Obj) -> Obj:
        if kind.resource == custom.DEFINITIONS:
            self._remove_instances(last)
        meta = last["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        entry = self.store.remove(kind.resource, key, lambda version: objects.with_version(last, version))
        if kind.resource == custom.DEFINITIONS:
            self.custom.unregister(entry.obj)
        return last

    def _remove_instances(self, definition: Obj) -> None:
        """A definition takes its custom resources with it, finalizers or not."""
        names = definition["spec"]["names"]
        resource = f"{names['plural']}.{definition['spec']['group']}"
        for entry in self.store.entries(resource):
            self.store.remove(resource, entry.key, partial(objects.with_version, entry.obj))

    def _after_write(self, kind: Kind, obj: Obj) -> None:
        if kind.resource == custom.DEFINITIONS:
            self.custom.register(obj)

    def _with_fields(
        self, kind: Kind, old: Obj | None, new: Obj, user: User, options: WriteOptions, subresource: str
    ) -> Obj:
        if options.managed_fields is not None:
            return managed.with_entries(new, options.managed_fields)
        manager = options.manager or managed.manager_of(user)
        writer = managed.Writer(manager, kind.api_version, self.now(), subresource)
        memo = self.pod_specs.fields if old is None and kind.resource == "pods" else None
        return managed.record_update(self.normalizer.schema_of(kind), old, new, writer, memo)

    def _check_version(self, kind: Kind, name: str, obj: Obj, old: Obj) -> None:
        sent = obj["metadata"].get("resourceVersion")
        if sent and sent != old["metadata"]["resourceVersion"]:
            raise status.conflict(kind, name)

    def _generated_name(self, kind: Kind, namespace: str, prefix: str) -> str:
        while True:
            name = self.identity.name(prefix)
            if self.store.get(kind.resource, (namespace, name)) is None:
                return name
