"""Joins the parts of backups, over whatever cluster, store and ledger a test brings."""

from collections.abc import Sequence
from dataclasses import dataclass

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.applications.identity import Applications
from opsapi.applications.ports import Workloads
from opsapi.backups.archive import Archive
from opsapi.backups.backup_endpoint import BackupEndpoints
from opsapi.backups.backup_steps import BackupSteps
from opsapi.backups.backups_endpoint import BackupReadEndpoints, BackupReader
from opsapi.backups.checking import Checker
from opsapi.backups.erasing import Eraser
from opsapi.backups.everything import BackupAllPlanner, BackupAllSteps
from opsapi.backups.making import BackupMaker
from opsapi.backups.planning import BackupPlanner
from opsapi.backups.ports import BackupRecords, ObjectStore
from opsapi.backups.restore_endpoint import RestoreEndpoints
from opsapi.backups.restore_planning import RestorePlanner
from opsapi.backups.restore_steps import RestoreSteps
from opsapi.backups.retention import Retention
from opsapi.backups.settings import BackupSettings
from opsapi.backups.upkeep import Upkeep
from opsapi.backups.velero_restoring import VeleroRestoring
from opsapi.kit.clock import Clock
from opsapi.operations.desk import Desk
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedures
from opsapi.playbooks.backing_up import BackupAll
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.views import Views
from opsapi.workspaces.writing import Objects

KEY = b"k" * 32


def unknown_channels(names: Sequence[str]) -> list[str]:
    """`slack:#ops` is configured."""
    return [name for name in names if name != "slack:#ops"]


@dataclass
class JoinedBackups:
    procedures: Procedures
    desk: Desk
    applications: Applications
    reader: BackupReader
    backups: BackupEndpoints
    reads: BackupReadEndpoints
    restores: RestoreEndpoints
    retention: Retention
    playbook: BackupAll


def join_backups(
    clusters: Clusters,
    objects: Objects,
    workloads: Workloads,
    records: BackupRecords,
    store: ObjectStore | None,
    ledger: Ledger,
    clock: Clock,
    settings: BackupSettings,
    policy: PolicySettings,
) -> JoinedBackups:
    book = PolicyBook(policy)
    archive = Archive(store, AesGcmSealer([KEY])) if store is not None else None
    maker = BackupMaker(clusters, objects, records, archive, settings)
    eraser = Eraser(records, archive, maker.snapshots)
    checker = Checker(archive, maker.snapshots, maker.velero)
    planner = BackupPlanner(clusters, maker, book, unknown_channels)
    everything = BackupAllPlanner(clusters, planner, book)
    upkeep = Upkeep(clusters, records, checker, eraser, maker.velero, settings)
    restores = RestorePlanner(clusters, objects, records, checker, book)
    with_velero = VeleroRestoring(records, objects, maker.velero)
    playbook = BackupAll(everything, BackupAllSteps(maker, eraser, everything))
    procedures = Procedures()
    for procedure in (
        BackupSteps(maker, eraser, workloads).procedure(planner.replan),
        RestoreSteps(restores, objects, workloads, with_velero, settings).procedure(),
        upkeep.verification(),
        upkeep.deletion(),
        playbook.procedure(),
    ):
        procedures.register(procedure)
    desk = Desk(ledger, procedures, book, clock)
    applications = Applications(Views(clusters))
    reader = BackupReader(records, ledger, settings.velero_namespace)
    return JoinedBackups(
        procedures=procedures,
        desk=desk,
        applications=applications,
        reader=reader,
        backups=BackupEndpoints(applications, planner, desk, clock),
        reads=BackupReadEndpoints(reader, upkeep, clusters, desk, clock),
        restores=RestoreEndpoints(reader, restores, clusters, objects, desk, clock),
        retention=Retention(clusters, eraser, maker.velero, ledger, clock, settings),
        playbook=playbook,
    )
