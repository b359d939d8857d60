"""A whole playground cluster in one object: registry, clock, controllers, scheduler, kubelets and telemetry."""

from collections.abc import Callable, Iterable
from datetime import datetime
from importlib.resources import files
from typing import Any

import yaml

from opsapi.kit.clock import rfc3339
from opsapi.playground import leftovers, sick
from opsapi.playground.behaviour.traffic import Traffic
from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.adoption import AdoptionController
from opsapi.playground.controllers.base import Cluster
from opsapi.playground.controllers.cronjob import CronJobController
from opsapi.playground.controllers.daemonset import DaemonSetController
from opsapi.playground.controllers.deployment import DeploymentController
from opsapi.playground.controllers.disruption import DisruptionController
from opsapi.playground.controllers.endpoints import EndpointsController
from opsapi.playground.controllers.events import EventRecorder
from opsapi.playground.controllers.hpa import HpaController
from opsapi.playground.controllers.job import JobController
from opsapi.playground.controllers.nodes import NodeController
from opsapi.playground.controllers.queue import Controller, Drain
from opsapi.playground.controllers.quota import QuotaController
from opsapi.playground.controllers.replicaset import ReplicaSetController
from opsapi.playground.controllers.statefulset import StatefulSetController
from opsapi.playground.controllers.volumes import VolumeController
from opsapi.playground.disks import DRIVER, Contents, Disks
from opsapi.playground.faults.world import Faults
from opsapi.playground.kubelet.heartbeat import Heartbeats
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.kubelet.pressure import PressureEviction
from opsapi.playground.machinery.bootstrap import bootstrap
from opsapi.playground.machinery.housekeeping import Housekeeping
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.node import NodeSpec, node_object
from opsapi.playground.registry import ApiError, Obj, Registry
from opsapi.playground.scheduler.scheduler import Scheduler
from opsapi.playground.snapshots.controller import SnapshotController
from opsapi.playground.telemetry.counters import Counters
from opsapi.playground.telemetry.metrics_api import ResourceMetrics
from opsapi.playground.telemetry.node_stats import NodeStats
from opsapi.playground.telemetry.observation import Observation
from opsapi.playground.telemetry.pod_logs import PodLogs
from opsapi.playground.telemetry.prometheus import Exposition
from opsapi.playground.velero.backups import BackupController
from opsapi.playground.velero.deletions import DeletionController, GarbageCollector
from opsapi.playground.velero.locations import LocationController
from opsapi.playground.velero.restores import RestoreController
from opsapi.playground.velero.schedules import ScheduleController
from opsapi.playground.velero.server import Server
from opsapi.playground.velero.storage import BackupStorage

_EVENT_SWEEP = 60.0
INSTALLABLE = ("snapshots", "velero", "sick", "leftovers")
"""What may be added to any world: snapshots and backups, and what acting is tried on."""


