"""A worker dies by kill -9 at every point of a remediation; another finishes, and nothing is done twice."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import Outcome, State
from support.mortal_playbooks import FiledObjects
from support.mortal_remediation import MortalEmergency, carry_out

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0
_AFTER_THE_LEASE = 60.0
POINTS = [
    # around the eviction, around the scaling, at the end
    "after:put_item:1",
    "after:evict:1",
    "after:put_item:2",
    "after:complete_step:1",
    "after:put_item:3",
    "before:patch:1",
    "after:patch:1",
    "after:put_item:4",
    "before:_end",
]


async def run_worker(url: str, path: Path, point: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_remediation", url, str(path), point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def hung(database: Database, path: Path) -> str:
    """Three replicas of which one hangs, an incident about it, and a remediation that is begun."""
    scene = MortalEmergency(database, path)
    scene.deploy(replicas=3, ready=2)
    for name, ready in (("web-1", True), ("web-2", True), ("web-3", False)):
        scene.pod(name, ready=ready)
    assert isinstance(scene.objects, FiledObjects)
    scene.objects.save()
    incident_id = (await scene.report()).data.incident_id
    await scene.manage(incident_id, "auto_remediate", remediation_strategy="restart_and_scale")
    return incident_id


@pytest.mark.parametrize("point", POINTS)
async def test_each_pod_is_evicted_once_and_the_replicas_are_set_once(
    database_url: str, database: Database, tmp_path: Path, point: str
) -> None:
    path = tmp_path / "cluster.json"
    incident_id = await hung(database, path)
    assert await run_worker(database_url, path, point) == -signal.SIGKILL
    ended = await carry_out(database, path, "never", later=_AFTER_THE_LEASE)
    assert (ended.state, ended.outcome, ended.attempts) == (State.COMPLETED, Outcome.CHANGED, 2), ended
    objects = FiledObjects(path)
    assert objects.targets("evict") == ["pods/shop/web-3"]
    assert objects.targets("patch") == ["deployments.apps/shop/web"]
    scene = MortalEmergency(database, path)
    assert scene.replicas() == 4
    await scene.watch.look()
    told = (await scene.look_at(incident_id)).data
    assert [entry.event for entry in told.timeline] == ["opened", "remediation_started", "remediation_ended"]
