"""The whole service as its process, on SQLite and on PostgreSQL: its state outlives it and is shared by replicas."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opsapi.cli.app import app
from support.database import PostgresServer, empty_database_url, postgres, sqlite_template
from support.playground_process import PlaygroundProcess, playground
from support.requests import Api
from support.serving import START_SECONDS, serving

__all__ = ["empty_database_url", "postgres", "sqlite_template"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaygroundProcess]:
    with playground(tmp_path_factory.mktemp("cluster"), "--world", "demo") as running:
        yield running


def write_config(folder: Path, url: str, kubeconfig: Path) -> Path:
    config = folder / "opsapi.yaml"
    config.write_text(
        json.dumps(
            {
                "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
                "http": {"port": 0},
                "database": {"url": url},
                "workspaces": [{"id": "ws-1", "kubeconfig": str(kubeconfig), "mode": "act", "namespaces": ["shop"]}],
            }
        )
    )
    return config


async def cli(*arguments: str) -> str:
    """In a thread: the command line runs an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


async def finished(api: Api, operation: str) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        held: dict[str, Any] = (await asyncio.to_thread(api.get, f"/operations/{operation}?wait=10")).ok()["data"]
        if held["status"] not in ("queued", "running"):
            return held
        assert time.monotonic() < deadline, held


async def answered(api: Api, path: str) -> Any:
    """The first answer that is no 503: a service that has just started reads its workspaces first."""
    deadline = time.monotonic() + START_SECONDS
    while (answer := await asyncio.to_thread(api.get, path)).status == 503:
        assert time.monotonic() < deadline, answer.body
        await asyncio.sleep(0.2)
    return answer.ok()


async def test_what_one_process_did_the_next_one_knows(
    empty_database_url: str, cluster: PlaygroundProcess, tmp_path: Path
) -> None:
    config = write_config(tmp_path, empty_database_url, cluster.kubeconfig)
    made = json.loads(await cli("accounts", "create", "a", "-g", "workspace:write", "-c", str(config), "--json"))
    path = "/workspaces/ws-1/deployments/storefront/scale"
    before = int(cluster.kubectl("get", "deployment", "storefront", "-n", "shop", "-o", "jsonpath={.spec.replicas}"))
    with serving(config, "first") as url:
        api = Api(url, made["account"]["id"], made["secret"])
        await answered(api, "/workspaces/ws-1/overview")
        begun = await asyncio.to_thread(
            api.post, path, {"replicas": before + 1}, headers={"Idempotency-Key": "only-once"}
        )
        assert begun.status == 202
        ended = await finished(api, begun.json["meta"]["operation_id"])
        assert (ended["status"], ended["outcome"]) == ("completed", "changed")
    with serving(config, "second") as url:
        api = Api(url, made["account"]["id"], made["secret"])
        await answered(api, "/workspaces/ws-1/overview")
        again = await asyncio.to_thread(
            api.post, path, {"replicas": before + 1}, headers={"Idempotency-Key": "only-once"}
        )
        assert (again.status, again.json["data"]) == (202, begun.json["data"])
        assert (await finished(api, begun.json["meta"]["operation_id"]))["status"] == "completed"
    assert "sound" in await cli("audit", "verify", "-c", str(config))
    cluster.kubectl("scale", "deployment", "storefront", "-n", "shop", f"--replicas={before}")


@pytest.mark.postgres
async def test_replicas_share_accounts_operations_and_locks(
    postgres: PostgresServer, cluster: PlaygroundProcess, tmp_path: Path
) -> None:
    url = postgres.url(await postgres.create(migrated=False))
    config = write_config(tmp_path, url, cluster.kubeconfig)
    made = json.loads(await cli("accounts", "create", "a", "-g", "workspace:write", "-c", str(config), "--json"))
    account = made["account"]["id"]
    with serving(config, "left") as left_url, serving(config, "right") as right_url:
        left, right = (Api(url, account, made["secret"]) for url in (left_url, right_url))
        for api in (left, right):
            await answered(api, "/workspaces/ws-1/overview")
        path = "/workspaces/ws-1/deployments/basket/scale"
        answers = await asyncio.gather(
            *(asyncio.to_thread(api.post, path, {"replicas": 3}) for api in (left, right) for _ in range(5))
        )
        assert sorted(answer.status for answer in answers).count(202) == 1
        assert {answer.status for answer in answers} <= {200, 202, 409}
        operation = next(a.json["meta"]["operation_id"] for a in answers if a.status == 202)
        assert (await finished(right, operation))["status"] == "completed"
        assert (await finished(left, operation))["status"] == "completed"