class ManifestError(ValueError):
    """A manifest cannot be applied; `where` names the document."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class World:
    """`epoch` is the virtual time at which it begins; one `seed` gives one history."""

    def __init__(self, epoch: datetime, seed: int = 0, *, root_ca: str = "") -> None:
        self.seed = seed
        self.clock = SimClock(epoch, seed)
        self.objects = ObjectRegistry(self.clock, seed=seed)
        self.registry: Registry = self.objects
        self.housekeeping = Housekeeping(self.objects, wake=self.clock.wake, root_ca=root_ca)
        self.events = EventRecorder(self.registry, self.clock)
        self.cluster = Cluster(self.registry, self.clock, self.events)
        self.drain = Drain()
        self.disks = Disks()
        self.backups = BackupStorage()
        self.traffic = Traffic(self.registry, self.clock)
        self.kubelets = Kubelets(self.cluster, self.traffic)
        self.heartbeats = Heartbeats(self.cluster, self.kubelets)
        self.observation = Observation(self.clock, self.kubelets, self.traffic)
        self.metrics = ResourceMetrics(self.registry, self.clock, self.observation)
        self.node_stats = NodeStats(self.registry, self.clock, self.metrics)
        self.counters = Counters(self.clock, self.observation)
        self.exposition = Exposition(self.registry, self.observation, self.counters)
        self.logs = PodLogs(self.clock, self.observation, self.kubelets)
        eviction = PressureEviction(self.registry, self.clock, self.kubelets, self.observation)
        self.faults = Faults(self.registry, self.clock, self.kubelets, self.heartbeats, eviction)
        self.scheduler = Scheduler(self.cluster)
        self._node_count = 0
        for controller in self._controllers():
            self.drain.add(controller)
        self.drain.also(self.housekeeping.drain)
        self.clock.settle = self.drain.settle
        self.clock.settle_some = self.drain.work
        self.clock.call_later(_EVENT_SWEEP, self._sweep)
        self._furnish()

    def _controllers(self) -> Iterable[Controller]:
        cluster = self.cluster
        yield AdoptionController(cluster)
        yield VolumeController(cluster, self.disks)
        yield SnapshotController(cluster, self.disks, self.faults.refuses_snapshot)
        yield DeploymentController(cluster)
        yield ReplicaSetController(cluster)
        yield StatefulSetController(cluster)
        yield DaemonSetController(cluster)
        yield JobController(cluster)
        yield CronJobController(cluster)
        yield HpaController(cluster, self.metrics.usage)
        yield self.scheduler
        yield self.kubelets
        yield EndpointsController(cluster)
        yield DisruptionController(cluster)
        yield QuotaController(cluster, self.objects)
        yield self.heartbeats
        yield NodeController(cluster, self.heartbeats.last)
        yield from self._velero()

    def _velero(self) -> Iterable[Controller]:
        server = Server(self.cluster, self.objects, self.backups, self.disks, self.faults)
        yield LocationController(self.cluster, self.backups, self.faults.backup_storage_away, self.faults.velero_down)
        yield BackupController(server)
        yield RestoreController(server)
        yield ScheduleController(server)
        yield DeletionController(server)
        yield GarbageCollector(server)

    def _sweep(self) -> None:
        self.events.sweep()
        self.clock.call_later(_EVENT_SWEEP, self._sweep)

    def _furnish(self) -> None:
        """What every cluster has from the start."""
        bootstrap(self.objects)
        storage_class = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": DRIVER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }
        self.apply(storage_class)
        self.settle()

    # Time

    def settle(self) -> None:
        """Lets all controllers react to what has happened, without time passing."""
        self.drain.settle()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def advance_until(self, condition: Callable[[], bool], within: float, step: float = 1.0) -> None:
        """Moves time on until the condition holds. Raises TimeoutError after `within` virtual seconds."""
        end = self.clock.monotonic() + within
        self.settle()
        while not condition():
            if self.clock.monotonic() >= end:
                raise TimeoutError(f"not within {within} virtual seconds")
            self.advance(step)

    # Objects

    def add_node(self, spec: NodeSpec) -> Obj:
        """A Ready node with its kubelet, addresses and podCIDR."""
        node = node_object(spec, self._node_count, rfc3339(self.clock.now()))
        self._node_count += 1
        status = node.pop("status")
        created = self.registry.create("nodes", "", node)
        return self.registry.patch_status("nodes", "", created["metadata"]["name"], status)

    def apply(self, obj: Obj, where: str = "manifest") -> Obj:
        """Creates the object, or replaces spec, data, labels and annotations of the one of its name."""
        kind = self._kind(obj, where)
        meta = obj.get("metadata") or {}
        if not isinstance(meta, dict) or not (meta.get("name") or meta.get("generateName")):
            raise ManifestError(where, "metadata.name is missing")
        namespace = (meta.get("namespace") or "default") if kind.namespaced else ""
        old = self.registry.find(kind.resource, namespace, meta.get("name", ""))
        try:
            if old is None:
                return self.registry.create(kind.resource, namespace, obj)
            kept = {key: old["metadata"][key] for key in old["metadata"] if key != "resourceVersion"}
            merged = {**obj, "metadata": {**kept, **meta}}
            return self.registry.update(kind.resource, namespace, meta["name"], merged)
        except ApiError as error:
            raise ManifestError(where, str(error)) from error

    def install(self, name: str) -> None:
        """Adds one of INSTALLABLE; `sick` and `leftovers` let some minutes pass. Raises KeyError on another name."""
        if name == "sick":
            sick.build(self)
        elif name == "leftovers":
            leftovers.build(self)
        elif name in INSTALLABLE:
            self.apply_text(files("opsapi.playground").joinpath(f"manifests/{name}.yaml").read_text(), name)
        else:
            raise KeyError(name)

    # Volumes

    def volume_handle(self, namespace: str, claim: str) -> str:
        """The driver's name of the volume that a claim is bound to. Raises KeyError where there is none."""
        found = self.registry.find("persistentvolumeclaims", namespace, claim)
        volume = self.registry.find("persistentvolumes", "", ((found or {}).get("spec") or {}).get("volumeName", ""))
        if volume is None or "csi" not in volume["spec"]:
            raise KeyError(f"{namespace}/{claim}")
        return str(volume["spec"]["csi"]["volumeHandle"])

    def volume_contents(self, namespace: str, claim: str) -> Contents:
        """What the claim's volume holds. Raises KeyError where it is not bound."""
        return self.disks.contents(self.volume_handle(namespace, claim))

    def write_volume(self, namespace: str, claim: str, text: str) -> Contents:
        """As if a process wrote `text` to the claim's volume. Raises KeyError where it is not bound."""
        return self.disks.write(self.volume_handle(namespace, claim), text)

    def _kind(self, obj: Any, where: str) -> Any:
        if not isinstance(obj, dict) or not obj.get("apiVersion") or not obj.get("kind"):
            raise ManifestError(where, "apiVersion and kind are needed")
        group = str(obj["apiVersion"]).rpartition("/")[0]
        kind = self.objects.kinds.storage_of(group, str(obj["kind"]))
        if kind is None:
            raise ManifestError(where, f'no matches for kind "{obj["kind"]}" in version "{obj["apiVersion"]}"')
        return kind

    def apply_text(self, text: str, where: str = "manifest") -> list[Obj]:
        """Applies a multi-document YAML or JSON text; Lists are taken apart. Raises ManifestError."""
        applied = []
        try:
            documents = [item for item in yaml.load_all(text, Loader=_loader()) if item is not None]
        except yaml.YAMLError as error:
            raise ManifestError(where, f"neither YAML nor JSON: {error}") from error
        for index, document in enumerate(documents, 1):
            place = f"{where}, document {index}"
            items = document.get("items") if isinstance(document, dict) and "items" in document else [document]
            applied += [self.apply(item, place) for item in items or []]
            # A CustomResourceDefinition serves its kind only once it is established.
            self.settle()
        return applied


def _loader() -> Any:
    """libyaml's safe loader where it is built in, which is ten times faster."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
