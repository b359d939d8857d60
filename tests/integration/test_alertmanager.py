"""A real Alertmanager notifies the running service: from the first alert to the incident's end, and again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.alertmanager_server import AlertmanagerProcess, alert, alertmanager, require_alertmanager
from support.requests import Api
from support.service import Running, running_demo

pytestmark = pytest.mark.slow
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    require_alertmanager()
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
def sender(demo: Running, tmp_path: Path) -> Iterator[AlertmanagerProcess]:
    """Its account may report incidents in one workspace, and nothing else."""
    body = {"name": "alertmanager", "kind": "service", "permissions": ["incident:write@ws-demo"]}
    admin = demo.api("admin")
    account = admin.post("/service-accounts", body).ok()["data"]["id"]
    token = admin.post(f"/service-accounts/{account}/tokens", {}).ok()["data"]["secret"]
    webhook = f"{demo.ready['url']}/internal/v1/alerts"
    with alertmanager(tmp_path, webhook, account, token) as running:
        yield running


def until(what: str, look: Callable[[], Any], sender: AlertmanagerProcess) -> Any:
    """A real condition with a deadline; fails with what was last seen and Alertmanager's log."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: {seen}\n{sender.log}"
        time.sleep(0.1)
    return seen


def test_alerts_become_an_incident_that_ends_with_them_and_comes_back(
    demo: Running, sender: AlertmanagerProcess
) -> None:
    agent = demo.api("agent")
    labels = {"alertname": "HighErrorRate", "severity": "critical", "namespace": "shop", "deployment": "storefront"}
    milder = labels | {"pod": "storefront-1", "severity": "warning"}
    sender.post(alert(labels), alert(milder))

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = agent.get("/incidents?workspace=ws-demo").ok()["data"]["incidents"]
        return found

    def view(incident_id: str) -> dict[str, Any]:
        data: dict[str, Any] = agent.get(f"/incidents/{incident_id}").ok()["data"]
        return data

    until("an incident with both alerts", lambda: [one for one in listed() if one["alerts_firing"] == 2], sender)
    (incident,) = listed()
    incident_id = incident["incident_id"]
    assert (incident["severity"], incident["state"], incident["workspace_id"]) == ("critical", "firing", "ws-demo")
    assert incident["affected_applications"] == ["app-storefront"]
    told = view(incident_id)
    assert told["title"].startswith("The shop answers with errors")
    assert {one["application_id"] for one in told["alerts"]} == {"app-storefront"}

    # It repeats itself every second: nothing is added to the timeline.
    seen = incident["last_seen_at"]
    until("a repeat", lambda: view(incident_id)["last_seen_at"] > seen, sender)
    assert len(view(incident_id)["timeline"]) == len(told["timeline"])

    acknowledged = agent.post(f"/incidents/{incident_id}", {"action": "acknowledge"})
    assert (acknowledged.status, acknowledged.json["data"]["status"]) == (200, "acknowledged")
    refused = agent.post(f"/incidents/{incident_id}", {"action": "resolve"})
    assert (refused.status, refused.json["error"]["code"]) == (409, "INVALID_STATE")

    sender.post(alert(labels, firing=False), alert(milder, firing=False))
    until("the end", lambda: view(incident_id)["state"] == "resolved", sender)
    sender.post(alert(labels))
    until("it again", lambda: view(incident_id)["state"] == "firing", sender)
    assert [one["incident_id"] for one in listed()] == [incident_id]
    events = [entry["event"] for entry in view(incident_id)["timeline"]]
    assert events[-2:] == ["reopened", "alerts_firing"]
    _plan(agent, incident_id)


def _plan(agent: Api, incident_id: str) -> None:
    """What would be done about it, on the demo's cluster."""
    body = {"action": "auto_remediate", "remediation_strategy": "scale", "dry_run": True}
    planned = agent.post(f"/incidents/{incident_id}", body).ok()["data"]
    assert planned["status"] == "planned"
    (told,) = planned["plan"]["details"]["applications"]
    assert told["application_id"] == "app-storefront"
    assert told["scale"]["new_replicas"] == told["scale"]["previous_replicas"] + 1


def test_a_wrong_token_opens_nothing(demo: Running, tmp_path: Path) -> None:
    require_alertmanager()
    webhook = f"{demo.ready['url']}/internal/v1/alerts"
    account = demo.ready["accounts"]["agent"]["id"]
    with alertmanager(tmp_path, webhook, account, "opsa_wrong") as sender:
        sender.post(alert({"alertname": "Forged", "namespace": "shop", "severity": "critical"}))
        until("the refusal", lambda: "unexpected status code 401" in sender.log, sender)
    found = demo.api("agent").get("/incidents?workspace=ws-demo").ok()["data"]["incidents"]
    assert all("Forged" not in one["title"] for one in found)
