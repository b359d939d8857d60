"""Agents ask, people decide: the whole of acting over HTTP and at the command line, on the playground."""

import base64
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from opsapi.cli.app import app
from support.playground_process import PlaygroundProcess, playground
from support.requests import Api
from support.serving import START_SECONDS, serving

pytestmark = pytest.mark.slow
_STOREFRONT = "/workspaces/ws-1/deployments/storefront/scale"


@dataclass
class Story:
    config: Path
    policy: Path
    url: str
    cluster: PlaygroundProcess
    agent: Api
    alice: Api
    maker: Api

    def cli(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "-c", str(self.config)])
        assert result.exit_code == 0, result.output
        return result.output

    def replicas(self, name: str = "storefront") -> int:
        return int(self.cluster.kubectl("get", "deployment", name, "-n", "shop", "-o", "jsonpath={.spec.replicas}"))

    def ended(self, operation: str) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS
        while True:
            held: dict[str, Any] = self.agent.get(f"/operations/{operation}?wait=10").ok()["data"]
            if held["status"] not in ("queued", "running"):
                return held
            assert time.monotonic() < deadline, held

    def rewrite_policy(self, text: str) -> None:
        part = self.policy.with_suffix(".part")
        part.write_text(text)
        os.replace(part, self.policy)

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The policy as it is shown, once it is as wanted."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            shown: dict[str, Any] = self.alice.get("/policy").ok()["data"]
            if holds(shown):
                return shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("acting")
    policy = folder / "policy.yaml"
    policy.write_text("limits: {cooldown_seconds: 0, same_action_per_hour: 100, changes_per_hour_account: 100}\n")
    with playground(folder, "--world", "demo") as cluster:
        config = folder / "opsapi.yaml"
        config.write_text(
            json.dumps(
                {
                    "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
                    "http": {"port": 0, "limits": {"workspace_operations": 1000, "other": 1000}},
                    "database": {"url": "sqlite:///opsapi.db"},
                    "policy_file": str(policy),
                    "workspaces": [
                        {
                            "id": "ws-1",
                            "kubeconfig": str(cluster.kubeconfig),
                            "mode": "act",
                            "namespaces": ["shop", "platform"],
                        }
                    ],
                }
            )
        )

        def account(name: str, kind: str, *grants: str) -> tuple[str, str]:
            wanted = [part for grant in grants for part in ("-g", grant)]
            result = CliRunner().invoke(
                app, ["accounts", "create", name, "--kind", kind, *wanted, "-c", str(config), "--json"]
            )
            assert result.exit_code == 0, result.output
            made = json.loads(result.output)
            return made["account"]["id"], made["secret"]

        agent = account("agent", "agent", "workspace:admin", "application:write")
        alice = account("alice", "person", "workspace:write", "approvals:write")
        maker = account("maker", "person", "workspace:read", "approvals:write", "workspaces:admin")
        with serving(config, "service") as url:
            held = Story(config, policy, url, cluster, Api(url, *agent), Api(url, *alice), Api(url, *maker))
            deadline = time.monotonic() + START_SECONDS
            while held.agent.get("/workspaces/ws-1/overview").status == 503:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield held


def test_a_person_approves_exactly_what_was_seen(story: Story) -> None:
    asked = story.agent.post(_STOREFRONT, {"replicas": 9, "reason": "a sale"})
    assert (asked.status, asked.json["data"]["status"], asked.json["data"]["started_at"]) == (
        202,
        "pending_approval",
        None,
    )
    path = f"/operations/{asked.json['data']['operation_id']}"
    waiting = story.alice.get("/operations?state=pending_approval").ok()["data"]["operations"]
    assert [one["operation_id"] for one in waiting] == [asked.json["data"]["operation_id"]]
    seen = story.alice.get(path).ok()["data"]["plan_hash"]
    refused = story.agent.post(f"{path}/approve", {"plan_hash": seen})
    assert (refused.status, refused.json["error"]["code"]) == (403, "INSUFFICIENT_INTERNAL_PERMISSIONS")
    stale = story.alice.post(f"{path}/approve", {"plan_hash": "0" * 64})
    assert (stale.status, stale.json["error"]["code"]) == (409, "STALE_PLAN")
    approved = story.alice.post(f"{path}/approve", {"plan_hash": seen})
    assert approved.ok()["data"]["approved_by"] == story.alice.account
    assert story.ended(asked.json["data"]["operation_id"])["status"] == "completed"
    assert story.replicas() == 9
    again = story.alice.post(f"{path}/reject", {})
    assert (again.status, again.json["error"]["code"]) == (409, "INVALID_STATE")
    changes = story.agent.get("/applications/app-storefront/changes").ok()["data"]["changes"]
    assert (changes[0]["after"], changes[0]["actor"], changes[0]["approved_by"]) == (
        9,
        story.agent.account,
        story.alice.account,
    )


