"""The service as its process: racing callers, an answer that was lost with the process, and stopping in the middle.

The cluster's time all but stands still, so that what was begun is in the middle until a test lets time pass.
"""

import asyncio
import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import idempotency_keys, operation_locks, operations
from opsapi.cli.app import app
from opsapi.operations.model import Outcome, State
from support.playground_process import PlaygroundProcess, playground
from support.requests import Answer, Api
from support.serving import START_SECONDS, serving

pytestmark = [pytest.mark.slow]
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaygroundProcess]:
    with playground(tmp_path_factory.mktemp("cluster"), "--world", "demo", "--speed", "0.01") as running:
        yield running


class Installation:
    """A configuration, an account, and the database that all its processes share."""

    def __init__(self, folder: Path, url: str, cluster: PlaygroundProcess, **operations: Any) -> None:
        self.config = folder / "opsapi.yaml"
        self.database = Database(url)
        self.cluster = cluster
        workspace = {"id": "ws-1", "kubeconfig": str(cluster.kubeconfig), "mode": "act", "namespaces": ["shop"]}
        self.config.write_text(
            json.dumps(
                {
                    "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
                    "http": {"port": 0, "limits": {"workspace_operations": 10_000}},
                    "database": {"url": url},
                    "operations": operations,
                    "scaling": {"hold_seconds": 0.2, "poll_seconds": 0.1},
                    "workspaces": [workspace],
                }
            )
        )
        self.account: dict[str, Any] = {}

    async def create_account(self) -> None:
        arguments = ["accounts", "create", "a", "-g", "workspace:write", "-c", str(self.config), "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert result.exit_code == 0, result.output
        self.account = json.loads(result.stdout)

    def replicas(self, name: str) -> int:
        path = ("get", "deployment", name, "-n", "shop", "-o", "jsonpath={.spec.replicas}")
        return int(self.cluster.kubectl(*path))

    async def api(self, url: str) -> Api:
        """Once the service has read its workspace."""
        api = Api(url, self.account["account"]["id"], self.account["secret"])
        deadline = time.monotonic() + START_SECONDS
        while (answer := await asyncio.to_thread(api.get, "/workspaces/ws-1/overview")).status == 503:
            assert time.monotonic() < deadline, answer.body
            await asyncio.sleep(0.1)
        answer.ok()
        return api

    async def row(self, operation_id: str) -> Any:
        async with self.database.read() as connection:
            statement = sa.select(operations).where(operations.c.id == operation_id)
            return (await connection.execute(statement)).one()

    async def count(self) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(operations))).scalar_one())


async def scale(api: Api, name: str, replicas: int, key: str | None = None) -> Answer:
    headers = {} if key is None else {"Idempotency-Key": key}
    path = f"/workspaces/ws-1/deployments/{name}/scale"
    return await asyncio.to_thread(api.post, path, {"replicas": replicas}, headers)


