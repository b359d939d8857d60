"""CSI VolumeSnapshots of an application's claims: made under deterministic names, and waited for."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from opsapi.backups.errors import unserved
from opsapi.backups.kinds import SNAPSHOT_CONTENTS, SNAPSHOTS
from opsapi.backups.model import ANNOTATION, Backup, Snapshot, Volume
from opsapi.backups.settings import BackupSettings
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.ids import stable_id
from opsapi.kit.text import one_line
from opsapi.operations.model import Failure, Item, ItemState
from opsapi.operations.work import StepWork
from opsapi.workspaces.writing import (
    JsonObject,
    ObjectKey,
    Objects,
    OutcomeUnknown,
    TargetGone,
    WriteConflict,
    WriteRefused,
)

MANAGED_BY = {"app.kubernetes.io/managed-by": "opsapi"}


class Notes(Protocol):
    """Where each volume's snapshot is written down, before and after."""

    def known(self, claim: str) -> Volume | None:
        """What became of it in an earlier try."""
        ...

    async def intend(self, claim: str, snapshot: str) -> None: ...

    async def withdraw(self, claim: str) -> None: ...

    async def done(self, volume: Volume, *, found: bool) -> None: ...


class ItemNotes:
    """One item of the step a claim."""

    def __init__(self, work: StepWork) -> None:
        self._work = work

    def known(self, claim: str) -> Volume | None:
        return volume_noted(self._work.item(claim).held)

    async def intend(self, claim: str, snapshot: str) -> None:
        item = self._work.item(claim)
        if item.interrupted is None:
            await item.intend({"snapshot": snapshot})
        else:
            await self._work.pass_gate()

    async def withdraw(self, claim: str) -> None:
        await self._work.item(claim).withdraw()

    async def done(self, volume: Volume, *, found: bool) -> None:
        item = self._work.item(volume.claim)
        plain: dict[str, Any] = {"volume": msgspec.to_builtins(volume)}
        if volume.captured:
            await item.record(plain, f"Snapshot {volume.snapshot.name}" if volume.snapshot else "", found=found)
        else:
            await item.fail(Failure(code="NOT_CAPTURED", message=volume.reason or "", details=plain))


def volume_noted(item: Item) -> Volume | None:
    """What an item of ItemNotes holds, once it is settled."""
    if item.state is ItemState.FAILED and item.error is not None:
        return msgspec.convert(item.error.details["volume"], Volume)
    if item.state is ItemState.DONE and item.effect is not None:
        return msgspec.convert(item.effect["volume"], Volume)
    return None


class GateNotes:
    """For a backup that is itself one item of a step: its intent names them all, and each effect asks the gate."""

    def __init__(self, work: StepWork) -> None:
        self._work = work

    def known(self, claim: str) -> Volume | None:  # noqa: ARG002  the port's name
        return None

    async def intend(self, claim: str, snapshot: str) -> None:  # noqa: ARG002
        await self._work.pass_gate()

    async def withdraw(self, claim: str) -> None:
        """Whoever repeats the item looks for each."""

    async def done(self, volume: Volume, *, found: bool) -> None:
        """The item's effect holds them all."""


def snapshot_name(backup_id: str, claim: str) -> str:
    """The same for every try, within the 253 characters of a name."""
    return f"opsapi-{stable_id(backup_id, claim)}"


def size_of(claim: JsonObject) -> str | None:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return str(requests["storage"]) if "storage" in requests else None


