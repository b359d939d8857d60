"""Restoring into another workspace: inert, as nobody's, and only by who may do it on both sides."""

from typing import Any

import pytest

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.backups import kinds
from opsapi.backups.errors import BackupDamaged, BackupNotFound, ObjectsExist
from opsapi.backups.model import Backup
from opsapi.kit.caller import Call
from opsapi.kit.errors import InvalidState
from opsapi.operations.model import Outcome, State
from opsapi.operations.ports import OperationFilter
from opsapi.workspaces.errors import WorkspaceNotFound
from support.api_objects import FakeObjects
from support.backing_up import BackupStage, application
from support.backup_stores import FakeStore

HERE, THERE, READ = "workspace:admin@ws-123", "workspace:admin@ws-9", "application:read@ws-123"
TARGET = {"target_workspace": "ws-9", "include_volumes": False}


@pytest.fixture
async def backup(stage: BackupStage) -> Backup:
    """Of an application that a GitOps tool keeps and whose id is a label."""
    labels = {"argocd.argoproj.io/instance": "shop", "hexabase.ai/application-id": "app-db"}
    stage.objects.put(kinds.STATEFUL_SETS, application(**labels))
    stage.application_id()
    return await stage.made(include_volumes=False)


@pytest.fixture
def there(stage: BackupStage, backup: Backup) -> FakeObjects:
    """Another workspace's cluster, with a namespace of the same name."""
    made = FakeObjects(workspace_id="ws-9")
    made.put(kinds.NAMESPACES, {"metadata": {"name": backup.namespace, "namespace": ""}})
    stage.arrange(others={"ws-9": made})
    stage.objects.writes.clear()
    return made


def both(stage: BackupStage) -> Call:
    return stage.call(HERE, READ, THERE)


async def test_it_arrives_inert_there_and_is_not_taken_for_the_original(
    stage: BackupStage, backup: Backup, there: FakeObjects
) -> None:
    reply = await stage.restore(backup, call=both(stage), **TARGET)
    operation = await stage.ended(reply)
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED), operation.error
    assert (operation.workspace_id, reply.data.workspace_id, reply.data.namespace) == ("ws-9", "ws-9", "shop")
    made = there.find(kinds.STATEFUL_SETS, "shop", "db")
    assert made is not None
    assert made["spec"]["replicas"] == 0
    assert made["metadata"]["labels"] == {"app": "db"}
    assert reply.data.application_id == operation.application_id != backup.application_id
    exposed = there.find(kinds.SERVICES, "shop", "db")
    assert exposed is not None
    assert exposed["spec"]["type"] == "ClusterIP"
    absent = (kinds.INGRESSES, kinds.AUTOSCALERS, kinds.CLAIMS)
    assert [one for one in there.held if one[0] in absent] == []
    assert stage.objects.writes == []


@pytest.mark.parametrize(
    ("held", "error"),
    [
        ((HERE, READ), WorkspaceNotFound),
        ((HERE, READ, "workspace:write@ws-9"), InsufficientInternalPermissions),
        ((THERE, READ), InsufficientInternalPermissions),
        ((THERE, READ, "workspace:write@ws-123"), InsufficientInternalPermissions),
        ((THERE,), BackupNotFound),
    ],
)
async def test_who_is_no_admin_on_both_sides_is_refused_before_anything_is_touched(
    stage: BackupStage, backup: Backup, there: FakeObjects, held: tuple[str, ...], error: type[Exception]
) -> None:
    known = len(await stage.ledger.find(OperationFilter(workspaces=None)))
    for dry_run in (False, True):
        with pytest.raises(error):
            await stage.restore(backup, call=stage.call(*held), dry_run=dry_run, **TARGET)
    assert len(await stage.ledger.find(OperationFilter(workspaces=None))) == known
    assert (stage.objects.writes, there.writes, there.dry_runs) == ([], [], [])


async def test_what_is_there_is_listed_and_damage_and_volumes_are_refused_untouched(
    stage: BackupStage, backup: Backup, there: FakeObjects
) -> None:
    there.put(kinds.SERVICES, {"metadata": {"name": "db", "namespace": "shop"}})
    with pytest.raises(ObjectsExist) as caught:
        await stage.restore(backup, call=both(stage), **TARGET)
    details: Any = caught.value.details
    assert details.existing == ["Service/db"]
    there.remove(kinds.SERVICES, "shop", "db")
    with pytest.raises(InvalidState, match="cannot bring back the volumes"):
        await stage.restore(backup, call=both(stage), target_workspace="ws-9")
    assert isinstance(stage.store, FakeStore)
    stage.store.flip(f"{backup.location}/objects/services/db.json")
    with pytest.raises(BackupDamaged):
        await stage.restore(backup, call=both(stage), **TARGET)
    assert (stage.objects.writes, there.writes) == ([], [])