async def until_status(api: Api, operation: str, *wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        held: dict[str, Any] = (await asyncio.to_thread(api.get, f"/operations/{operation}")).ok()["data"]
        if held["status"] in wanted:
            return held
        assert time.monotonic() < deadline, held
        await asyncio.sleep(0.05)


async def until_verifying(api: Api, operation: str) -> None:
    """Its effect is recorded, and its last step looks whether the pods get ready."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        held = (await asyncio.to_thread(api.get, f"/operations/{operation}")).ok()["data"]
        if [step["status"] for step in held["steps"]] == ["completed", "in_progress"]:
            return
        assert time.monotonic() < deadline, held
        await asyncio.sleep(0.05)


async def test_of_fifty_racing_calls_one_begins_and_the_others_are_told_of_it(
    database_url: str, cluster: PlaygroundProcess, tmp_path: Path
) -> None:
    here = Installation(tmp_path, database_url, cluster)
    await here.create_account()
    wanted = here.replicas("storefront") + 1
    with serving(here.config, "racing") as url:
        api = await here.api(url)
        answers = await asyncio.gather(*(scale(api, "storefront", wanted) for _ in range(50)))
        assert Counter(answer.status for answer in answers) == {202: 1, 409: 49}
        (begun,) = [answer.json["meta"]["operation_id"] for answer in answers if answer.status == 202]
        errors = [answer.json["error"] for answer in answers if answer.status == 409]
        assert {error["code"] for error in errors} == {"OPERATION_IN_PROGRESS"}
        assert {error["details"]["current_operation_id"] for error in errors} == {begun}
        twins = await asyncio.gather(*(scale(api, "basket", here.replicas("basket") + 1, "once") for _ in range(2)))
        assert [twin.status for twin in twins] == [202, 202]
        assert twins[0].json["data"] == twins[1].json["data"]
        assert twins[0].json["meta"]["operation_id"] == twins[1].json["meta"]["operation_id"]
        assert sorted(twin.headers.get("idempotency-replayed", "") for twin in twins) == ["", "true"]
        assert await here.count() == 2
        await asyncio.to_thread(cluster.advance, 120)
        assert (await until_status(api, begun, "completed"))["outcome"] == "changed"
    await here.database.close()


async def test_a_call_whose_answer_died_with_the_process_finds_its_operation(
    database_url: str, cluster: PlaygroundProcess, tmp_path: Path
) -> None:
    here = Installation(tmp_path, database_url, cluster, lease_seconds=1)
    await here.create_account()
    wanted = here.replicas("basket") + 1
    ready = tmp_path / "mortal.json"
    command = [sys.executable, "-m", "support.mortal_service", "serve", "-c", str(here.config), "--ready-file"]
    with (tmp_path / "mortal.log").open("wb") as log:
        process = subprocess.Popen([*command, str(ready)], stderr=log, env=os.environ | {"PYTHONPATH": str(_TESTS)})
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, (tmp_path / "mortal.log").read_text()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        api = await here.api(json.loads(ready.read_text())["url"])
        with pytest.raises(OSError):  # noqa: PT011  whichever way the connection breaks
            await scale(api, "basket", wanted, "lost")
        assert await asyncio.to_thread(process.wait, START_SECONDS) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
    async with here.database.write() as connection:
        (begun,) = (await connection.execute(sa.select(operations.c.id))).scalars().all()
        # The claim of a process that died ends by itself; a test does not wait for it.
        await connection.execute(sa.update(idempotency_keys).values(claimed_until=LONG_AGO))
    with serving(here.config, "heir") as url:
        api = await here.api(url)
        again = await scale(api, "basket", wanted, "lost")
        assert (again.status, again.json["meta"]["operation_id"]) == (202, begun)
        assert (await scale(api, "basket", wanted, "lost")).json["data"] == again.json["data"]
        assert await here.count() == 1
        await asyncio.to_thread(cluster.advance, 120)
        assert (await until_status(api, begun, "completed"))["outcome"] == "changed"
    assert here.replicas("basket") == wanted
    await here.database.close()


async def test_what_a_stopping_service_cannot_end_the_next_takes_up_at_once(
    database_url: str, cluster: PlaygroundProcess, tmp_path: Path
) -> None:
    here = Installation(tmp_path, database_url, cluster, lease_seconds=3600, drain_seconds=0.2)
    await here.create_account()
    wanted = here.replicas("storefront") + 1
    with serving(here.config, "stopping") as url:
        api = await here.api(url)
        begun = (await scale(api, "storefront", wanted)).ok()["meta"]["operation_id"]
        await until_verifying(api, begun)
    left = await here.row(begun)
    assert (left.state, left.lease_holder, left.attempts) == (State.RUNNING, None, 1)
    async with here.database.read() as connection:
        assert len((await connection.execute(sa.select(operation_locks))).all()) == 1
    with serving(here.config, "next") as url:
        api = await here.api(url)
        await asyncio.to_thread(cluster.advance, 120)
        ended = await until_status(api, begun, "completed", "failed", "rolled_back")
        assert (ended["status"], ended["outcome"]) == ("completed", "changed")
    assert (await here.row(begun)).attempts == 2
    assert here.replicas("storefront") == wanted
    await here.database.close()


async def test_a_stopping_service_lets_what_ends_in_time_end(
    database_url: str, cluster: PlaygroundProcess, tmp_path: Path
) -> None:
    here = Installation(tmp_path, database_url, cluster, lease_seconds=3600, drain_seconds=30)
    await here.create_account()
    wanted = here.replicas("basket") + 1
    with serving(here.config, "draining") as url:
        api = await here.api(url)
        begun = (await scale(api, "basket", wanted)).ok()["meta"]["operation_id"]
        await until_verifying(api, begun)
        ready = threading.Timer(1.0, cluster.advance, (120,))
        ready.start()
    ready.join()
    ended = await here.row(begun)
    assert (ended.state, ended.outcome, ended.attempts) == (State.COMPLETED, Outcome.CHANGED, 1)
    await here.database.close()
