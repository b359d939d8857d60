"""Restores: from a stored backup, object by object, into the cluster. After pkg/controller/restore_controller.go."""

from dataclasses import dataclass, field

from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.velero import restoring, volumes
from opsapi.playground.velero.modifiers import ModifierError, modified, rules_of
from opsapi.playground.velero.selection import Filter, problems_of
from opsapi.playground.velero.server import FINALIZE, ITEMS_A_SECOND, POLL, Server
from opsapi.playground.velero.storage import BACKUPS, NAMESPACE, RESTORES, SCHEDULE_NAME, Item, StoredBackup, with_spec

_POLICIES = ("", "none", "update")
_BOTH_SELECTORS = "encountered labelSelector as well as orLabelSelectors in restore spec, only one can be specified"


@dataclass(slots=True)
class _Run:
    stored: StoredBackup
    items: list[Item]
    done: int = 0
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    finalizing: float = 0.0
    modifiers: list[Obj] = field(default_factory=list)


class RestoreController(ObjectController):
    name = "velero-restores"
    resource = RESTORES
    kind = "Restore"
    component = "velero"

    def __init__(self, server: Server) -> None:
        super().__init__(server.cluster)
        self._server = server
        self._runs: dict[str, _Run] = {}

    def sync(self, namespace: str, name: str) -> None:
        restore = self.registry.find(RESTORES, namespace, name)
        if restore is None or namespace != NAMESPACE:
            return
        restore = with_spec(restore)
        if self._server.faults.velero_down():
            self.queue.add_after(f"{namespace}/{name}", POLL)
            return
        phase = (restore.get("status") or {}).get("phase", "")
        run = self._runs.get(restore["metadata"]["uid"])
        if phase in ("", "New"):
            self._begin(restore)
        elif phase == "InProgress" and run is not None:
            self._go_on(restore, run)
        elif phase.startswith("Finalizing") and run is not None:
            self._finalize(restore, run)
        elif phase == "InProgress" or phase.startswith("Finalizing"):
            why = f"found a restore with status {phase!r} during the server starting"
            self._end(restore, "Failed", failureReason=why)

    # The beginning

    def _begin(self, restore: Obj) -> None:
        restore, problems = self._with_backup(restore)
        problems += self._problems(restore["spec"])
        modifiers: list[Obj] = []
        try:
            modifiers = rules_of(self.registry, restore["spec"])
        except ModifierError as error:
            problems.append(str(error))
        stored = self._server.storage.get(restore["spec"].get("backupName") or "")
        if not problems:
            problems = self._about_storage(restore["spec"], stored)
        if problems or stored is None:
            self._server.write(RESTORES, restore, {"phase": "FailedValidation", "validationErrors": problems})
            return
        if self._server.faults.backup_storage_away(stored.location):
            why = f"error downloading backup from location {stored.location}: RequestError: send request failed"
            started = {"startTimestamp": self.cluster.stamp()}
            self._end({**restore, "status": started}, "Failed", failureReason=why)
            return
        run = _Run(stored, self._chosen(restore["spec"], stored), modifiers=modifiers)
        self._runs[restore["metadata"]["uid"]] = run
        if not run.items:
            run.warnings.append("zero items to be restored")
        progress = {"totalItems": len(run.items)}
        status = {"phase": "InProgress", "startTimestamp": self.cluster.stamp(), "progress": progress}
        self._server.write(RESTORES, restore, status)

    def _with_backup(self, restore: Obj) -> tuple[Obj, list[str]]:
        """With the latest finished backup of the schedule that it names."""
        spec = restore["spec"]
        schedule = spec.get("scheduleName")
        if bool(spec.get("backupName")) == bool(schedule):
            return restore, ["Either a backup or schedule must be specified as a source for the restore, but not both"]
        if not schedule:
            return restore, []
        made = [
            one
            for one in self.registry.iterate(BACKUPS, NAMESPACE)
            if (one["metadata"].get("labels") or {}).get(SCHEDULE_NAME) == schedule
        ]
        if not made:
            return restore, ["No backups found for schedule"]
        good = [one for one in made if (one.get("status") or {}).get("phase") in ("Completed", "PartiallyFailed")]
        if not good:
            return restore, ["No completed backups found for schedule"]
        latest = max(good, key=lambda one: str(one["status"]["startTimestamp"]))["metadata"]["name"]
        changed = {**restore, "spec": {**spec, "backupName": latest}}
        return self._server.update(RESTORES, changed), []

    @staticmethod
    def _problems(spec: Obj) -> list[str]:
        found = problems_of(spec)
        never = [name for name in spec.get("includedResources") or [] if name in restoring.NEVER]
        found = [f"{name} are non-restorable resources" for name in never] + found
        if spec.get("labelSelector") is not None and spec.get("orLabelSelectors"):
            found.append(_BOTH_SELECTORS)
        policy = spec.get("existingResourcePolicy") or ""
        if policy not in _POLICIES:
            found.append(f"Invalid ExistingResourcePolicy: {policy}")
        return found

    def _about_storage(self, spec: Obj, stored: StoredBackup | None) -> list[str]:
        name = spec.get("backupName") or ""
        if stored is None or self.registry.find(BACKUPS, NAMESPACE, name) is None:
            return [f'Error retrieving backup: can\'t find backup velero/{name}: backups.velero.io "{name}" not found']
        if not self._server.is_available(stored.location):
            return [f"The BSL {stored.location} is unavailable, cannot retrieve the backup"]
        return []

    def _chosen(self, spec: Obj, stored: StoredBackup) -> list[Item]:
        kinds = self._server.objects.kinds
        chosen = Filter(kinds, spec)
        found = []
        for item in stored.items:
            if item.resource in restoring.NEVER or item.resource in restoring.LEFT_TO_CONTROLLERS:
                continue
            if not kinds.knows(item.resource) or restoring.is_over(item):
                continue
            # Namespaces come into being with what is restored into them.
            if (
                item.resource != "namespaces"
                and chosen.takes_kind(kinds.stored(item.resource))
                and chosen.takes(item.obj)
            ):
                found.append(item)
        return sorted(found, key=restoring.order_of)

    # Under way

    def _go_on(self, restore: Obj, run: _Run) -> None:
        key = f"{NAMESPACE}/{restore['metadata']['name']}"
        upto = min(len(run.items), run.done + int(ITEMS_A_SECOND))
        for item in run.items[run.done : upto]:
            self._restore(restore, run, item)
        run.done = upto
        status = {
            **restore["status"],
            "progress": {"totalItems": len(run.items), "itemsRestored": run.done},
            "warnings": len(run.warnings),
            "errors": len(run.errors),
        }
        if run.done == len(run.items):
            status["phase"] = "FinalizingPartiallyFailed" if run.errors else "Finalizing"
            run.finalizing = self.clock.monotonic()
        self._server.write(RESTORES, restore, status)
        self.queue.add_after(key, 1.0)

    def _finalize(self, restore: Obj, run: _Run) -> None:
        left = run.finalizing + FINALIZE - self.clock.monotonic()
        if left > 0.001:
            self.queue.add_after(f"{NAMESPACE}/{restore['metadata']['name']}", left)
            return
        name = restore["metadata"]["name"]
        self._server.storage.results[name] = {"warnings": run.warnings, "errors": run.errors}
        self._end(restore, "PartiallyFailed" if run.errors else "Completed")

    def _end(self, restore: Obj, phase: str, **more: str) -> None:
        self._runs.pop(restore["metadata"]["uid"], None)
        status = {**restore["status"], "phase": phase, "completionTimestamp": self.cluster.stamp(), **more}
        self._server.write(RESTORES, restore, status)

    # One object

    def _restore(self, restore: Obj, run: _Run, item: Item) -> None:
        mapping = restore["spec"].get("namespaceMapping") or {}
        namespace = mapping.get(item.namespace, item.namespace)
        try:
            if namespace and self._server.faults.refuses_restore(namespace):
                raise ApiError({"code": 500, "message": "Internal error occurred: the namespace takes no objects"})
            self._ensure_namespace(run, item.namespace, namespace)
            present = self.registry.find(item.resource, namespace, item.name)
            if present is not None:
                self._meet(restore, run, item, present)
            else:
                self._create(restore, run, item, namespace)
        except ApiError as error:
            place = "/".join(part for part in (item.resource, namespace, item.name) if part)
            run.errors.append(f"error restoring {place}: {error}")

    def _ensure_namespace(self, run: _Run, original: str, namespace: str) -> None:
        if not namespace or self.registry.find("namespaces", "", namespace) is not None:
            return
        kept = next((one for one in run.stored.items if one.resource == "namespaces" and one.name == original), None)
        meta: Obj = {"name": namespace}
        if kept is not None:
            held = kept.obj["metadata"]
            meta |= {part: held[part] for part in ("labels", "annotations") if part in held}
            labels = {**meta.get("labels", {}), "kubernetes.io/metadata.name": namespace}
            meta["labels"] = labels
        self._server.create("namespaces", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    def _create(self, restore: Obj, run: _Run, item: Item, namespace: str) -> None:
        made = restoring.prepared(item, namespace, restore)
        if item.resource == "persistentvolumes" and not self._keeps(run, restore, item):
            return
        if item.resource == "persistentvolumeclaims":
            made = self._claim(restore, run, item, made, namespace)
        self._server.create(item.resource, namespace, modified(run.modifiers, item.resource, item.namespace, made))

    @staticmethod
    def _keeps(run: _Run, restore: Obj, item: Item) -> bool:
        """Volumes that a snapshot or their provisioner brings back are not restored themselves."""
        ref = item.obj["spec"].get("claimRef") or {}
        if restore["spec"].get("restorePVs") is False or run.stored.snapshot_of(
            ref.get("namespace", ""), ref.get("name", "")
        ):
            return False
        return bool(item.obj["spec"].get("persistentVolumeReclaimPolicy") == "Retain")

    def _claim(self, restore: Obj, run: _Run, item: Item, claim: Obj, namespace: str) -> Obj:
        record = run.stored.snapshot_of(item.namespace, item.name)
        if record is not None and restore["spec"].get("restorePVs") is not False:
            return volumes.from_snapshot(self._server, restore, volumes.unbound(claim), namespace, record)
        volume = self.registry.find("persistentvolumes", "", claim["spec"].get("volumeName", ""))
        ref = ((volume or {}).get("spec") or {}).get("claimRef") or {}
        if (ref.get("namespace"), ref.get("name")) == (namespace, item.name):
            return claim
        return volumes.unbound(claim)

    def _meet(self, restore: Obj, run: _Run, item: Item, present: Obj) -> None:
        """An object of that name is there: the same is passed over, another is a warning or is updated."""
        wanted, held = restoring.plain(item.obj), restoring.plain(present)
        wanted["metadata"] = {**wanted["metadata"], "namespace": held["metadata"].get("namespace", "")}
        held["metadata"] = {"namespace": "", **held["metadata"]}
        policy = restore["spec"].get("existingResourcePolicy") or ""
        if wanted == held and policy != "update":
            return
        kind = item.obj["kind"]
        if policy != "update":
            where = f'{kind} "{item.name}"' if policy == "none" else f"{kind}:{item.name}"
            why = "already exists. Warning: the in-cluster version is different than the backed-up version"
            run.warnings.append(f"could not restore, {where} {why}")
            return
        namespace = present["metadata"].get("namespace", "")
        made = restoring.prepared(item, namespace, restore)
        meta = {**present["metadata"], **{key: made["metadata"].get(key) for key in ("labels", "annotations")}}
        # What the cluster allocated or bound stays; Velero patches with the difference alone.
        kept = {"spec": {**(present.get("spec") or {}), **made["spec"]}} if isinstance(made.get("spec"), dict) else {}
        try:
            self._server.update(item.resource, {**present, **made, **kept, "metadata": meta})
        except ApiError as error:
            run.warnings.append(f"could not restore, {kind} {item.name!r} could not be updated: {error}")