class Snapshots:
    def __init__(self, objects: Objects, settings: BackupSettings) -> None:
        self._objects = objects
        self._settings = settings

    async def served(self, workspace_id: str) -> bool:
        return await self._objects.served(workspace_id, SNAPSHOTS)

    async def take(self, work: StepWork, backup: Backup, claims: Sequence[JsonObject], notes: Notes) -> list[Volume]:
        """A snapshot of each claim, or why there is none. All are begun before any is waited for.

        Raises DependencyUnavailable and OutcomeUnknown; whoever repeats it finds what was made.
        """
        served = await self.served(backup.workspace_id)
        taken: dict[str, Volume] = {}
        begun: dict[str, bool] = {}
        for claim in claims:
            known = notes.known(_name(claim))
            if known is not None:
                taken[_name(claim)] = known
                continue
            lost = Volume(claim=_name(claim), size=size_of(claim), reason=unserved(SNAPSHOTS))
            made = await self._begin(backup, claim, notes) if served else lost
            if isinstance(made, Volume):
                taken[made.claim] = made
                await notes.done(made, found=False)
            else:
                begun[_name(claim)] = made
        until = work.clock.monotonic() + min(self._settings.snapshot_seconds, work.remaining - 30)
        for claim in claims:
            if _name(claim) in begun:
                volume = await self._await(work, backup, claim, until)
                await notes.done(volume, found=begun[volume.claim])
                taken[volume.claim] = volume
        return [taken[_name(claim)] for claim in claims]

    async def erase(self, backup: Backup, snapshot: Snapshot) -> bool:
        """Deletes it where it is still ours. Raises WriteRefused, DependencyUnavailable."""
        key = ObjectKey(backup.workspace_id, SNAPSHOTS, snapshot.namespace, snapshot.name, snapshot.uid)
        try:
            held = await self._objects.get(key)
            if not _is_ours(held, backup):
                return False
            await self._objects.delete(key)
        except (TargetGone, WriteConflict):
            return False
        return True

    async def find(self, backup: Backup) -> list[Snapshot]:
        """Those of the backup that stand in its namespace, whatever its record says."""
        if not await self.served(backup.workspace_id):
            return []
        selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
        listed = await self._objects.list(backup.workspace_id, SNAPSHOTS, backup.namespace, selector=selector)
        return [_reference(one) for one in listed if _is_ours(one, backup)]

    async def state(self, backup: Backup, snapshot: Snapshot) -> str | None:
        """What is wrong with it now, or None."""
        key = ObjectKey(backup.workspace_id, SNAPSHOTS, snapshot.namespace, snapshot.name, snapshot.uid)
        try:
            held = await self._objects.get(key)
        except (TargetGone, WriteConflict):
            return "was deleted"
        except WriteRefused as error:
            return f"may not be read: {error.reason}"
        return None if (held.get("status") or {}).get("readyToUse") is True else "is not ready to use"

    async def _begin(self, backup: Backup, claim: JsonObject, notes: Notes) -> Volume | bool:
        """Whether it was found, or the volume that cannot be captured."""
        name = _name(claim)
        body = self._body(backup, name)
        await notes.intend(name, body["metadata"]["name"])
        try:
            await self._objects.create(backup.workspace_id, SNAPSHOTS, body)
        except WriteConflict:
            key = ObjectKey(backup.workspace_id, SNAPSHOTS, backup.namespace, body["metadata"]["name"])
            if _is_ours(await self._objects.get(key), backup):
                return True
            await notes.withdraw(name)
            return Volume(claim=name, size=size_of(claim), reason="another snapshot bears its name")
        except (WriteRefused, TargetGone) as error:
            await notes.withdraw(name)
            return Volume(claim=name, size=size_of(claim), reason=_said(f"the cluster refused: {error}"))
        except OutcomeUnknown:
            raise
        except DependencyUnavailable:
            await notes.withdraw(name)
            raise
        return False

    def _body(self, backup: Backup, claim: str) -> JsonObject:
        chosen = self._settings.snapshot_class
        return {
            "apiVersion": SNAPSHOTS.api_version,
            "kind": SNAPSHOTS.kind,
            "metadata": {
                "name": snapshot_name(backup.id, claim),
                "namespace": backup.namespace,
                "labels": MANAGED_BY,
                "annotations": {ANNOTATION: backup.id, "opsapi.dev/operation": backup.operation_id},
            },
            "spec": {"source": {"persistentVolumeClaimName": claim}}
            | ({"volumeSnapshotClassName": chosen} if chosen else {}),
        }

    async def _await(self, work: StepWork, backup: Backup, claim: JsonObject, until: float) -> Volume:
        name = _name(claim)
        key = ObjectKey(backup.workspace_id, SNAPSHOTS, backup.namespace, snapshot_name(backup.id, name))
        while True:
            try:
                held = await self._objects.get(key)
            except (TargetGone, WriteConflict, WriteRefused) as error:
                return Volume(claim=name, size=size_of(claim), reason=_said(f"its snapshot cannot be read: {error}"))
            status = held.get("status") or {}
            if status.get("readyToUse") is True:
                snapshot = await self._with_content(backup, held)
                return Volume(claim=name, size=size_of(claim), captured=True, snapshot=snapshot)
            if work.clock.monotonic() >= until:
                why = (status.get("error") or {}).get("message") or "its snapshot did not become ready in time"
                return Volume(claim=name, size=size_of(claim), reason=_said(why), snapshot=_reference(held))
            await work.sleep(self._settings.poll_seconds)

    async def _with_content(self, backup: Backup, held: JsonObject) -> Snapshot:
        """With what a restore elsewhere needs, where the credentials may read it."""
        snapshot = _reference(held)
        bound = (held.get("status") or {}).get("boundVolumeSnapshotContentName")
        if not bound:
            return snapshot
        try:
            content = await self._objects.get(ObjectKey(backup.workspace_id, SNAPSHOT_CONTENTS, "", bound))
        except (WriteRefused, TargetGone, WriteConflict):
            return snapshot
        spec = content.get("spec") or {}
        return msgspec.structs.replace(
            snapshot,
            handle=(content.get("status") or {}).get("snapshotHandle"),
            driver=spec.get("driver"),
            snapshot_class=spec.get("volumeSnapshotClassName"),
        )


def _name(claim: JsonObject) -> str:
    return str(claim["metadata"]["name"])


def _said(text: object) -> str:
    """Drivers' words, made harmless."""
    return (one_line(str(text)) or "")[:500]


def _is_ours(held: JsonObject, backup: Backup) -> bool:
    return bool((held["metadata"].get("annotations") or {}).get(ANNOTATION) == backup.id)


def _reference(held: JsonObject) -> Snapshot:
    meta = held["metadata"]
    size = (held.get("status") or {}).get("restoreSize")
    return Snapshot(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        restore_size=None if size is None else str(size),
    )
