"""Backups joined: the store of manifests, the engines, the procedures, the endpoints and retention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.kubernetes.workloads import KubernetesWorkloads
from opsapi.adapters.objectstore.store import BucketStore
from opsapi.adapters.sql.backups import SqlBackupRecords
from opsapi.applications.identity import Applications
from opsapi.backups.archive import Archive
from opsapi.backups.backup_endpoint import BackupEndpoints
from opsapi.backups.backup_steps import BackupSteps
from opsapi.backups.backups_endpoint import BackupReadEndpoints, BackupReader
from opsapi.backups.checking import Checker
from opsapi.backups.erasing import Eraser
from opsapi.backups.everything import BackupAllPlanner, BackupAllSteps
from opsapi.backups.making import BackupMaker
from opsapi.backups.planning import BackupPlanner
from opsapi.backups.restore_endpoint import RestoreEndpoints
from opsapi.backups.restore_planning import RestorePlanner
from opsapi.backups.restore_steps import RestoreSteps
from opsapi.backups.retention import Retention
from opsapi.backups.settings import BackupSettings
from opsapi.backups.upkeep import Upkeep
from opsapi.backups.velero_restoring import VeleroRestoring
from opsapi.operations.desk import Desk
from opsapi.operations.procedures import Procedure
from opsapi.playbooks.backing_up import BackupAll
from opsapi.settings.source import InvalidConfiguration
from opsapi.wiring.state import State
from opsapi.workspaces.ports import Sealer


@dataclass(frozen=True, slots=True)
class Backups:
    """`playbook` is backup_all, among the workspace's operations; `retention.run()` is a job in the background."""

    playbook: BackupAll
    procedures: tuple[Procedure, ...]
    endpoints: tuple[object, ...]
    retention: Retention


def archive_of(settings: BackupSettings, sealer: Sealer | None) -> Archive | None:
    """None where no store is configured. Raises InvalidConfiguration."""
    if settings.secrets and sealer is None:
        raise InvalidConfiguration(["backups.secrets: needs keys.encryption, since Secrets are only written sealed"])
    if not settings.store.url:
        return None
    try:
        return Archive(BucketStore(settings.store), sealer)
    except ValueError as error:
        raise InvalidConfiguration([f"backups.store.url: {error}"]) from None


def joined_backups(
    state: State,
    clusters: KubernetesClusters,
    desk: Desk,
    applications: Applications,
    sealer: Sealer | None,
    unknown_channels: Callable[[Sequence[str]], list[str]],
) -> Backups:
    """Raises InvalidConfiguration."""
    settings, policy, clock = state.settings.backups, desk.policy, state.clock
    objects, workloads = KubernetesObjects(clusters), KubernetesWorkloads(clusters)
    records = SqlBackupRecords(state.database, clock)
    archive = archive_of(settings, sealer)
    maker = BackupMaker(clusters, objects, records, archive, settings)
    eraser = Eraser(records, archive, maker.snapshots)
    checker = Checker(archive, maker.snapshots, maker.velero)
    planner = BackupPlanner(clusters, maker, policy, unknown_channels)
    everything = BackupAllPlanner(clusters, planner, policy)
    upkeep = Upkeep(clusters, records, checker, eraser, maker.velero, settings)
    restores = RestorePlanner(clusters, objects, records, checker, policy)
    with_velero = VeleroRestoring(records, objects, maker.velero)
    reader = BackupReader(records, state.ledger, settings.velero_namespace)
    return Backups(
        playbook=BackupAll(everything, BackupAllSteps(maker, eraser, everything)),
        procedures=(
            BackupSteps(maker, eraser, workloads).procedure(planner.replan),
            RestoreSteps(restores, objects, workloads, with_velero, settings).procedure(),
            upkeep.verification(),
            upkeep.deletion(),
        ),
        endpoints=(
            BackupEndpoints(applications, planner, desk, clock),
            BackupReadEndpoints(reader, upkeep, clusters, desk, clock),
            RestoreEndpoints(reader, restores, clusters, objects, desk, clock),
        ),
        retention=Retention(clusters, eraser, maker.velero, state.ledger, clock, settings),
    )
