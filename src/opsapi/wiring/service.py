"""The running service: clusters, the engine, the audit's writers and the HTTP application on an opened state."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from opsapi.accounts.endpoints import AccountEndpoints
from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.adapters.secrets.sealing import AesGcmSealer, key_from
from opsapi.adapters.sql.changes import SqlChangeStore
from opsapi.adapters.sql.cleanup import SqlSnapshots
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.workspaces import SqlWorkspaceStore
from opsapi.applications.changes import ChangeRecorder
from opsapi.applications.changes_endpoint import ChangesEndpoints
from opsapi.applications.identity import Applications
from opsapi.applications.reads import ApplicationReadEndpoints
from opsapi.applications.recent import RecentActivity
from opsapi.audit.chainer import Chainer
from opsapi.audit.checkpoints import FileCheckpoints, LogCheckpoints
from opsapi.audit.endpoints import AuditEndpoints
from opsapi.audit.recorder import AuditRecorder
from opsapi.health.board import HealthBoard
from opsapi.health.endpoints import HealthEndpoints
from opsapi.http.app import App, create_app
from opsapi.http.limits import CallerLimits
from opsapi.http.ports import HttpPorts
from opsapi.kit.endpoint import declared
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.permissions import Grants
from opsapi.operations.worker import Worker
from opsapi.playbooks.endpoints import PlaybookEndpoints
from opsapi.playbooks.ports import Playbook
from opsapi.playbooks.registry import Playbooks
from opsapi.settings.model import Settings, WorkspaceSettings
from opsapi.settings.source import InvalidConfiguration
from opsapi.wiring.acting import joined_acting
from opsapi.wiring.backups import joined_backups
from opsapi.wiring.collectors import ServiceCollector
from opsapi.wiring.figures import AccountBudgets, WorkQueue
from opsapi.wiring.incidents import joined_incidents
from opsapi.wiring.limits import rate_limiter
from opsapi.wiring.metrics import joined_metrics
from opsapi.wiring.playbooks import joined_cleaning, joined_healing, joined_optimizing
from opsapi.wiring.scaling import joined_scaling
from opsapi.wiring.scanning import joined_scanning
from opsapi.wiring.schedules import joined_schedules
from opsapi.wiring.state import State, opened_state
from opsapi.wiring.webhooks import WebhookCollector, opened_webhooks
from opsapi.workspaces.endpoints import WorkspaceEndpoints
from opsapi.workspaces.model import ClusterAccess, Source, Workspace
from opsapi.workspaces.registration import Registry
from opsapi.workspaces.views import Views, WorkspaceView

PURGE_SECONDS = 3600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs: its application answers until the block that opened it ends."""

    state: State
    clusters: KubernetesClusters
    registry: Registry
    recorder: AuditRecorder
    worker: Worker
    app: App


def sealer_of(settings: Settings) -> AesGcmSealer | None:
    """None without an encryption key. Raises InvalidConfiguration."""
    if not settings.keys.encryption:
        return None
    try:
        return AesGcmSealer([key_from(key.reveal()) for key in settings.keys.encryption])
    except ValueError as error:
        raise InvalidConfiguration([f"keys.encryption: {error}"]) from None


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """Opens the state, starts every background task, and stops all of it in the reverse order.

    Raises InvalidConfiguration, DependencyUnavailable, SchemaIsNewer.
    """
    async with AsyncExitStack() as stack:
        sealer = sealer_of(settings)
        state = await stack.enter_async_context(opened_state(settings))
        clusters = KubernetesClusters(tuning_of(settings))
        stack.push_async_callback(clusters.close_all)
        metrics = await stack.enter_async_context(joined_metrics(settings, clusters))
        changes = SqlChangeStore(state.database)
        activity = RecentActivity(state.ledger, changes)
        views = Views(clusters, (activity,))
        recording = ChangeRecording(changes, state.ledger)
        views.watch(recording)
        stack.push_async_callback(recording.stop)
        webhooks = await stack.enter_async_context(opened_webhooks(state, sealer))
        store = SqlWorkspaceStore(state.database, sealer, state.clock)
        registry = Registry(clusters, views, store, state.ledger, state.clock)
        recorder = AuditRecorder(state.audit, state.clock, capacity=settings.audit.queue)
        acting = joined_acting(state, clusters)
        policy, procedures, desk = acting.policy, acting.procedures, acting.desk
        scanning = joined_scanning(state, clusters)
        snapshots = SqlSnapshots(state.database, sealer, state.clock)
        applications = Applications(views)
        backups = joined_backups(state, clusters, desk, applications, sealer, webhooks.channels.unknown)
        healing = joined_healing(clusters, policy, settings, metrics)
        incidents = joined_incidents(acting, clusters, healing, webhooks.channels)
        playbooks: list[Playbook] = [
            scanning.playbook,
            healing,
            joined_optimizing(clusters, policy, settings, metrics),
            joined_cleaning(clusters, policy, settings, snapshots),
            backups.playbook,
        ]
        for procedure in (*(playbook.procedure() for playbook in playbooks), *backups.procedures):
            procedures.register(procedure)
        registered = Playbooks(playbooks)
        schedules = joined_schedules(state, clusters, desk, registered)
        times = ResponseTimes()
        board = HealthBoard(
            views,
            state.clock,
            database=state.database,
            queue=WorkQueue(state.ledger, webhooks.deliveries),
            figures=times,
            unreadable=lambda: len(registry.unreadable),
        )
        limiter, limit_collectors = await stack.enter_async_context(rate_limiter(settings.limits))
        endpoints = [
            HealthEndpoints(board),
            WorkspaceEndpoints(registry, views),
            ApplicationReadEndpoints(applications, metrics),
            ChangesEndpoints(changes),
            *joined_scaling(acting, clusters, applications, metrics),
            scanning.endpoints,
            *backups.endpoints,
            PlaybookEndpoints(clusters, desk, registered, state.clock),
            schedules.endpoints,
            *incidents.endpoints,
            *acting.endpoints(),
            AccountEndpoints(
                state.accounts,
                state.administration,
                state.issuer,
                CallerLimits(limiter, settings.http),
                AccountBudgets(state.ledger, policy, state.clock),
            ),
            AuditEndpoints(state.audit),
            *webhooks.endpoints(),
        ]
        ports = HttpPorts(
            authenticator=state.authenticator,
            audit=recorder,
            limiter=limiter,
            scopes=Scopes(registry, applications),
            idempotency=state.idempotency,
            clock=state.clock,
            readiness=(DatabaseReady(state.database),),
            collectors=(
                ServiceCollector(clusters, recorder, acting.worker),
                WebhookCollector(webhooks.deliverer),
                *limit_collectors,
            ),
        )
        app = times.app = create_app(declared(endpoints), ports, settings.http)
        _keep_audit(stack, state, recorder, settings)
        await registry.start([workspace_of(one) for one in settings.workspaces])
        await stack.enter_async_context(board.running())
        jobs = (registry.follow(), activity.run(), state.authenticator.run(), _purge(state, snapshots))
        for job in (*jobs, backups.retention.run()):
            _background(stack, job)
        stack.push_async_callback(_quietly, state.authenticator.flush_uses)
        await stack.enter_async_context(webhooks.running())
        await stack.enter_async_context(acting.running())
        await stack.enter_async_context(schedules.running())
        await stack.enter_async_context(incidents.running())
        yield Service(state, clusters, registry, recorder, acting.worker, app)


