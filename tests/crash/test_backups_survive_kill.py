"""A worker dies by kill -9 at every point of a backup and a restore; another goes on, and nothing is done twice."""

import signal

import pytest

from opsapi.backups import kinds
from opsapi.backups.model import Status
from opsapi.backups.ports import BackupFilter
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Outcome, State, UndoState
from support.backup_deaths import AFTER_THE_LEASE, Scene, run_worker, scene
from support.mortal_backups import carry_out

__all__ = ["scene"]

SLOW = pytest.mark.slow
_ALL = BackupFilter(workspaces=None)


@pytest.mark.parametrize(
    "point",
    [
        # snapshots: before the effect, after it, after its record
        pytest.param("before:open", marks=SLOW),
        pytest.param("after:put_item:1", marks=SLOW),
        pytest.param("before:create:1", marks=SLOW),
        "after:create:1",
        pytest.param("after:create:3", marks=SLOW),
        pytest.param("after:put_item:4", marks=SLOW),
        "after:complete_step:1",
        # manifests
        pytest.param("before:intend:1", marks=SLOW),
        pytest.param("after:intend:1", marks=SLOW),
        pytest.param("before:put:1", marks=SLOW),
        "after:put:3",
        pytest.param("before:put:16", marks=SLOW),
        "after:put:16",
        pytest.param("before:record:1", marks=SLOW),
        pytest.param("after:record:1", marks=SLOW),
        # the proof
        pytest.param("before:close", marks=SLOW),
        "after:close",
        pytest.param("after:note_verification", marks=SLOW),
        pytest.param("before:_end", marks=SLOW),
        pytest.param("after:_end", marks=SLOW),
    ],
)
async def test_a_backup_is_finished_whole_and_once(scene: Scene, point: str) -> None:
    await scene.begun()
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    backup = await stage.reader.find(stage.call(), (operation.result or {})["backup_id"], Permission.APPLICATION_READ)
    assert backup.status is Status.COMPLETED
    assert len(backup.objects) == 15
    created = stage.objects.targets("create")
    assert len(created) == len(set(created)) == 3
    assert {place[2] for place in stage.objects.held if place[0] == kinds.SNAPSHOTS} == {
        volume.snapshot.name for volume in backup.volumes if volume.snapshot
    }
    stored = await stage.store.list(backup.location)
    assert len(stored) == 16
    assert sum(one.size for one in stored) == backup.size_bytes


async def test_an_index_that_nobody_recorded_is_found_and_not_written_again(scene: Scene) -> None:
    await scene.begun()
    assert await run_worker(scene.url, scene.path, scene.folder, "after:put:16") == -signal.SIGKILL
    (index,) = scene.folder.rglob("index.json")
    written = index.stat().st_ino
    stage = await carry_out(scene.database, scene.path, scene.folder, "never", later=AFTER_THE_LEASE)
    assert (await stage.last()).state is State.COMPLETED
    assert index.stat().st_ino == written


async def test_a_half_written_backup_is_never_listed_as_complete(scene: Scene) -> None:
    await scene.begun()
    assert await run_worker(scene.url, scene.path, scene.folder, "before:put:16") == -signal.SIGKILL
    stage = scene.stage()
    operation = await stage.last()
    listed = await stage.records.find(_ALL)
    assert [one.status for one in listed] == [Status.IN_PROGRESS]
    assert not list(scene.folder.rglob("index.json"))
    await stage.ledger.cancel(operation.id, stage.call())
    ended = await carry_out(scene.database, scene.path, scene.folder, "never", later=AFTER_THE_LEASE)
    assert [one.status for one in await ended.records.find(_ALL)] == [Status.FAILED]
    assert await ended.retention.sweep() == 1
    assert not [path for path in scene.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after:complete_step:1", marks=SLOW),
        pytest.param("after:put_item:1", marks=SLOW),
        pytest.param("before:create:1", marks=SLOW),
        "after:create:1",
        pytest.param("after:put_item:2", marks=SLOW),
        pytest.param("after:create:9", marks=SLOW),
        "after:create:19",
        pytest.param("after:complete_step:3", marks=SLOW),
        "before:_end",
        pytest.param("after:_end", marks=SLOW),
    ],
)
async def test_a_restore_is_finished_and_every_object_created_once(scene: Scene, point: str) -> None:
    backup = await scene.restoring()
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    created = stage.objects.targets("create")
    assert len(created) == len(set(created)) == len(backup.objects) - 2 + 6
    made = stage.objects.find(kinds.STATEFUL_SETS, "elsewhere", "db")
    assert made is not None
    assert made["spec"]["replicas"] == 0
    assert stage.objects.targets("delete") == []


@pytest.mark.parametrize(
    "point",
    [
        "after:fail_step",
        pytest.param("before:delete:1", marks=SLOW),
        "after:delete:1",
        pytest.param("after:delete:7", marks=SLOW),
        pytest.param("after:note_undo:1", marks=SLOW),
    ],
)
async def test_an_undone_restore_leaves_nothing_wherever_its_worker_dies(scene: Scene, point: str) -> None:
    """Activated, it never becomes ready: everything is taken away again."""
    await scene.restoring(activate=True)
    before = {place for place in scene.stage().objects.held if place[1] == "elsewhere"}
    operation, stage = await scene.play(point)
    assert operation.state is State.ROLLED_BACK, operation
    undo = operation.step("create_objects").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE
    assert {place for place in stage.objects.held if place[1] == "elsewhere"} == before
    deleted = stage.objects.targets("delete")
    assert len(deleted) == len(set(deleted)) == 21


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("before:create:1", marks=SLOW),
        "after:create:1",
        pytest.param("after:record:1", marks=SLOW),
        pytest.param("after:complete_step:1", marks=SLOW),
        pytest.param("after:complete_step:2", marks=SLOW),
        "after:close",
        pytest.param("before:_end", marks=SLOW),
    ],
)
async def test_velero_is_asked_for_one_backup_wherever_the_worker_dies(scene: Scene, point: str) -> None:
    stage = scene.stage()
    stage.put_application()
    stage.install_velero()
    stage.save()
    stage.arrange()
    await stage.back_up()
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    assert len(stage.objects.targets("create")) == 1
    (backup,) = await stage.records.find(_ALL)
    assert (backup.status, backup.volumes_captured) == (Status.COMPLETED, 3)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after:acquire:1", marks=SLOW),
        pytest.param("after:put_item:1", marks=SLOW),
        "after:create:2",
        pytest.param("after:put:5", marks=SLOW),
        "after:close:1",
        pytest.param("after:put_item:2", marks=SLOW),
        pytest.param("after:release:1", marks=SLOW),
        pytest.param("after:create:5", marks=SLOW),
        pytest.param("before:_end", marks=SLOW),
    ],
)
async def test_backup_all_goes_on_with_the_application_that_it_was_at(scene: Scene, point: str) -> None:
    stage = scene.stage()
    for name in ("db", "db2"):
        stage.put_application(name)
    stage.save()
    await stage.desk.begin(stage.call(), await stage.proposed())
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation
    created = stage.objects.targets("create")
    assert len(created) == len(set(created)) == 6
    found = await stage.records.find(_ALL)
    assert {one.status for one in found} == {Status.COMPLETED}
    assert sorted(one.name for one in found) == ["db", "db2"]
    for lock in operation.locks:
        assert await stage.ledger.holder(lock) is None
