"""The whole of cleaning on fakes, with the ledger and the sealed snapshots on SQLite."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.cleanup import SqlSnapshots
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import Reply
from opsapi.operations.desk import Desk
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.cleaning.gathering import Gathering
from opsapi.playbooks.cleaning.model import CleaningSettings
from opsapi.playbooks.cleaning.planning import CleanPlaybook
from opsapi.playbooks.cleaning.ports import Snapshots
from opsapi.playbooks.cleaning.steps import CleaningSteps
from opsapi.playbooks.endpoints import PlaybookEndpoints
from opsapi.playbooks.model import OperationAnswer, OperationBody, OperationParams
from opsapi.playbooks.registry import Playbooks
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import JsonObject, Objects, Resource
from support.acting import SetClock, make_call, make_caller
from support.api_objects import FakeObjects
from support.inventory import START, FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.scaling import UNHURRIED

DAY = 86400.0
SEALER = AesGcmSealer([bytes(range(32))])


def ago(days: float) -> str:
    return (START - timedelta(days=days)).isoformat().replace("+00:00", "Z")


def join_cleaning(
    clusters: Clusters,
    objects: Objects,
    snapshots: Snapshots,
    ledger: Ledger,
    procedures: Procedures,
    clock: Clock,
    book: PolicyBook,
) -> PlaybookEndpoints:
    """As wiring does."""
    gathering = Gathering(objects)
    steps = CleaningSteps(clusters, objects, gathering, snapshots, book)
    playbook = CleanPlaybook(clusters, gathering, snapshots, book, steps, CleaningSettings())
    procedures.register(playbook.procedure())
    return PlaybookEndpoints(clusters, Desk(ledger, procedures, book, clock), Playbooks([playbook]), clock)


@dataclass
class Attic:
    """`clean` asks (a person, whom no approval keeps waiting, unless another call is given), `work` carries out."""

    database: Database
    policy: PolicySettings = UNHURRIED
    clock: SetClock = field(default_factory=SetClock)
    sealed: bool = True
    workspace: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inventory = FakeInventory()
        self.objects = self.make_objects()
        self.objects.unserved.add("gateways.gateway.networking.k8s.io")
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.arrange()

    def make_objects(self) -> FakeObjects:
        return FakeObjects()

    def arrange(self) -> None:
        self.cluster = FakeCluster(make_workspace(**self.workspace), self.inventory)
        self.clusters = FakeClusters(self.cluster)
        self.snapshots = SqlSnapshots(self.database, SEALER if self.sealed else None, self.clock)
        self.procedures = Procedures()
        self.endpoints = join_cleaning(
            self.clusters, self.objects, self.snapshots, self.ledger, self.procedures, self.clock,
            PolicyBook(self.policy),
        )  # fmt: skip
        engine = EngineSettings(step_attempts=4, backoff_seconds=1)
        self.execution = Execution(self.ledger, self.procedures, self.clock, engine, self.clock.sleep)

    def put(self, resource: Resource, name: str, *, days: float = 30, **more: Any) -> JsonObject:
        """An object in the namespace `shop`, so many days old."""
        meta = {"name": name, "creationTimestamp": ago(days)} | more.pop("meta", {})
        if resource.namespaced:
            meta.setdefault("namespace", "shop")
        return self.objects.put(resource, {"metadata": meta} | more)

    def person(self) -> Call:
        caller = make_caller("workspace:admin", account_id="sa-person", kind=AccountKind.PERSON)
        return make_call(caller, "execute_workspace_operation")

    def agent(self) -> Call:
        return make_call(make_caller("workspace:admin"), "execute_workspace_operation")

    async def clean(
        self, *, call: Call | None = None, dry_run: bool = False, **parameters: Any
    ) -> Reply[OperationAnswer]:
        body = OperationBody(operation="cleanup_resources", parameters=parameters, dry_run=dry_run)
        params = OperationParams(workspace_id="ws-123")
        return await self.endpoints.execute_workspace_operation(call or self.person(), params, body)

    async def plan(self, **parameters: Any) -> dict[str, Any]:
        reply: Any = await self.clean(dry_run=True, **parameters)
        details: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(reply.data.plan.details))
        return details

    async def work(self, *, lease: timedelta = timedelta(days=1)) -> Operation:
        for _ in range(200):
            claim = await self.ledger.claim("worker", lease, self.procedures.runnable())
            if claim is not None:
                await self.execution.run(claim)
            elif (await self.ledger.depth()).running + (await self.ledger.depth()).queued:
                await self.idle()
            else:
                return await self.only()
        raise AssertionError("operations are stuck")

    async def idle(self) -> None:
        """Nothing is claimable yet."""
        self.clock.advance(1)

    async def only(self) -> Operation:
        (found,) = await self.ledger.find(OperationFilter(workspaces=None))
        return found

    async def cleaned(self, **parameters: Any) -> Operation:
        await self.clean(**parameters)
        return await self.work()


@pytest.fixture
async def attic(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Attic]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield Attic(database)
    await database.close()
