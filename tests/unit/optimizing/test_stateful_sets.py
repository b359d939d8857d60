"""A StatefulSet's pod that does not stand its new size is stuck, whatever the template says: it is evicted."""

import copy
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import State, UndoState
from opsapi.playbooks.optimizing.model import RESOURCES
from opsapi.workspaces.writing import JsonObject
from support.api_objects import BUDGETS, PODS
from support.optimizing import MIB, OptimizeStage, container

SETS = RESOURCES["StatefulSet"]


class Stateful(OptimizeStage):
    """`db`, of two pods. Its controller sees a new template once the clock goes on, and replaces the last pod alone: of
    the new size it is never ready."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.objects.evicted = lambda pod: self._pod(pod["metadata"]["name"])
        self.objects.after = lambda _verb, _target: None
        spec = {
            "replicas": 2,
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [container()]}},
        }
        self.objects.put(SETS, {"metadata": {"name": "db", "namespace": "shop", "uid": "uid-db"}, "spec": spec})
        for name in ("db-0", "db-1"):
            self._pod(name)
            for minute in range(200):
                at = self.inventory.now() - timedelta(minutes=minute)
                self.metrics.measure(name, "app", at, cpu=120, memory=200 * MIB)
        self._observe()
        self.clock.sleep = self._turn  # type: ignore[method-assign]
        self.arrange(self.book.settings)

    @property
    def sets(self) -> JsonObject:
        held = self.objects.find(SETS, "shop", "db")
        assert held is not None
        return held

    def sizes(self) -> list[JsonObject]:
        pods = [self.objects.held[PODS, "shop", name] for name in ("db-0", "db-1")]
        return [pod["spec"]["containers"][0]["resources"] for pod in (self.sets["spec"]["template"], *pods)]

    async def _turn(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._observe()

    async def idle(self) -> None:
        await self._turn(1)

    def _observe(self) -> None:
        held, last = self.sets, self.objects.held[PODS, "shop", "db-1"]
        ready = last["status"]["conditions"][0]["status"] == "True"
        if ready and last["spec"] != held["spec"]["template"]["spec"]:
            self._pod("db-1")
            ready = self.objects.held[PODS, "shop", "db-1"]["status"]["conditions"][0]["status"] == "True"
        counts = {"replicas": 2, "updatedReplicas": 1 + ready, "readyReplicas": 1 + ready}
        status = {"status": counts | {"observedGeneration": held["metadata"]["generation"]}}
        self.objects.merge(SETS, "shop", "db", status)

    def _pod(self, name: str) -> None:
        """By the template, as the controller has it."""
        owner = {"kind": "StatefulSet", "name": "db", "uid": "uid-db", "controller": True}
        spec = copy.deepcopy(self.sets["spec"]["template"]["spec"])
        well = spec["containers"][0] == container()
        meta = {"name": name, "namespace": "shop", "labels": {"app": "db"}, "ownerReferences": [owner]}
        meta |= {"uid": f"uid-{name}-{len(self.objects.writes)}"}
        conditions = [{"type": "Ready", "status": str(well)}]
        self.objects.put(
            PODS, {"metadata": meta, "spec": spec, "status": {"phase": "Running", "conditions": conditions}}
        )


@pytest.fixture
async def stateful(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Stateful]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    yield Stateful(database)
    await database.close()


async def test_a_pod_that_is_stuck_at_the_bad_size_is_evicted_once_the_old_template_is_seen(stateful: Stateful) -> None:
    await stateful.begin("db")
    seen: list[bool] = []

    def before(verb: str, target: str) -> None:
        if verb == "evict":
            held = stateful.sets
            seen.append(held["status"]["observedGeneration"] == held["metadata"]["generation"])

    stateful.objects.before = before
    ended = await stateful.work()
    assert (ended.state, ended.error and ended.error.code) == (State.ROLLED_BACK, "NOT_READY"), ended
    assert [(write.verb, write.target) for write in stateful.objects.writes] == [
        ("patch", "statefulsets.apps/shop/db"),
        ("patch", "statefulsets.apps/shop/db"),
        ("evict", "pods/shop/db-1"),
    ]
    assert seen == [True]
    assert stateful.sizes() == [container()["resources"]] * 3


async def test_what_a_budget_keeps_stuck_is_left_to_people(stateful: Stateful) -> None:
    budget = {"spec": {"selector": {"matchLabels": {"app": "db"}}}, "status": {"disruptionsAllowed": 0}}
    stateful.objects.put(BUDGETS, {"metadata": {"name": "db", "namespace": "shop"}} | budget)
    await stateful.begin("db")
    ended = await stateful.work()
    assert ended.state is State.FAILED
    undo = ended.step("apply_recommendations").items["uid-db"].undo
    assert undo is not None
    assert undo.state is UndoState.SKIPPED
    assert "the template of shop/StatefulSet/db is as it was, but db-1 is stuck" in undo.reason
