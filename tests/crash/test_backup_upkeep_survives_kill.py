"""A worker dies by kill -9 while Velero restores, a backup is deleted or verified; another goes on, and nothing is done
twice."""

import pytest

from opsapi.backups import kinds
from opsapi.backups.model import Status
from opsapi.operations.model import Outcome, State, UndoState
from support.backup_deaths import Scene, scene

__all__ = ["scene"]

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("before:intend", marks=SLOW),
        pytest.param("after:intend", marks=SLOW),
        # the rules, the Restore, its record
        pytest.param("before:create:1", marks=SLOW),
        pytest.param("after:create:1", marks=SLOW),
        pytest.param("before:create:2", marks=SLOW),
        "after:create:2",
        pytest.param("before:record", marks=SLOW),
        pytest.param("after:record", marks=SLOW),
        # the rules are taken away
        pytest.param("before:delete", marks=SLOW),
        "after:delete",
        pytest.param("before:_end", marks=SLOW),
        pytest.param("after:_end", marks=SLOW),
    ],
)
async def test_velero_restores_once_and_inert_wherever_the_worker_dies(scene: Scene, point: str) -> None:
    await scene.restoring(velero=True)
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    name = f"velero/opsapi-{operation.id}"
    assert stage.objects.targets("create") == [f"configmaps/{name}", f"restores.velero.io/{name}"]
    assert stage.objects.targets("delete") == [f"configmaps/{name}"]
    made = stage.objects.find(kinds.STATEFUL_SETS, "elsewhere", "db")
    assert made is not None
    assert made["spec"]["replicas"] == 0
    await scene.ended(operation, found="restore_with_velero" if point in ("after:create:2", "before:record") else "")


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after:fail_step", marks=SLOW),
        pytest.param("before:delete:1", marks=SLOW),
        "after:delete:1",
        pytest.param("after:delete:2", marks=SLOW),
        pytest.param("before:_end", marks=SLOW),
    ],
)
async def test_what_velero_restored_is_taken_away_once_wherever_the_worker_dies(scene: Scene, point: str) -> None:
    """Activated, it never becomes ready."""
    await scene.restoring(activate=True, velero=True)
    operation, stage = await scene.play(point)
    assert operation.state is State.ROLLED_BACK, operation
    undo = operation.step("restore_with_velero").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE
    assert sorted(stage.objects.targets("delete")) == ["services/elsewhere/db", "statefulsets.apps/elsewhere/db"]
    assert {place for place in stage.objects.held if place[1] == "elsewhere"} == set()
    await scene.ended(operation)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("before:intend", marks=SLOW),
        pytest.param("after:intend", marks=SLOW),
        # the index, the last file, the snapshots
        pytest.param("before:store.delete:1", marks=SLOW),
        "after:store.delete:1",
        pytest.param("after:store.delete:16", marks=SLOW),
        pytest.param("before:delete:1", marks=SLOW),
        "after:delete:1",
        pytest.param("after:delete:3", marks=SLOW),
        pytest.param("before:record", marks=SLOW),
        pytest.param("after:record", marks=SLOW),
        pytest.param("after:note_erased", marks=SLOW),
        pytest.param("before:_end", marks=SLOW),
        pytest.param("after:_end", marks=SLOW),
    ],
)
async def test_a_deletion_takes_everything_away_once_wherever_the_worker_dies(scene: Scene, point: str) -> None:
    backup = await scene.deleting()
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    assert [path for path in scene.folder.rglob("*") if path.is_file()] == []
    deleted = stage.objects.targets("delete")
    assert len(deleted) == len(set(deleted)) == 3
    held = await stage.records.get(backup.id)
    assert held is not None
    assert held.status is Status.DELETED
    await scene.ended(operation, found="erase" if point in ("after:delete:3", "before:record") else "")


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after:intend", marks=SLOW),
        pytest.param("before:create", marks=SLOW),
        "after:create",
        pytest.param("after:record", marks=SLOW),
        pytest.param("after:note_erased", marks=SLOW),
        pytest.param("before:_end", marks=SLOW),
    ],
)
async def test_velero_is_asked_once_to_delete_wherever_the_worker_dies(scene: Scene, point: str) -> None:
    backup = await scene.deleting(velero=True)
    operation, stage = await scene.play(point)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    request = f"deletebackuprequests.velero.io/velero/opsapi-{operation.id}"
    assert (stage.objects.targets("create"), stage.objects.targets("delete")) == ([request], [])
    held = await stage.records.get(backup.id)
    assert held is not None
    assert held.status is Status.DELETED
    await scene.ended(operation, found="erase" if point == "after:create" else "")


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize(
    "point", [pytest.param("before:note_verification", marks=SLOW), "after:note_verification", "before:_end"]
)
async def test_a_verification_says_the_same_wherever_the_worker_dies(scene: Scene, point: str, damaged: bool) -> None:
    backup, _ = await scene.verifying()
    if damaged:
        next(iter(scene.folder.rglob("db-env.json"))).write_bytes(b"{}")
    operation, stage = await scene.play(point)
    held = await stage.records.get(backup.id)
    assert held is not None
    if damaged:
        assert operation.error is not None
        assert (operation.state, operation.error.code) == (State.FAILED, "BACKUP_DAMAGED")
        assert held.damage == ["objects/configmaps/db-env.json is not what was written"]
    else:
        assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
        assert held.damage == []
    assert held.verified_at is not None
    assert stage.objects.writes == []
    await scene.ended(operation)
