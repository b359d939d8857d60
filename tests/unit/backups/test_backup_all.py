"""backup_all: every application of a workspace, each with its own end."""

from typing import Any

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.tables import outbox_events
from opsapi.backups import kinds
from opsapi.backups.model import Status
from opsapi.backups.ports import BackupFilter
from opsapi.kit.errors import ResourceNotFound, ValidationFailed
from opsapi.operations.model import ItemState, Operation, Outcome, State, lock_key
from support.acting import make_new_operation
from support.backing_up import BackupStage
from support.backup_stores import FakeStore


@pytest.fixture
def stage(stage: BackupStage) -> BackupStage:
    """Three applications in two namespaces, and one where nothing may be done."""
    stage.put_application("web", "Deployment")
    stage.put_application("agent", "DaemonSet", namespace="elsewhere")
    stage.put_application("dns", "Deployment", namespace="kube-system")
    return stage


async def run(stage: BackupStage, **parameters: Any) -> Operation:
    operation = await stage.desk.begin(stage.call(), await stage.proposed(**parameters))
    await stage.work()
    ended = await stage.ledger.get(operation.id)
    assert ended is not None
    return ended


def store_of(stage: BackupStage) -> FakeStore:
    assert isinstance(stage.store, FakeStore)
    return stage.store


async def test_every_application_outside_protected_namespaces_has_its_backup(stage: BackupStage) -> None:
    operation = await run(stage)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    found = await stage.records.find(BackupFilter(workspaces=None))
    assert sorted(f"{one.kind}/{one.namespace}/{one.name}" for one in found) == [
        "DaemonSet/elsewhere/agent",
        "Deployment/shop/web",
        "StatefulSet/shop/db",
    ]
    assert {one.status for one in found} == {Status.COMPLETED}
    assert operation.result is not None
    assert operation.result["backups"] == {"completed": 3, "partially_failed": 0, "failed": 0}


async def test_one_applications_failure_is_no_other_s_and_the_whole_is_partial(stage: BackupStage) -> None:
    store = store_of(stage)
    put = store.put

    async def lossy(path: str, data: bytes) -> None:
        await put(path, data[:-1] if "deployments.apps/web" in path else data)

    store.put = lossy  # type: ignore[method-assign]
    operation = await run(stage)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.PARTIAL)
    assert operation.result is not None
    assert operation.result["backups"] == {"completed": 2, "partially_failed": 0, "failed": 1}
    worst = operation.result["items"][0]
    assert (worst["application"], worst["status"]) == ("Deployment/shop/web", "failed")
    items = operation.step("back_up_applications").items
    assert items["Deployment/shop/web"].state is ItemState.FAILED
    failed = await stage.records.find(BackupFilter(workspaces=None, status=Status.FAILED))
    assert [one.id for one in failed] == [worst["backup_id"]]
    columns = outbox_events.c
    async with stage.database.read() as connection:
        told = await connection.execute(sa.select(columns.type).where(columns.type.like("internal.backup.%")))
        assert told.scalars().all() == ["internal.backup.failed"]


async def test_an_application_that_lacks_a_volume_counts_as_partial(stage: BackupStage) -> None:
    stage.snapshotter.refuses = {"data-db-0"}
    operation = await run(stage)
    assert operation.outcome is Outcome.PARTIAL
    assert operation.result is not None
    assert operation.result["backups"] == {"completed": 2, "partially_failed": 1, "failed": 0}


async def test_where_none_can_be_saved_the_operation_fails(stage: BackupStage) -> None:
    operation_proposal = await stage.proposed()
    begun = await stage.desk.begin(stage.call(), operation_proposal)
    for kind, namespace, name in (("STATEFUL_SETS", "shop", "db"), ("DEPLOYMENTS", "shop", "web"),
                                  ("DAEMON_SETS", "elsewhere", "agent")):  # fmt: skip
        stage.objects.remove(getattr(kinds, kind), namespace, name)
    await stage.work()
    ended = await stage.ledger.get(begun.id)
    assert ended is not None
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.details["backups"]["failed"]) == ("ALL_FAILED", 3)


async def test_an_application_that_another_operation_holds_is_waited_for(stage: BackupStage) -> None:
    proposal = await stage.proposed()
    lock = lock_key("ws-123", stage.application_id("web"))
    busy = make_new_operation(resource_id=stage.application_id("web"), id="op-busy")
    await stage.ledger.begin(busy, stage.call(), locks={lock})
    claim = await stage.ledger.claim("other", stage.clock.now() - stage.clock.now(), {("scale", 1)})
    assert claim is not None
    begun = await stage.desk.begin(stage.call(), proposal)
    sleep = stage.execution._sleep

    async def freed(seconds: float) -> None:
        current = await stage.ledger.get("op-busy")
        if current is not None and not current.state.final:
            await stage.ledger.finish(claim, State.COMPLETED)
        await sleep(seconds)

    stage.execution._sleep = freed
    mine = await stage.ledger.claim("worker", stage.clock.now() - stage.clock.now(), {("backup_all", 1)})
    assert mine is not None
    await stage.execution.run(mine)
    ended = await stage.ledger.get(begun.id)
    assert ended is not None
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED)
    assert await stage.ledger.holder(lock) is None


async def test_an_application_is_free_again_once_it_is_done(stage: BackupStage) -> None:
    """The namespace `elsewhere` comes first."""
    locks: list[object] = []
    first = lock_key("ws-123", stage.application_id("agent"))
    done = stage.ledger.put_item

    async def watched(claim: Any, position: int, key: str, item: Any, **more: Any) -> None:
        await done(claim, position, key, item, **more)
        if key == "StatefulSet/shop/db":
            locks.append(await stage.ledger.holder(first))

    stage.ledger.put_item = watched  # type: ignore[method-assign]
    await run(stage)
    assert locks == [None, None]


async def test_some_namespaces_or_one_application_alone(stage: BackupStage) -> None:
    only = await stage.proposed(namespaces=["elsewhere"])
    assert only.plan["objects"] == [{"kind": "DaemonSet", "namespace": "elsewhere", "name": "agent"}]
    for component in ("web", stage.application_id("web")):
        one = await stage.proposed(target_component=component)
        assert [found["name"] for found in one.plan["objects"]] == ["web"]
    with pytest.raises(ResourceNotFound):
        await stage.proposed(target_component="nothing")


async def test_a_wrong_parameter_is_named_with_its_path(stage: BackupStage) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await stage.proposed(retention_policy="forever", notification_channels=["slack:#typo"])
    details: Any = caught.value.details
    assert set(details.fields) == {"parameters.retention_policy", "parameters.notification_channels"}


async def test_a_workspace_without_applications_has_nothing_to_do(stage: BackupStage) -> None:
    proposal = await stage.proposed(namespaces=["empty"])
    assert proposal.nothing_to_do
    operation = await run(stage, namespaces=["empty"])
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)


async def test_ids_of_its_backups_follow_from_the_operation(stage: BackupStage) -> None:
    operation = await run(stage)
    step = operation.step("back_up_applications")
    effects = {(item.effect or {})["backup_id"] for item in step.items.values()}
    assert effects == {one.id for one in await stage.records.find(BackupFilter(workspaces=None))}
