"""An incident about what hangs, remedied by an agent over HTTP, on the playground's clinic."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from opsapi.cli.app import app
from support.playground_process import PlaygroundProcess, playground
from support.requests import Api
from support.serving import START_SECONDS, serving

pytestmark = pytest.mark.slow
_UNHURRIED = {"cooldown_seconds": 0, "same_action_per_hour": 100, "changes_per_hour_account": 100}


@dataclass
class Clinic:
    """`agent` may do whatever the remedy needs in ws-clinic, `nurse` may report and scale there, and no more."""

    cluster: PlaygroundProcess
    agent: Api
    nurse: Api

    def pods(self) -> dict[str, bool]:
        """Of `hung`, by uid: whether each is ready."""
        return {
            pod["metadata"]["uid"]: any(
                one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"]
            )
            for pod in self.cluster.objects("pods", "-n", "clinic", "-l", "app=hung")
            if "deletionTimestamp" not in pod["metadata"]
        }

    def report(self) -> str:
        """The incident about `hung`: there is one, however often it is reported."""
        body = {
            "workspace_id": "ws-clinic",
            "type": "application_failure",
            "severity": "high",
            "title": "Nothing answers at hung",
            "affected_applications": ["hung"],
            "key": "hung",
        }
        return str(self.nurse.post("/incidents", body).ok()["data"]["incident_id"])

    def incident(self, incident_id: str) -> dict[str, Any]:
        held: dict[str, Any] = self.agent.get(f"/incidents/{incident_id}").ok()["data"]
        return held


def until(look: Callable[[], Any]) -> Any:
    """What it says, once it says something."""
    deadline = time.monotonic() + START_SECONDS
    while not (said := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return said


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("remediation")
    with playground(folder, "--world", "demo", "--install", "sick", "--speed", "10") as cluster:
        shared = {"kubeconfig": str(cluster.kubeconfig), "mode": "act"}
        settings = {
            "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
            "http": {"port": 0, "limits": {"workspace_operations": 1000, "other": 1000}},
            "database": {"url": "sqlite:///opsapi.db"},
            "policy": {"limits": _UNHURRIED, "condition_held_seconds": 1},
            "healing": {"hold_seconds": 1, "poll_seconds": 0.2},
            "incidents": {"poll_seconds": 0.2},
            "workspaces": [
                shared | {"id": "ws-clinic", "namespaces": ["clinic"]},
                shared | {"id": "ws-shop", "namespaces": ["shop"]},
            ],
        }
        config = folder / "opsapi.yaml"
        config.write_text(json.dumps(settings))

        def account(name: str, *grants: str) -> tuple[str, str]:
            wanted = [part for grant in grants for part in ("-g", f"{grant}@ws-clinic")]
            arguments = ["accounts", "create", name, "--kind", "agent", *wanted, "-c", str(config), "--json"]
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, result.output
            made = json.loads(result.output)
            return made["account"]["id"], made["secret"]

        agent = account("agent", "incident:write", "workspace:admin")
        nurse = account("nurse", "incident:write", "workspace:write")
        with serving(config, "service") as url:
            held = Clinic(cluster, Api(url, *agent), Api(url, *nurse))
            until(lambda: held.agent.get("/workspaces/ws-clinic/overview").status == 200)
            yield held


def test_who_lacks_the_remedys_permission_is_refused_and_nothing_is_begun(clinic: Clinic) -> None:
    incident_id, before = clinic.report(), clinic.pods()
    refused = clinic.nurse.post(f"/incidents/{incident_id}", {"action": "auto_remediate"})
    error = refused.json["error"]
    assert (refused.status, error["code"]) == (403, "INSUFFICIENT_INTERNAL_PERMISSIONS")
    assert error["details"]["required_permission"] == "workspace:admin"
    assert clinic.incident(incident_id)["operations"] == []
    assert clinic.pods() == before == dict.fromkeys(before, False)


def test_an_application_of_another_workspace_is_answered_as_if_it_did_not_exist(clinic: Clinic) -> None:
    path = f"/incidents/{clinic.report()}"

    def remedied(name: str) -> tuple[int, str]:
        body = {"action": "auto_remediate", "incident_details": {"affected_applications": [name]}}
        answer = clinic.agent.post(path, body)
        error = {key: value for key, value in answer.json["error"].items() if key != "request_id"}
        return answer.status, json.dumps(error).replace(name, "NAME")

    for there, nowhere in (("app-storefront", "app-storefronx"), ("shop/storefront", "shop/storefronx")):
        status, said = remedied(there)
        assert (status, said) == remedied(nowhere)
        assert (status, json.loads(said)["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert clinic.incident(path.rpartition("/")[2])["operations"] == []


def test_what_hangs_is_restarted_the_timeline_tells_it_and_the_incident_is_resolved(clinic: Clinic) -> None:
    incident_id, before = clinic.report(), clinic.pods()
    path = f"/incidents/{incident_id}"
    planned = clinic.agent.post(path, {"action": "auto_remediate", "dry_run": True}).ok()["data"]["plan"]
    (told,) = planned["details"]["applications"]
    assert (planned["allowed"], told["application"], told["remedy"]) == (True, "clinic/Deployment/hung", "restart")
    assert clinic.pods() == before
    begun = clinic.agent.post(path, {"action": "auto_remediate", "plan_hash": planned["plan_hash"]})
    assert (begun.status, begun.json["data"]["status"]) == (202, "in_progress")
    operation = begun.json["data"]["operation_id"]

    def ended() -> dict[str, Any] | None:
        held: dict[str, Any] = clinic.agent.get(f"/operations/{operation}?wait=10").ok()["data"]
        return held if held["status"] not in ("queued", "running") else None

    done = until(ended)
    assert (done["status"], done["outcome"]) == ("completed", "changed"), done
    pods = clinic.pods()
    assert (len(pods), set(pods.values()), set(pods) & set(before)) == (2, {True}, set())
    shown = until(lambda: _told_of_its_end(clinic.incident(incident_id)))
    events = [entry for entry in shown["timeline"] if entry["event"].startswith("remediation_")]
    by_event = {entry["event"]: entry for entry in events}
    assert len(events) == len(by_event) == 2
    assert by_event["remediation_started"]["actor"] == clinic.agent.account
    ending = by_event["remediation_ended"]["details"]
    assert (ending["operation_id"], ending["status"], ending["outcome"]) == (operation, "completed", "changed")
    assert [step["step"] for step in ending["steps"]] == ["restart_failed_pods", "verify_health"]
    assert [(one["operation_id"], one["status"]) for one in shown["operations"]] == [(operation, "completed")]
    resolved = clinic.agent.post(path, {"action": "resolve", "note": "hung answers again"})
    assert (resolved.status, resolved.json["data"]["status"]) == (200, "resolved")
    assert clinic.incident(incident_id)["resolved_by"] == clinic.agent.account


def _told_of_its_end(incident: dict[str, Any]) -> dict[str, Any] | None:
    return incident if any(entry["event"] == "remediation_ended" for entry in incident["timeline"]) else None