def _keep_audit(stack: AsyncExitStack, state: State, recorder: AuditRecorder, settings: Settings) -> None:
    """Started first, so stopped last: everything else may still add entries while it ends."""
    path = settings.audit.checkpoint_file
    sink = LogCheckpoints() if path is None else FileCheckpoints(path)
    holder = f"{socket.gethostname()}-{os.getpid()}"
    chainer = Chainer(state.chain, state.chain_keys, sink, state.clock, holder=holder)
    stack.push_async_callback(_quietly, chainer.stop)
    _background(stack, chainer.run())
    stack.push_async_callback(_quietly, recorder.flush)
    _background(stack, recorder.run())


def _background(stack: AsyncExitStack, job: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(job)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def _quietly(last: Callable[[], Awaitable[object]]) -> None:
    """At the end there is nobody left to tell but the log."""
    try:
        await last()
    except DependencyUnavailable as error:
        _log.warning("while stopping: %s", error.message)


async def _purge(state: State, snapshots: SqlSnapshots) -> None:
    kept = timedelta(seconds=state.settings.cleaning.snapshots_kept_seconds)
    while True:
        await asyncio.sleep(PURGE_SECONDS)
        try:
            await state.idempotency.purge()
            await snapshots.purge(state.clock.now() - kept)
        except DependencyUnavailable as error:
            _log.warning("what is too old waits to be purged: %s", error.message)


class ResponseTimes:
    """health's look at the application that serves it, which is made after it."""

    app: App | None = None

    def response_time_ms(self) -> float | None:
        return None if self.app is None else self.app.records.metrics.response_time_ms()


class ChangeRecording:
    """A recorder of changes for every workspace that is followed."""

    def __init__(self, store: SqlChangeStore, ledger: SqlLedger) -> None:
        self._store = store
        self._ledger = ledger
        self._running: dict[str, tuple[asyncio.Task[None], Callable[[], None]]] = {}

    def attached(self, view: WorkspaceView) -> None:
        recorder = ChangeRecorder(view.inventory, self._store, self._ledger)
        unsubscribe = recorder.start()
        self._running[view.workspace.id] = (asyncio.create_task(recorder.run(), name="changes"), unsubscribe)

    def detached(self, view: WorkspaceView) -> None:
        task, unsubscribe = self._running.pop(view.workspace.id)
        unsubscribe()
        task.cancel()

    async def stop(self) -> None:
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Scopes:
    """What the guard asks of workspaces and applications."""

    def __init__(self, registry: Registry, applications: Applications) -> None:
        self._registry = registry
        self._applications = applications

    async def workspace_exists(self, workspace_id: str) -> bool:
        return self._registry.find(workspace_id) is not None

    async def workspace_of(self, application_id: str, grants: Grants) -> str:
        return self._applications.workspace_of(application_id, grants)


class DatabaseReady:
    """Readiness: without the database nobody can be let in."""

    name = "database"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def failure(self) -> str | None:
        try:
            await self._database.probe()
        except DependencyUnavailable as error:
            return error.message
        return None


def tuning_of(settings: Settings) -> Tuning:
    given = settings.kubernetes
    return Tuning(
        request_timeout=given.request_timeout_seconds,
        stale_after=given.stale_after_seconds,
        usage_interval=given.usage_interval_seconds,
        upload_allow=given.upload_allow,
    )


def workspace_of(given: WorkspaceSettings) -> Workspace:
    read = ClusterAccess(path=_text(given.kubeconfig), in_cluster=given.in_cluster, context=given.context)
    act = None
    if given.act is not None:
        act = ClusterAccess(path=_text(given.act.kubeconfig), context=given.act.context)
    return Workspace(
        id=given.id,
        name=given.name or given.id,
        organization=given.organization,
        plan=given.plan,
        mode=given.mode,
        namespaces=given.namespaces,
        read=read,
        act=act,
        source=Source.CONFIG,
        created_at=given.created_at,
    )


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)
