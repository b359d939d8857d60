"""`opsapi webhooks` on a real database and a receiver on loopback."""

import asyncio
import base64
import json
import secrets
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner, Result

from opsapi.cli.app import app
from support.receiver import Receiver, answers


@pytest.fixture
def config(tmp_path: Path) -> Path:
    audit, encryption = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    path = tmp_path / "opsapi.yaml"
    held = {
        "keys": {"audit": audit, "encryption": [encryption]},
        "database": {"url": f"sqlite:///{tmp_path / 'state.db'}"},
        "webhooks": {
            "allow": ["127.0.0.1"],
            "channels": [{"name": "slack:#ops", "url": "https://hooks.slack.example.com/x"}],
        },
    }
    path.write_text(json.dumps(held))
    return path


async def run(config: Path, *arguments: str) -> Result:
    """In a thread: the command line runs an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", *arguments, "-c", str(config)])


async def test_a_webhook_is_created_pinged_listed_and_deleted(config: Path) -> None:
    async with Receiver() as receiver:
        made = await run(config, "create", receiver.url(), "--event", "internal.backup.failed", "--json")
        assert made.exit_code == 0, made.output
        held = json.loads(made.stdout)
        webhook = held["webhook"]["id"]
        well = await run(config, "ping", webhook)
        assert (well.exit_code, well.stdout.startswith("delivered: 204 in ")) == (0, True)
        (request,) = receiver.received
        Webhook(held["secret"]).verify(request.body, request.headers)
        receiver.by_path["/in"] = answers(500)
        sick = await run(config, "ping", webhook)
        assert sick.exit_code == 1
        assert "not delivered: answered 500" in sick.output
    listed = json.loads((await run(config, "list", "--json")).stdout)
    assert [(one["id"], one["event_types"]) for one in listed] == [(webhook, ["internal.backup.failed"])]
    log = json.loads((await run(config, "deliveries", webhook, "--json")).stdout)
    assert [one["state"] for one in log] == ["dead", "delivered"]
    dead = await run(config, "deliveries", webhook, "--dead")
    assert "answered 500" in dead.stdout
    assert held["secret"] not in (await run(config, "list")).stdout
    assert (await run(config, "deliveries", "slack:#ops")).exit_code == 0
    assert (await run(config, "delete", webhook, "--yes")).exit_code == 0
    gone = await run(config, "ping", webhook)
    assert (gone.exit_code, "RESOURCE_NOT_FOUND" in gone.output) == (1, True)


async def test_what_leads_inward_is_refused_with_what_to_do(config: Path) -> None:
    refused = await run(config, "create", "https://10.0.0.1/hook")
    assert refused.exit_code == 1
    assert "webhooks.allow" in refused.output


async def test_the_check_of_the_configuration_looks_where_channels_lead(config: Path) -> None:
    held = json.loads(config.read_text())
    for url, said in (
        ("https://127.0.0.1/x", "ok       webhooks: 1 channels"),
        ("https://10.0.0.1/private", "FAILED   webhooks: slack:#ops: its host"),
    ):
        held["webhooks"]["channels"][0]["url"] = url
        config.write_text(json.dumps(held))
        checked = await asyncio.to_thread(CliRunner().invoke, app, ["config", "check", "-c", str(config)])
        assert said in checked.output
        assert "private" not in checked.output
