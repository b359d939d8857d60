"""VolumeSnapshots: bound to contents, taken by the driver, ready a moment later.

After kubernetes-csi/external-snapshotter. It acts once the three kinds are served; see manifests/snapshots.yaml.
"""

from collections.abc import Callable

from opsapi.kit.quantity import whole
from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController, stamp_of
from opsapi.playground.disks import Disks
from opsapi.playground.registry import Change, ChangeType, Obj
from opsapi.playground.snapshots.finalizers import AS_SOURCE, BOUND, CLAIM_AS_SOURCE, add_finalizers, drop_finalizers
from opsapi.playground.snapshots.objects import content_of, handle_of, moment_of, quantity_of, ready_status

SNAPSHOTS = "volumesnapshots.snapshot.storage.k8s.io"
CONTENTS = "volumesnapshotcontents.snapshot.storage.k8s.io"
CLASSES = "volumesnapshotclasses.snapshot.storage.k8s.io"
_IS_DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"
_RETRY = 15.0
_READY_SECONDS = 3.0
"""From the moment at which the driver cut the snapshot until it can be restored from."""


class _NotYet(Exception):
    """The snapshot cannot be taken; `reason` names the event, the text stands in status.error."""

    def __init__(self, reason: str, message: str, ready: bool | None = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.ready = ready


class SnapshotController(ObjectController):
    """`refuses` says whether a fault keeps the driver from cutting a snapshot of a claim (namespace, name)."""

    name = "snapshot"
    resource = SNAPSHOTS
    kind = "VolumeSnapshot"
    component = "snapshot-controller"

    def __init__(self, cluster: Cluster, disks: Disks, refuses: Callable[[str, str], bool]) -> None:
        super().__init__(cluster)
        self._disks = disks
        self._refuses = refuses
        self.registry.subscribe(CONTENTS, self._content_changed)
        self.registry.subscribe(CLASSES, self._class_added)

    def _content_changed(self, change: Change) -> None:
        if change.type is ChangeType.DELETED:
            return
        ref = change.new["spec"]["volumeSnapshotRef"]
        self.queue.add(f"{ref.get('namespace', '')}/{ref.get('name', '')}")
        if pods.is_terminating(change.new):
            self.queue.add(f"/{change.new['metadata']['name']}")

    def _class_added(self, change: Change) -> None:
        if change.type is ChangeType.ADDED:
            for snapshot in self.registry.iterate(SNAPSHOTS):
                if not (snapshot.get("status") or {}).get("readyToUse"):
                    self.enqueue(snapshot)

    def sync(self, namespace: str, name: str) -> None:
        if not namespace:
            self._let_content_go(name)
            return
        snapshot = self.registry.find(SNAPSHOTS, namespace, name)
        if snapshot is None:
            return
        if pods.is_terminating(snapshot):
            self._delete(snapshot)
            return
        try:
            snapshot = self._with_class(snapshot)
            snapshot = add_finalizers(self.registry, SNAPSHOTS, snapshot, AS_SOURCE, BOUND)
            content = self._content(snapshot)
            self._take(snapshot, content)
        except _NotYet as problem:
            self._report(snapshot, problem)
            self.queue.add_after(f"{namespace}/{name}", _RETRY)

    # Binding

    def _with_class(self, snapshot: Obj) -> Obj:
        """With its class, the driver's default where it names none; contents made by hand need none."""
        spec, meta = snapshot["spec"], snapshot["metadata"]
        if spec["source"].get("volumeSnapshotContentName"):
            return snapshot
        name = spec.get("volumeSnapshotClassName")
        if name is not None:
            if self.registry.find(CLASSES, "", name) is None:
                why = f'volumesnapshotclass.snapshot.storage.k8s.io "{name}" not found'
                raise _NotYet("GetSnapshotClassFailed", f"Failed to get snapshot class with error {why}", None)
            return snapshot
        try:
            driver = handle_of(self._volume(snapshot))[0]
            found = self._default_class(driver)
        except _NotYet as problem:
            why = f"Failed to set default snapshot class with error {problem}"
            raise _NotYet("SetDefaultSnapshotClassFailed", why, None) from problem
        changed = {**snapshot, "spec": {**spec, "volumeSnapshotClassName": found}}
        return self.registry.update(SNAPSHOTS, meta["namespace"], meta["name"], changed)

    def _default_class(self, driver: str) -> str:
        found = [
            one["metadata"]["name"]
            for one in self.registry.iterate(CLASSES)
            if one["driver"] == driver and (one["metadata"].get("annotations") or {}).get(_IS_DEFAULT) == "true"
        ]
        if not found:
            raise _NotYet("", "cannot find default snapshot class")
        if len(found) > 1:
            raise _NotYet("", f"{len(found)} default snapshot classes were found")
        return str(found[0])

    def _content(self, snapshot: Obj) -> Obj:
        """The content that it is bound to, made where it is taken from a claim."""
        given = snapshot["spec"]["source"].get("volumeSnapshotContentName")
        if given:
            return self._given_content(snapshot, given)
        name = f"snapcontent-{snapshot['metadata']['uid']}"
        found = self.registry.find(CONTENTS, "", name)
        if found is not None:
            return found
        if (snapshot.get("status") or {}).get("boundVolumeSnapshotContentName"):
            raise _NotYet("SnapshotContentMissing", "VolumeSnapshotContent is missing")
        try:
            claim = self._claim(snapshot)
            volume = self._volume(snapshot)
        except _NotYet as problem:
            text = f"Failed to create snapshot content with error {problem}"
            raise _NotYet("SnapshotContentCreationFailed", text) from problem
        add_finalizers(self.registry, "persistentvolumeclaims", claim, CLAIM_AS_SOURCE)
        found_class = self.registry.get(CLASSES, "", snapshot["spec"]["volumeSnapshotClassName"])
        made = self.registry.create(CONTENTS, "", content_of(name, snapshot, found_class, volume))
        where = f"{snapshot['metadata']['namespace']}/{snapshot['metadata']['name']}"
        text = f"Waiting for a snapshot {where} to be created by the CSI driver."
        self.normal(snapshot, "CreatingSnapshot", text)
        return made

    def _given_content(self, snapshot: Obj, name: str) -> Obj:
        content = self.registry.find(CONTENTS, "", name)
        if content is None:
            raise _NotYet("SnapshotContentMissing", "VolumeSnapshotContent is missing")
        if not content["spec"]["source"].get("snapshotHandle"):
            text = "VolumeSnapshotContent is dynamically provisioned while expecting a pre-provisioned one"
            raise _NotYet("SnapshotContentMismatch", text)
        ref, meta = content["spec"]["volumeSnapshotRef"], snapshot["metadata"]
        mine = (ref.get("namespace"), ref.get("name")) == (meta["namespace"], meta["name"])
        if not mine or ref.get("uid", meta["uid"]) != meta["uid"]:
            named = f"{ref.get('namespace')}/{ref.get('name')}"
            text = f"VolumeSnapshotContent [{name}] is bound to a different snapshot [{named}]"
            raise _NotYet("SnapshotContentMisbound", text)
        if ref.get("uid"):
            return content
        bound = {**content["spec"], "volumeSnapshotRef": {**ref, "uid": meta["uid"]}}
        return self.registry.update(CONTENTS, "", name, {**content, "spec": bound})

    def _claim(self, snapshot: Obj) -> Obj:
        name = snapshot["spec"]["source"].get("persistentVolumeClaimName")
        found = self.registry.find("persistentvolumeclaims", snapshot["metadata"]["namespace"], name or "")
        if found is not None:
            return found
        own = snapshot["metadata"]["name"]
        raise _NotYet("", f"snapshot controller failed to update {own} on API server: cannot get claim from snapshot")

    def _volume(self, snapshot: Obj) -> Obj:
        """The PersistentVolume behind the claim."""
        name, meta = snapshot["spec"]["source"].get("persistentVolumeClaimName", ""), snapshot["metadata"]
        claim = self.registry.find("persistentvolumeclaims", meta["namespace"], name)
        if claim is None:
            raise _NotYet("", _quoted(f"failed to retrieve PVC {name} from the lister: ", _absent(name)))
        if (claim.get("status") or {}).get("phase") != "Bound":
            why = f"the PVC {name} is not yet bound to a PV, will not attempt to take a snapshot"
            raise _NotYet("", _quoted(f"failed to get input parameters to create snapshot {meta['name']}: ", why))
        volume = self.registry.find("persistentvolumes", "", claim["spec"]["volumeName"])
        if volume is None or "csi" not in volume["spec"]:
            where = f"{meta['namespace']}/{meta['name']}"
            raise _NotYet("", f"snapshotting non-CSI volumes is not supported, snapshot:{where}")
        return volume

    # Taking

    def _take(self, snapshot: Obj, content: Obj) -> None:
        key = f"{snapshot['metadata']['namespace']}/{snapshot['metadata']['name']}"
        content = self._cut(snapshot, content)
        status = content.get("status") or {}
        if status.get("error"):
            raise _NotYet("SnapshotContentCheckandUpdateFailed", status["error"]["message"])
        taken = self._disks.snapshot(status["snapshotHandle"])
        assert taken is not None
        left = taken.taken_at + _READY_SECONDS - self.clock.monotonic()
        if left > 0.001 and not status["readyToUse"]:
            self.queue.add_after(key, left)
        elif not status["readyToUse"]:
            status = {**status, "readyToUse": True}
            self.registry.patch_status(CONTENTS, "", content["metadata"]["name"], status)
            self._release_claim(snapshot)
        self._show(snapshot, content["metadata"]["name"], status)

    def _cut(self, snapshot: Obj, content: Obj) -> Obj:
        """The driver's CreateSnapshot, or the look at one that was made elsewhere."""
        status, name = content.get("status") or {}, content["metadata"]["name"]
        if status.get("snapshotHandle"):
            return content
        source = content["spec"]["source"]
        given = source.get("snapshotHandle")
        taken = self._disks.snapshot(given) if given else None
        if given and taken is None:
            why = f'failed to list snapshot for content {name}: "rpc error: code = NotFound desc = no snapshot {given}"'
            return self._failed(content, why)
        handle = given or f"snapshot-{snapshot['metadata']['uid']}"
        if taken is None:
            if self._refuses(snapshot["metadata"]["namespace"], source_claim(snapshot)):
                why = "rpc error: code = Internal desc = the storage system cannot take a snapshot of this volume"
                return self._failed(content, f'failed to take snapshot of the volume {source["volumeHandle"]}: "{why}"')
            size = whole(str(self._volume(snapshot)["spec"]["capacity"]["storage"]))
            taken = self._disks.take(handle, source["volumeHandle"], size, self.clock.monotonic())
        made = ready_status(handle, taken.size, self.clock.wall(taken.taken_at), ready=bool(given))
        return self.registry.patch_status(CONTENTS, "", name, made)

    def _failed(self, content: Obj, why: str) -> Obj:
        text = f"Failed to check and update snapshot content: {why}"
        known = (content.get("status") or {}).get("error") or {}
        time = known.get("time") if known.get("message") == text else self.cluster.stamp()
        error = {"message": text, "time": time}
        self.warning(content, "SnapshotContentCheckandUpdateFailed", text)
        status = {"readyToUse": False, "error": error}
        return self.registry.patch_status(CONTENTS, "", content["metadata"]["name"], status)

    def _show(self, snapshot: Obj, content: str, taken: Obj) -> None:
        meta = snapshot["metadata"]
        before = snapshot.get("status") or {}
        status = {
            "boundVolumeSnapshotContentName": content,
            "creationTime": stamp_of(moment_of(taken["creationTime"])),
            "readyToUse": taken["readyToUse"],
            "restoreSize": quantity_of(taken["restoreSize"]),
        }
        self.registry.patch_status(SNAPSHOTS, meta["namespace"], meta["name"], status)
        where = f"{meta['namespace']}/{meta['name']}"
        if "creationTime" not in before:
            self.normal(snapshot, "SnapshotCreated", f"Snapshot {where} was successfully created by the CSI driver.")
        if taken["readyToUse"] and not before.get("readyToUse"):
            self.normal(snapshot, "SnapshotReady", f"Snapshot {where} is ready to use.")

    def _report(self, snapshot: Obj, problem: _NotYet) -> None:
        meta = snapshot["metadata"]
        current = self.registry.get(SNAPSHOTS, meta["namespace"], meta["name"])
        status = dict(current.get("status") or {})
        if (status.get("error") or {}).get("message") != str(problem):
            status["error"] = {"message": str(problem), "time": self.cluster.stamp()}
            self.warning(current, problem.reason, str(problem))
        if problem.ready is not None:
            status["readyToUse"] = problem.ready
        name = f"snapcontent-{meta['uid']}"
        if self.registry.find(CONTENTS, "", name) is not None:
            status["boundVolumeSnapshotContentName"] = name
        self.registry.patch_status(SNAPSHOTS, meta["namespace"], meta["name"], status)

    # Letting go

    def _release_claim(self, snapshot: Obj) -> None:
        """Lets the claim go, unless another snapshot of it is still being taken."""
        namespace, name = snapshot["metadata"]["namespace"], source_claim(snapshot)
        claim = self.registry.find("persistentvolumeclaims", namespace, name) if name else None
        others = [
            one
            for one in self.registry.iterate(SNAPSHOTS, namespace)
            if source_claim(one) == name
            and one["metadata"]["uid"] != snapshot["metadata"]["uid"]
            and not (one.get("status") or {}).get("readyToUse")
            and not pods.is_terminating(one)
        ]
        if claim is not None and not others:
            drop_finalizers(self.registry, "persistentvolumeclaims", claim, CLAIM_AS_SOURCE)

    def _delete(self, snapshot: Obj) -> None:
        status = snapshot.get("status") or {}
        name = status.get("boundVolumeSnapshotContentName") or f"snapcontent-{snapshot['metadata']['uid']}"
        content = self.registry.find(CONTENTS, "", name)
        if content is not None and content["spec"]["deletionPolicy"] == "Delete":
            if not pods.is_terminating(content):
                self.registry.delete(CONTENTS, "", name)
            self._let_content_go(name)
        self._release_claim(snapshot)
        drop_finalizers(self.registry, SNAPSHOTS, snapshot, AS_SOURCE, BOUND)

    def _let_content_go(self, name: str) -> None:
        """A content on its way out takes the driver's snapshot with it, where its policy says so."""
        content = self.registry.find(CONTENTS, "", name)
        if content is None or not pods.is_terminating(content):
            return
        ref = content["spec"]["volumeSnapshotRef"]
        snapshot = self.registry.find(SNAPSHOTS, ref.get("namespace", ""), ref.get("name", ""))
        if snapshot is not None and not pods.is_terminating(snapshot) and snapshot["metadata"]["uid"] == ref.get("uid"):
            return
        handle = (content.get("status") or {}).get("snapshotHandle")
        if handle and content["spec"]["deletionPolicy"] == "Delete":
            self._disks.delete_snapshot(handle)
        drop_finalizers(self.registry, CONTENTS, content, *content["metadata"].get("finalizers") or [])


def source_claim(snapshot: Obj) -> str:
    """The claim that it is taken of; empty for one whose content was given."""
    return str(snapshot["spec"]["source"].get("persistentVolumeClaimName") or "")


def _absent(claim: str) -> str:
    return f'persistentvolumeclaim "{claim}" not found'


def _quoted(head: str, why: str) -> str:
    """As Go's %q writes it."""
    return head + '"' + why.replace("\\", "\\\\").replace('"', '\\"') + '"'
