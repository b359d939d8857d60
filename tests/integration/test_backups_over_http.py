"""A backup's life over HTTP on the playground, and what is refused on the way."""

import base64
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opsapi.cli.app import app
from support.playground_process import PlaygroundProcess, playground
from support.requests import Answer, Api
from support.serving import START_SECONDS, serving

pytestmark = pytest.mark.slow


@dataclass
class Vault:
    cluster: PlaygroundProcess
    store: Path
    person: Api
    agent: Api

    def ended(self, begun: Answer) -> dict[str, Any]:
        assert (begun.status, begun.json["data"]["status"]) == (202, "started"), begun.json
        deadline = time.monotonic() + START_SECONDS
        while True:
            path = f"/operations/{begun.json['data']['operation_id']}?wait=10"
            held: dict[str, Any] = self.person.get(path).ok()["data"]
            if held["status"] not in ("queued", "running"):
                return held
            assert time.monotonic() < deadline, held

    def files(self) -> list[Path]:
        return [path for path in self.store.rglob("*") if path.is_file()]

    def shop(self) -> set[tuple[str, str, str]]:
        """What stands in the namespace, by uid."""
        found = self.cluster.objects("deployments,services,configmaps,secrets,ingresses", "-n", "shop")
        return {(one["kind"], one["metadata"]["name"], one["metadata"]["uid"]) for one in found}


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    folder = tmp_path_factory.mktemp("backups")
    store = folder / "store"
    store.mkdir()
    with playground(folder, "--world", "demo") as cluster:
        config = folder / "opsapi.yaml"
        settings = {
            "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
            "http": {"port": 0},
            "database": {"url": "sqlite:///opsapi.db"},
            "backups": {"engine": "manifests", "store": {"url": f"file://{store}"}},
            "workspaces": [
                {"id": "ws-1", "kubeconfig": str(cluster.kubeconfig), "mode": "act", "namespaces": ["shop"]}
            ],
        }
        config.write_text(json.dumps(settings))

        def account(kind: str, *grants: str) -> tuple[str, str]:
            wanted = [part for grant in grants for part in ("-g", grant)]
            arguments = ["accounts", "create", kind, "--kind", kind, *wanted, "-c", str(config), "--json"]
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, result.output
            made = json.loads(result.output)
            return made["account"]["id"], made["secret"]

        person = account("person", "workspace:admin", "application:write")
        agent = account("agent", "workspace:write", "application:write")
        with serving(config, "service") as url:
            held = Vault(cluster, store, Api(url, *person), Api(url, *agent))
            deadline = time.monotonic() + START_SECONDS
            while held.person.get("/workspaces/ws-1/overview").status == 503:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield held


def test_a_backup_is_made_refused_where_it_must_be_found_damaged_and_deleted(vault: Vault) -> None:
    begun = vault.person.post("/applications/app-storefront/backup", {"include_volumes": False})
    assert vault.ended(begun)["outcome"] == "changed"
    path = f"/backups/{begun.json['data']['backup_id']}"
    shop, files = vault.shop(), len(vault.files())

    for refused in (vault.agent.post(f"{path}/restore", {}), vault.agent.request("DELETE", path)):
        assert (refused.status, refused.json["error"]["code"]) == (403, "INSUFFICIENT_INTERNAL_PERMISSIONS")
    taken = vault.person.post(f"{path}/restore", {"include_volumes": False})
    assert (taken.status, taken.json["error"]["code"]) == (409, "OBJECTS_EXIST")
    assert "Deployment/storefront" in taken.json["error"]["details"]["existing"]

    (written,) = vault.store.rglob("deployments.apps/storefront.json")
    written.write_bytes(written.read_bytes().replace(b"storefront", b"storefronx", 1))
    damage = ["objects/deployments.apps/storefront.json is not what was written"]
    damaged = vault.person.post(f"{path}/restore", {"include_volumes": False})
    assert (damaged.status, damaged.json["error"]["code"]) == (409, "BACKUP_DAMAGED")
    assert damaged.json["error"]["details"]["damage"] == damage
    verified = vault.ended(vault.person.post(f"{path}/verify", {}))
    assert (verified["status"], verified["error"]["code"]) == ("failed", "BACKUP_DAMAGED")
    shown = vault.person.get(path).ok()["data"]
    assert (shown["intact"], shown["damage"]) == (False, damage)
    assert (vault.shop(), len(vault.files())) == (shop, files)

    assert vault.ended(vault.person.request("DELETE", path))["status"] == "completed"
    assert (vault.files(), vault.person.get(path).ok()["data"]["status"]) == ([], "deleted")
    assert vault.person.request("DELETE", path).status == 404
    gone = vault.person.post(f"{path}/restore", {})
    assert (gone.status, gone.json["error"]["details"]["state"]) == (409, "deleted")
    assert vault.shop() == shop
