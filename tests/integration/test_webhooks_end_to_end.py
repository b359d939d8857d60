"""Webhooks of the running service: created over HTTP, told of what happens, signed, rotated, pinged, redelivered."""

import asyncio
import base64
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from typer.testing import CliRunner

from opsapi.adapters.sql.engine import Database
from opsapi.cli.app import app
from support.database import database_url, postgres, sqlite_template
from support.receiver import Receiver, answers
from support.requests import Answer, Api
from support.serving import serving
from support.webhooks import announce, make_event

__all__ = ["database_url", "postgres", "sqlite_template"]

pytestmark = pytest.mark.slow


def write_config(folder: Path, url: str, **changes: Any) -> Path:
    config = folder / "opsapi.yaml"
    key, other = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    held = {
        "keys": {"audit": key, "encryption": [other]},
        "http": {"port": 0},
        "database": {"url": url},
        "webhooks": {"allow": ["127.0.0.1"], "poll_seconds": 0.05, "backoff_seconds": 0.1},
    }
    config.write_text(json.dumps(held | changes))
    return config


async def cli(*arguments: str) -> Any:
    """In a thread: the command line runs an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def admin_of(config: Path, url: str) -> Api:
    made = await cli("accounts", "create", "admin", "--grant", "webhooks:admin", "-c", str(config), "--json")
    return Api(url, made["account"]["id"], made["secret"])


async def call(api: Api, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    return await asyncio.to_thread(api.request, method, path, body, headers)


async def test_a_webhooks_life(tmp_path: Path, database_url: str) -> None:
    config = write_config(tmp_path, database_url)
    database = Database(database_url)
    async with Receiver() as receiver:
        with serving(config, "service") as url:
            api = await admin_of(config, url)
            await _story(api, receiver, database)
    await database.close()


async def _story(api: Api, receiver: Receiver, database: Database) -> None:
    body = {"url": receiver.url(), "event_types": ["internal.operation.failed"], "description": "on call"}
    keyed = await call(api, "POST", "/webhooks", body, {"Idempotency-Key": "once"})
    assert keyed.status == 400
    made = await call(api, "POST", "/webhooks", body)
    assert made.status == 201
    webhook, secret = made.json["data"]["webhook"], made.json["data"]["secret"]
    listed = await call(api, "GET", "/webhooks")
    assert [one["id"] for one in listed.ok()["data"]["webhooks"]] == [webhook["id"]]
    assert secret.encode() not in listed.body
    path = f"/webhooks/{webhook['id']}"

    pinged = (await call(api, "POST", f"{path}/ping")).ok()["data"]
    assert (pinged["delivered"], pinged["attempt"]["status"]) == (True, 204)
    event = make_event()
    await announce(database, make_event(type="internal.backup.failed"), event)
    ping, arrived = await receiver.until("/in", 2)
    assert Webhook(secret).verify(ping.body, ping.headers)["type"] == "internal.webhook.ping"
    assert Webhook(secret).verify(arrived.body, arrived.headers)["data"] == event.data
    assert arrived.id == event.id

    rotated = (await call(api, "POST", f"{path}/rotate-secret", {"grace": "1h"})).ok()["data"]
    await call(api, "POST", f"{path}/ping")
    both = receiver.received[-1]
    for one in (secret, rotated["secret"]):
        Webhook(one).verify(both.body, both.headers)
    await call(api, "POST", f"{path}/rotate-secret", {"grace": "0s"})
    await call(api, "POST", f"{path}/ping")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(receiver.received[-1].body, receiver.received[-1].headers)

    receiver.by_path["/in"] = answers(410, b"gone <b>")
    await announce(database, make_event())
    await receiver.until("/in", len(receiver.received) + 1)
    dead = await _until_dead(api, path)
    assert dead["deliveries"][0]["history"][0]["response"] == "gone <b>"
    disabled = (await call(api, "GET", path)).ok()["data"]
    assert (disabled["enabled"], disabled["disabled_because"]) == (False, "gone")
    delivery = dead["deliveries"][0]["id"]
    refused = await call(api, "POST", f"{path}/deliveries/{delivery}/redeliver")
    assert (refused.status, refused.json["error"]["code"]) == (409, "INVALID_STATE")
    receiver.by_path["/in"] = answers(200)
    (await call(api, "PATCH", path, {"enabled": True})).ok()
    seen = len(receiver.received)
    (await call(api, "POST", f"{path}/deliveries/{delivery}/redeliver")).ok()
    again = (await receiver.until("/in", seen + 1))[-1]
    assert again.id == dead["deliveries"][0]["event_id"]
    (await call(api, "DELETE", path)).ok()
    assert (await call(api, "GET", path)).status == 404
    assert (await call(api, "GET", f"{path}/deliveries")).status == 404


async def _until_dead(api: Api, path: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            answer = (await call(api, "GET", f"{path}/deliveries?state=dead")).ok()
            if answer["data"]["deliveries"]:
                assert answer["meta"]["untrusted"] == ["/data/deliveries/0/history/0/response"]
                held: dict[str, Any] = answer["data"]
                return held


async def test_bad_input_is_refused_with_its_field_and_without_a_key_there_are_no_webhooks(tmp_path: Path) -> None:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    config = write_config(tmp_path, f"sqlite:///{tmp_path / 'state.db'}", keys={"audit": key}, webhooks={})
    with serving(config, "service") as url:
        api = await admin_of(config, url)
        for bad in (
            "http://203.0.114.7/", "https://10.0.0.1/", "https://169.254.169.254/", "https://user:pw@203.0.114.7/",
            "https://[::1]/", "gopher://203.0.114.7/", "https://nothing.invalid/", "not a url", "https://localhost/",
        ):  # fmt: skip
            answer = await call(api, "POST", "/webhooks", {"url": bad})
            assert answer.status == 400, (bad, answer)
            assert list(answer.json["error"]["details"]["fields"]) == ["url"], bad
        kinds = await call(api, "POST", "/webhooks", {"url": "https://203.0.114.7/", "event_types": ["everything"]})
        assert kinds.status == 400
        places = await call(api, "POST", "/webhooks", {"url": "https://203.0.114.7/", "workspaces": ["No Such"]})
        assert list(places.json["error"]["details"]["fields"]) == ["workspaces[0]"]
        keyless = await call(api, "POST", "/webhooks", {"url": "https://203.0.114.7/"})
        assert (keyless.status, keyless.json["error"]["code"]) == (409, "INVALID_STATE")
        assert "keys.encryption" in keyless.json["error"]["message"]
        reader = await cli("accounts", "create", "r", "--grant", "workspace:admin", "-c", str(config), "--json")
        other = Api(url, reader["account"]["id"], reader["secret"])
        assert (await call(other, "GET", "/webhooks")).status == 403
