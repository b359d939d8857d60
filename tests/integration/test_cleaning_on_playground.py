"""cleanup_resources through the real adapters on the playground's attic."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.sql.cleanup import SqlSnapshots
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.kit.caller import AccountKind
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State, UndoState
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.model import OperationBody, OperationParams
from opsapi.playground.world import World
from opsapi.policy.admission import Admission
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Subject
from support.acting import SetClock, make_call, make_caller
from support.cleaning import SEALER, join_cleaning
from support.cluster import running_api
from support.database import sqlite_template
from support.live import Live, inline, living
from support.playground_world import small_world
from support.scaling import UNHURRIED

__all__ = ["sqlite_template"]

PERSON = make_caller("workspace:admin", account_id="sa-person", kind=AccountKind.PERSON)
LEFT_OVER = [
    "ConfigMap/attic/expired", "ConfigMap/attic/ttl-over", "Job/attic/import-2019", "Job/attic/import-failed",
    "Pod/attic/evicted", "Pod/attic/one-off",
]  # fmt: skip


@dataclass
class Scene:
    world: World
    live: Live
    database: Database

    def __post_init__(self) -> None:
        self.clock = SetClock(self.world.clock.now())
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.procedures = Procedures()
        self.endpoints = join_cleaning(
            self.live.clusters, KubernetesObjects(self.live.clusters), SqlSnapshots(self.database, SEALER, self.clock),
            self.ledger, self.procedures, self.clock, PolicyBook(UNHURRIED),
        )  # fmt: skip
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self.clock.sleep)

    async def ask(self, *, dry_run: bool = False, **parameters: Any) -> Any:
        given = {"namespaces": ["attic"]} | parameters
        body = OperationBody(operation="cleanup_resources", parameters=given, dry_run=dry_run)
        call = make_call(PERSON, "execute_workspace_operation")
        reply = await self.endpoints.execute_workspace_operation(call, OperationParams(workspace_id="ws-live"), body)
        return msgspec.json.decode(msgspec.json.encode(reply.data))

    async def work(self, operation_id: str) -> Operation:
        lease = timedelta(days=36500)
        while (claim := await self.ledger.claim("worker", lease, self.procedures.runnable())) is not None:
            await self.execution.run(claim)
        ended = await self.ledger.get(operation_id)
        assert ended is not None
        return ended

    async def undo(self, operation: Operation) -> Operation:
        subject = Subject("sa-person", AccountKind.PERSON, "ws-live", "act")
        ask = Ask(subject=subject, action=operation.action, at=self.live.cluster.inventory.now())
        until = self.clock.now() + timedelta(minutes=30)
        admission = Admission(ask, UNHURRIED, exempt=True)
        await self.ledger.reopen(operation.id, make_call(PERSON), admission=admission, until=until)
        return await self.work(operation.id)

    def held(self, resource: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.world.registry.iterate(resource, "attic")}


@pytest.fixture
async def scene(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.install("leftovers")
    async with running_api(world.objects, bootstrapped=False) as api, living(inline(api.kubeconfig())) as live:
        await live.until_synced()
        yield Scene(world, live, database)
    await database.close()


def places(found: list[dict[str, Any]]) -> list[str]:
    return sorted("/".join((one["kind"], one["namespace"], one["name"])) for one in found)


async def test_a_dry_run_lists_everything_with_its_reason_and_changes_nothing(scene: Scene) -> None:
    before = scene.held("jobs.batch"), scene.held("configmaps"), scene.held("pods")
    plan = (await scene.ask(dry_run=True, revision_history_limit=2))["plan"]
    sets = [place for place in places(plan["details"]["deletes"]) if place.startswith("ReplicaSet")]
    assert len(sets) == 2
    assert [place for place in places(plan["details"]["deletes"]) if place not in sets] == LEFT_OVER
    assert places(plan["details"]["reports"]) == [
        "ConfigMap/attic/unused-settings", "PersistentVolumeClaim/attic/unmounted", "Secret/attic/unused-secret",
    ]  # fmt: skip
    assert all(one["why"] for one in plan["details"]["deletes"] + plan["details"]["reports"])
    assert "ZGVtby1vbmx5" not in str(plan)
    assert before == (scene.held("jobs.batch"), scene.held("configmaps"), scene.held("pods"))


async def test_what_has_ended_or_expired_goes_and_comes_back_but_for_pods(scene: Scene) -> None:
    begun = await scene.ask()
    ended = await scene.work(begun["operation_id"])
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert scene.held("jobs.batch") == {"import-today"}
    assert not scene.held("configmaps") & {"expired", "ttl-over"}
    assert {"unused-settings", "used-settings", "ttl-left"} <= scene.held("configmaps")
    undone = await scene.undo(ended)
    step = undone.step("delete_leftovers").undo
    assert step is not None
    assert step.state is UndoState.SKIPPED
    assert step.reason.count("would run again") == 2
    assert scene.held("jobs.batch") == {"import-today", "import-2019", "import-failed"}
    job = scene.world.registry.get("jobs.batch", "attic", "import-2019")
    assert job["spec"]["suspend"] is True
    assert {"expired", "ttl-over"} <= scene.held("configmaps")