def test_what_was_done_is_taken_back(story: Story) -> None:
    before = story.replicas("basket")
    begun = story.agent.post("/workspaces/ws-1/deployments/basket/scale", {"replicas": before + 1}).ok()
    operation = begun["data"]["operation_id"]
    assert story.ended(operation)["status"] == "completed"
    taken_back = story.agent.post(f"/operations/{operation}/rollback", {"reason": "not needed"})
    assert (taken_back.status, taken_back.headers["location"]) == (202, f"/internal/v1/operations/{operation}")
    ended = story.ended(operation)
    assert (ended["status"], story.replicas("basket")) == ("rolled_back", before)
    assert story.agent.post(f"/operations/{operation}/rollback", {}).status == 409


def test_an_operation_is_followed_by_events_to_its_end(story: Story) -> None:
    before = story.replicas("basket")
    begun = story.agent.post("/workspaces/ws-1/deployments/basket/scale", {"replicas": before + 1}).ok()
    operation = begun["data"]["operation_id"]
    address = urlsplit(story.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
    headers = {
        "Authorization": f"Bearer {story.agent.token}",
        "X-Service-Account": story.agent.account,
        "Accept": "text/event-stream",
    }
    connection.request("GET", f"/internal/v1/operations/{operation}/events", headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
    lines = answer.read().decode().splitlines()
    connection.close()
    shown = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert all(line.startswith(("event: operation", "data: ", ": ")) for line in lines if line)
    assert shown[-1]["status"] == "completed"
    assert len(shown) >= 2
    assert {one["operation_id"] for one in shown} == {operation}
    unknown = story.agent.get("/operations/op-none/events", {"Accept": "text/event-stream"})
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "RESOURCE_NOT_FOUND")


def test_a_pause_stops_everybody_until_a_person_resumes(story: Story) -> None:
    paused = story.agent.post("/workspaces/ws-1/pause", {"reason": "something is odd"}).ok()
    assert paused["data"]["paused_by"] == story.agent.account
    for api in (story.agent, story.alice):
        refused = api.post(_STOREFRONT, {"replicas": 8})
        assert (refused.status, refused.json["error"]["details"]["rule"]) == (403, "paused")
    assert story.agent.post("/workspaces/ws-1/resume", {}).status == 403
    assert story.alice.get("/pauses").ok()["data"]["pauses"][0]["reason"] == "something is odd"
    assert story.alice.post("/workspaces/ws-1/resume", {}).ok()["data"]["paused"] is False
    assert story.maker.post("/pause", {}).ok()["data"]["scope"] == "*"
    explained = story.agent.post("/policy/explain", {"workspace_id": "ws-1", "action": "scale"}).ok()["data"]
    assert [one["rule"] for one in explained["refusals"]] == ["paused"]
    story.cli("resume")
    assert story.agent.post("/policy/explain", {"workspace_id": "ws-1", "action": "scale"}).ok()["data"]["allowed"]


def test_the_policy_file_is_read_again_and_a_mistake_changes_nothing(story: Story) -> None:
    held = story.policy.read_text()
    story.rewrite_policy("max_replicas: 2\n")
    story.until(lambda shown: shown["policy"]["max_replicas"] == 2)
    refused = story.agent.post(_STOREFRONT, {"replicas": 10})
    assert (refused.status, refused.json["error"]["details"]["rule"]) == (403, "max_replicas")
    story.rewrite_policy("max_replicas: lots\n")
    shown = story.until(lambda shown: bool(shown["problems"]))
    assert (shown["policy"]["max_replicas"], "max_replicas" in shown["problems"][0]) == (2, True)
    story.rewrite_policy(held)
    story.until(lambda shown: not shown["problems"] and shown["policy"]["max_replicas"] == 100)


def test_people_decide_at_the_command_line_too(story: Story) -> None:
    asked = story.agent.post("/workspaces/ws-1/deployments/basket/scale", {"replicas": 0}).ok()
    operation = asked["data"]["operation_id"]
    assert operation in story.cli("approvals", "list", "--json")
    shown = story.cli("operations", "show", operation)
    assert "waits for a person: scale_to_zero" in shown
    assert "cancelled" in story.cli("approvals", "reject", operation, "--reason", "never to zero")
    ended = story.ended(operation)
    assert (ended["status"], ended["error"]["code"]) == ("cancelled", "APPROVAL_REJECTED")
    asked = story.agent.post("/workspaces/ws-1/deployments/basket/scale", {"replicas": 0}).ok()
    operation = asked["data"]["operation_id"]
    seen = story.alice.get(f"/operations/{operation}").ok()["data"]["plan_hash"]
    assert "queued" in story.cli("approvals", "approve", operation, "--plan-hash", seen)
    assert (story.ended(operation)["status"], story.replicas("basket")) == ("completed", 0)
    assert "queued" in story.cli("operations", "rollback", operation)
    assert story.ended(operation)["status"] == "rolled_back"
    assert "sound" in story.cli("audit", "verify")


def test_whoever_asked_may_cancel_and_a_stranger_may_not(story: Story) -> None:
    asked = story.agent.post("/workspaces/ws-1/deployments/basket/scale", {"replicas": 0}).ok()
    path = f"/operations/{asked['data']['operation_id']}/cancel"
    refused = story.maker.post(path, {})
    assert (refused.status, refused.json["error"]["code"]) == (403, "INSUFFICIENT_INTERNAL_PERMISSIONS")
    cancelled = story.agent.post(path, {"reason": "changed my mind"}).ok()["data"]
    assert (cancelled["status"], cancelled["error"]["code"]) == ("cancelled", "CANCELLED")
    assert story.agent.post(path, {}).status == 409


def test_workspace_operations_may_be_scheduled(story: Story) -> None:
    made = story.agent.post(
        "/workspaces/ws-1/schedules", {"operation": "security_scan", "cron": "0 3 * * *", "timezone": "Europe/Vienna"}
    )
    assert (made.status, made.json["data"]["enabled"]) == (201, True)
    schedule = made.json["data"]["id"]
    bad = story.agent.post("/workspaces/ws-1/schedules", {"operation": "make_coffee", "cron": "0 3 * * *"})
    assert (bad.status, list(bad.json["error"]["details"]["fields"])) == (400, ["operation"])
    path = f"/workspaces/ws-1/schedules/{schedule}"
    assert story.agent.request("PATCH", path, {"enabled": False}).ok()["data"]["enabled"] is False
    listed = story.agent.get("/workspaces/ws-1/schedules").ok()["data"]["schedules"]
    assert [one["id"] for one in listed] == [schedule]
    assert story.agent.request("DELETE", path).ok()["data"]["removed"] is True
    assert story.agent.request("DELETE", path).status == 404


def test_a_revoked_accounts_wishes_are_not_carried_out(story: Story) -> None:
    made = json.loads(story.cli("accounts", "create", "temp", "--kind", "agent", "-g", "workspace:write", "--json"))
    temp = Api(story.url, made["account"]["id"], made["secret"])
    before = story.replicas("basket")
    asked = temp.post("/workspaces/ws-1/deployments/basket/scale", {"replicas": 0}).ok()
    operation = asked["data"]["operation_id"]
    seen = story.alice.get(f"/operations/{operation}").ok()["data"]["plan_hash"]
    story.cli("accounts", "revoke", made["account"]["id"], "--yes")
    story.alice.post(f"/operations/{operation}/approve", {"plan_hash": seen}).ok()
    ended = story.ended(operation)
    assert (ended["status"], ended["error"]["code"]) == ("cancelled", "ACCOUNT_REVOKED")
    assert story.replicas("basket") == before
