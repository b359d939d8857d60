"""Claims and volumes: a provisioner for every StorageClass there is, and binding. After pkg/controller/volume."""

from opsapi.kit.quantity import whole
from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController
from opsapi.playground.disks import Disks
from opsapi.playground.registry import Change, ChangeType, Obj
from opsapi.playground.snapshots.sources import SourceError, contents_of_source

_CLASSES = "storageclasses.storage.k8s.io"
_SELECTED = "volume.kubernetes.io/selected-node"
_RESYNC = 15.0
_PROVISION_SECONDS = 1.5


class VolumeController(ObjectController):
    name = "persistentvolume"
    resource = "persistentvolumeclaims"
    kind = "PersistentVolumeClaim"
    component = "persistentvolume-controller"

    def __init__(self, cluster: Cluster, disks: Disks) -> None:
        super().__init__(cluster)
        self._disks = disks
        self._begun: dict[str, float] = {}
        self.registry.subscribe("persistentvolumes", self._volume_changed)
        self.registry.subscribe(_CLASSES, self._class_changed)

    def _volume_changed(self, change: Change) -> None:
        claim = change.new["spec"].get("claimRef")
        if claim:
            self.queue.add(f"{claim['namespace']}/{claim['name']}")
        elif change.type is ChangeType.ADDED:
            self._retry_pending()

    def _class_changed(self, change: Change) -> None:
        if change.type is ChangeType.ADDED:
            self._retry_pending()

    def _retry_pending(self) -> None:
        for claim in self.registry.iterate(self.resource):
            if claim.get("status", {}).get("phase") != "Bound":
                self.enqueue(claim)

    def sync(self, namespace: str, name: str) -> None:
        claim = self.registry.find(self.resource, namespace, name)
        if claim is None:
            self._release(namespace, name)
            return
        if claim.get("status", {}).get("phase") == "Bound":
            self._check_bound(claim)
            return
        if pods.is_terminating(claim):
            return
        volume = self._match(claim)
        if volume is not None:
            self._bind(claim, volume)
            return
        self._provision(claim)

    def _release(self, namespace: str, name: str) -> None:
        """The claim is gone: its volume is deleted or kept, as its reclaim policy says."""
        for volume in self.registry.iterate("persistentvolumes"):
            ref = volume["spec"].get("claimRef") or {}
            if (ref.get("namespace"), ref.get("name")) != (namespace, name):
                continue
            if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
                self.registry.patch_status("persistentvolumes", "", volume["metadata"]["name"], {"phase": "Released"})
                self.registry.delete("persistentvolumes", "", volume["metadata"]["name"])
                if "csi" in volume["spec"]:
                    self._disks.delete(volume["spec"]["csi"]["volumeHandle"])
            else:
                self.registry.patch_status("persistentvolumes", "", volume["metadata"]["name"], {"phase": "Released"})

    def _check_bound(self, claim: Obj) -> None:
        name = claim["spec"].get("volumeName", "")
        if self.registry.find("persistentvolumes", "", name) is None:
            meta = claim["metadata"]
            self.registry.patch_status(self.resource, meta["namespace"], meta["name"], {"phase": "Lost"})
            self.warning(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")

    def _match(self, claim: Obj) -> Obj | None:
        """The smallest free volume that will do, or the one named."""
        spec = claim["spec"]
        wanted = whole(str(spec["resources"]["requests"]["storage"]))
        fitting = []
        for volume in self.registry.iterate("persistentvolumes"):
            ref = volume["spec"].get("claimRef") or {}
            mine = (ref.get("namespace"), ref.get("name")) == (
                claim["metadata"]["namespace"],
                claim["metadata"]["name"],
            )
            if ref and not mine:
                continue
            if spec.get("volumeName") and volume["metadata"]["name"] != spec["volumeName"]:
                continue
            if volume["spec"].get("storageClassName", "") != (spec.get("storageClassName") or ""):
                continue
            size = whole(str(volume["spec"]["capacity"]["storage"]))
            modes = set(volume["spec"].get("accessModes") or [])
            if size >= wanted and set(spec.get("accessModes") or []) <= modes:
                fitting.append((size, volume["metadata"]["name"], volume))
        return min(fitting, key=lambda item: item[:2])[2] if fitting else None

    def _bind(self, claim: Obj, volume: Obj) -> None:
        meta = claim["metadata"]
        ref = {
            "kind": "PersistentVolumeClaim",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "apiVersion": "v1",
            "resourceVersion": meta["resourceVersion"],
        }
        name = volume["metadata"]["name"]
        if not volume["spec"].get("claimRef"):
            volume = self.registry.update(
                "persistentvolumes", "", name, {**volume, "spec": {**volume["spec"], "claimRef": ref}}
            )
        self.registry.patch_status("persistentvolumes", "", name, {"phase": "Bound"})
        annotations = {**(meta.get("annotations") or {}), "pv.kubernetes.io/bind-completed": "yes"}
        changed = {
            **claim,
            "metadata": {**meta, "annotations": annotations},
            "spec": {**claim["spec"], "volumeName": name},
        }
        self.registry.update(self.resource, meta["namespace"], meta["name"], changed)
        status = {
            "phase": "Bound",
            "accessModes": volume["spec"].get("accessModes") or [],
            "capacity": volume["spec"]["capacity"],
        }
        self.registry.patch_status(self.resource, meta["namespace"], meta["name"], status)

    def _provision(self, claim: Obj) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        key = f"{meta['namespace']}/{meta['name']}"
        name = spec.get("storageClassName")
        if name is None:
            # As the real controller does for claims that are older than the default class.
            name = self._default_class()
            if name:
                changed = {**claim, "spec": {**spec, "storageClassName": name}}
                self.registry.update(self.resource, meta["namespace"], meta["name"], changed)
                return
        if not name:
            text = "no persistent volumes available for this claim and no storage class is set"
            self.normal(claim, "FailedBinding", text)
            self.queue.add_after(key, _RESYNC)
            return
        found = self.registry.find(_CLASSES, "", name)
        if found is None:
            self.warning(claim, "ProvisioningFailed", f'storageclass.storage.k8s.io "{name}" not found')
            self.queue.add_after(key, _RESYNC)
            return
        selected = (meta.get("annotations") or {}).get(_SELECTED)
        if found.get("volumeBindingMode") == "WaitForFirstConsumer" and not selected:
            text = "waiting for first consumer to be created before binding"
            self.normal(claim, "WaitForFirstConsumer", text)
            self.queue.add_after(key, _RESYNC)
            return
        if self._provisioner_is_done(claim, found):
            self._make_from_source(claim, found, selected)

    def _make_from_source(self, claim: Obj, storage_class: Obj, node: str | None) -> None:
        try:
            contents = contents_of_source(self.registry, self._disks, claim)
        except SourceError as error:
            class_name, meta = storage_class["metadata"]["name"], claim["metadata"]
            text = f'failed to provision volume with StorageClass "{class_name}": {error}'
            self.events.warning(claim, storage_class["provisioner"], "ProvisioningFailed", text)
            self.queue.add_after(f"{meta['namespace']}/{meta['name']}", _RESYNC)
            return
        self._disks.fill(f"pvc-{claim['metadata']['uid']}", contents)
        self._make_volume(claim, storage_class, node)

    def _provisioner_is_done(self, claim: Obj, storage_class: Obj) -> bool:
        """Announces the claim to the provisioner, which takes its time."""
        meta = claim["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        begun = self._begun.get(meta["uid"])
        if begun is None:
            self._begun[meta["uid"]] = self.clock.monotonic()
            provisioner = storage_class["provisioner"]
            text = f'External provisioner is provisioning volume for claim "{key}"'
            self.events.normal(claim, provisioner, "Provisioning", text)
            text = (
                f'Waiting for a volume to be created either by the external provisioner "{provisioner}" or '
                "manually by the system administrator. If volume creation is delayed, please verify that the "
                "provisioner is running and correctly registered."
            )
            self.normal(claim, "ExternalProvisioning", text)
            self.queue.add_after(key, _PROVISION_SECONDS)
            return False
        left = begun + _PROVISION_SECONDS - self.clock.monotonic()
        if left > 0.001:
            self.queue.add_after(key, left)
            return False
        del self._begun[meta["uid"]]
        return True

    def _default_class(self) -> str | None:
        for found in self.registry.iterate(_CLASSES):
            annotations = found["metadata"].get("annotations") or {}
            if annotations.get("storageclass.kubernetes.io/is-default-class") == "true":
                return str(found["metadata"]["name"])
        return None

    def _make_volume(self, claim: Obj, storage_class: Obj, node: str | None) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        name = f"pvc-{meta['uid']}"
        volume: Obj = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": name,
                "annotations": {"pv.kubernetes.io/provisioned-by": storage_class["provisioner"]},
            },
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
                "storageClassName": storage_class["metadata"]["name"],
                "volumeMode": spec.get("volumeMode", "Filesystem"),
                "csi": {"driver": storage_class["provisioner"], "volumeHandle": name},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": meta["name"],
                    "namespace": meta["namespace"],
                    "uid": meta["uid"],
                },
            },
        }
        if node:
            term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
            volume["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
        self.registry.create("persistentvolumes", "", volume)
        self.events.normal(
            claim, storage_class["provisioner"], "ProvisioningSucceeded", f"Successfully provisioned volume {name}"
        )
