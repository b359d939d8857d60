"""Records every change of applications that the inventories see, joined with our own operations."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime

import msgspec

from opsapi.applications.changes_model import (
    AUTOSCALER_ACTOR,
    CONTROLLER_MANAGER,
    Change,
    Fields,
    Snapshot,
    differences,
    operation_behind,
    tracked_fields,
    writer_of_field,
)
from opsapi.applications.changes_ports import ChangeStore
from opsapi.applications.ports import OPERATION_ANNOTATION
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.ids import new_id
from opsapi.operations.model import Operation
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.objects import (
    APPLICATION_KINDS,
    AUTOSCALER,
    CronJob,
    HorizontalPodAutoscaler,
    Kind,
    KubernetesObject,
    ObjectMeta,
    Workload,
    WorkloadMeta,
)
from opsapi.workspaces.ports import Inventory

FOLLOWED = (*APPLICATION_KINDS, AUTOSCALER)
_BATCH = 1000
_OPERATIONS_LOOKED_AT = 20
_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_log = logging.getLogger(__name__)
_Followed = Workload | CronJob | HorizontalPodAutoscaler


class _Seen(msgspec.Struct, frozen=True):
    """A difference of the cache that may be a change. `held` is the object, or what it last was once it is gone."""

    kind: Kind
    held: _Followed
    gone: bool
    at: datetime


class ChangeRecorder:
    """Follows one workspace's inventory. `start` subscribes, `run` writes until cancelled.

    What an object was last seen to be is kept in the store, so that what changed while the service was down is found
    by the first look at it. An object seen for the first time is no change, except an autoscaler made while we watch.
    """

    def __init__(self, inventory: Inventory, store: ChangeStore, ledger: Ledger) -> None:
        self._inventory = inventory
        self._store = store
        self._ledger = ledger
        self._waiting: deque[_Seen] = deque()
        self._wake = asyncio.Event()
        self._known: dict[str, Snapshot] | None = None
        self._since = inventory.now().replace(microsecond=0)

    @property
    def waiting(self) -> int:
        """Differences that are not written yet."""
        return len(self._waiting)

    def start(self) -> Callable[[], None]:
        """Returns what ends the subscription."""
        return self._inventory.subscribe(self._observe)

    async def run(self) -> None:
        pause = _RETRY_SECONDS
        while True:
            await self._wake.wait()
            try:
                await self.flush()
                pause = _RETRY_SECONDS
            except DependencyUnavailable as error:
                _log.warning("%d changes of %s wait: %s", self.waiting, self._inventory.workspace_id, error.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            except Exception:
                # A fault of ours must not end the recording; the batch stays and is tried again.
                _log.exception("%d changes of %s wait", self.waiting, self._inventory.workspace_id)
                await asyncio.sleep(_LONGEST_RETRY_SECONDS)

    def _observe(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        """The inventory's listener: most differences are of the status, and end here."""
        if kind not in FOLLOWED:
            return
        held = new if new is not None else old
        if not isinstance(held, Workload | CronJob | HorizontalPodAutoscaler):
            return
        if isinstance(old, Workload | CronJob) and isinstance(new, Workload | CronJob):
            before, after = old.metadata, new.metadata
            if before.uid == after.uid and 0 < before.generation == after.generation:
                return
        self._waiting.append(_Seen(kind, held, new is None, self._inventory.now()))
        self._wake.set()

    async def flush(self) -> None:
        """Writes all that waits. Raises DependencyUnavailable; what was not written waits on."""
        if self._known is None:
            self._known = await self._store.snapshots(self._inventory.workspace_id)
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]
            await self._write(self._known, batch)
            for _ in batch:
                self._waiting.popleft()
        self._wake.clear()

    async def _write(self, known: dict[str, Snapshot], batch: list[_Seen]) -> None:
        changes: list[Change] = []
        fresh: dict[str, Snapshot] = {}
        gone: set[str] = set()
        for seen in batch:
            uid, version = seen.held.metadata.uid, seen.held.metadata.resource_version
            before = fresh.get(uid) or (None if uid in gone else known.get(uid))
            if before is not None and _older(version, before.resource_version):
                continue
            after: Fields = {} if seen.gone else tracked_fields(seen.held)
            changes += await self._changes(seen, before, after)
            if seen.gone:
                gone.add(uid)
                fresh.pop(uid, None)
            elif before is None or before.fields != after:
                gone.discard(uid)
                fresh[uid] = Snapshot(uid, version, after)
        if not (changes or fresh or gone):
            return
        await self._store.record(
            self._inventory.workspace_id,
            changes,
            list(fresh.values()),
            sorted(gone),
            observed_at=batch[-1].at,
        )
        for uid in gone:
            known.pop(uid, None)
        known.update(fresh)

    async def _changes(self, seen: _Seen, before: Snapshot | None, after: Fields) -> list[Change]:
        if isinstance(seen.held, HorizontalPodAutoscaler):
            created = seen.held.metadata.creation_timestamp
            if before is None and (seen.gone or created is None or created < self._since):
                return []
        elif before is None or seen.gone:
            return []  # applications that come and go are no changes of one
        found = differences(before.fields if before is not None else {}, after)
        if not found:
            return []
        named, kind = self._application(seen)
        operations = await self._operations(application_id(self._inventory.workspace_id, kind, named), seen)
        return [self._change(seen, kind, named, difference, operations) for difference in found]

    def _change(
        self,
        seen: _Seen,
        kind: Kind,
        named: ObjectMeta,
        difference: tuple[str, object, object],
        operations: list[Operation],
    ) -> Change:
        field, before, after = difference
        meta = seen.held.metadata
        writer = None if seen.gone else writer_of_field(seen.kind, meta.managed_fields, field)
        manager = writer.manager if writer is not None else None
        behind = operation_behind(field, after, manager, operations, meta.uid)
        autoscaler = self._autoscaler_behind(seen, field, manager)
        return Change(
            id=new_id("chg"),
            workspace_id=self._inventory.workspace_id,
            application_id=application_id(self._inventory.workspace_id, kind, named),
            kind=kind.kind,
            namespace=named.namespace,
            name=named.name,
            uid=meta.uid,
            resource_version=f"{meta.resource_version}-gone" if seen.gone else meta.resource_version,
            field=field,
            before=before,
            after=after,
            observed_at=seen.at,
            changed_at=writer.time if writer is not None else None,
            manager=manager,
            actor=behind.requested_by if behind is not None else autoscaler,
            actor_kind=behind.requested_by_kind if behind is not None else autoscaler and AUTOSCALER_ACTOR,
            operation_id=behind.id if behind is not None else None,
            approved_by=behind.approved_by if behind is not None else None,
            reason=behind.reason if behind is not None else None,
        )

    def _autoscaler_behind(self, seen: _Seen, field: str, manager: str | None) -> str | None:
        """The HPA that set the replicas, by its name: of all that kube-controller-manager runs, it alone writes the
        replicas of an application."""
        if field != "replicas" or manager != CONTROLLER_MANAGER:
            return None
        meta = seen.held.metadata
        for held in self._inventory.all(AUTOSCALER, HorizontalPodAutoscaler, meta.namespace):
            target = held.spec.scale_target_ref
            if (target.kind, target.name) == (seen.kind.kind, meta.name):
                return held.metadata.name
        return None

    def _application(self, seen: _Seen) -> tuple[ObjectMeta, Kind]:
        """The application that the object is, or that the autoscaler scales."""
        if not isinstance(seen.held, HorizontalPodAutoscaler):
            return seen.held.metadata, seen.kind
        target = seen.held.spec.scale_target_ref
        kind = next((known for known in APPLICATION_KINDS if known.kind == target.kind), APPLICATION_KINDS[0])
        namespace = seen.held.metadata.namespace
        found = self._inventory.get(kind, Workload, namespace, target.name)
        return (found.metadata if found is not None else WorkloadMeta(namespace=namespace, name=target.name)), kind

    async def _operations(self, application: str, seen: _Seen) -> list[Operation]:
        """The application's own, and one on the whole workspace that left its name on the object."""
        wanted = OperationFilter(
            workspaces=frozenset({self._inventory.workspace_id}),
            application_id=application,
            limit=_OPERATIONS_LOOKED_AT,
        )
        found = await self._ledger.find(wanted)
        named = seen.held.metadata.annotations.get(OPERATION_ANNOTATION, "")
        if named and all(operation.id != named for operation in found):
            other = await self._ledger.get(named)
            if other is not None and other.workspace_id == self._inventory.workspace_id:
                found.append(other)
        return found


def _older(version: str, than: str) -> bool:
    """resourceVersions compare as numbers within one resource type (Kubernetes 1.35 on; etcd's always have)."""
    if version.isdigit() and than.isdigit():
        return int(version) < int(than)
    return False
