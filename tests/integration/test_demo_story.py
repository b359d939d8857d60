"""An agent's session as a newcomer has it: the demo's two processes, plain HTTP, and kubectl beside it."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.requests import Api
from support.service import Running, running_demo, start_demo

pytestmark = pytest.mark.slow

SETTLE_SECONDS = 60


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def eventually(what: str, look: Any) -> None:
    """A real condition with a deadline; fails with what was last seen."""
    deadline = time.monotonic() + SETTLE_SECONDS
    seen = look()
    while not seen[0]:
        assert time.monotonic() < deadline, f"{what}: {seen[1]}"
        time.sleep(0.1)
        seen = look()


@pytest.mark.kubectl
def test_an_agent_reads_scales_and_kubectl_sees_the_same(demo: Running) -> None:
    agent = demo.api("agent")
    overview = agent.get("/workspaces/ws-demo/overview").ok()
    applications = overview["data"]["summary"]["applications"]
    assert applications["total"] == sum(applications[s] for s in ("running", "stopped", "failed", "pending", "unknown"))
    running = demo.kubectl(
        "get", "pods", "-n", "shop", "--field-selector", "status.phase=Running", "-o", "name"
    ).split()
    running += demo.kubectl(
        "get", "pods", "-n", "platform", "--field-selector", "status.phase=Running", "-o", "name"
    ).split()
    assert abs(overview["data"]["resource_usage"]["pods"]["running"] - len(running)) <= 2
    before = int(demo.kubectl("get", "deployment", "storefront", "-n", "shop", "-o", "jsonpath={.spec.replicas}"))
    path = "/workspaces/ws-demo/deployments/storefront/scale"
    answer = agent.post(path, {"replicas": before + 1, "reason": "a test"})
    assert answer.status == 202
    assert answer.headers["location"] == f"/internal/v1/operations/{answer.json['meta']['operation_id']}"
    assert answer.json["data"]["previous_replicas"] == before
    operation = f"/operations/{answer.json['meta']['operation_id']}"

    def finished() -> tuple[bool, Any]:
        held = agent.get(f"{operation}?wait=10").ok()["data"]
        return held["status"] == "completed", held

    eventually("the operation completes", finished)
    ready = demo.kubectl("get", "deployment", "storefront", "-n", "shop", "-o", "jsonpath={.status.readyReplicas}")
    assert int(ready) == before + 1
    events = demo.kubectl("get", "events", "-n", "shop", "-o", "jsonpath={.items[*].message}")
    assert answer.json["meta"]["operation_id"] in events


def test_the_faults_have_stood_for_five_minutes_when_the_demo_is_ready(demo: Running) -> None:
    issues = demo.api("reader").get("/workspaces/ws-demo/overview").ok()["data"]["health_metrics"]["issues"]
    assert {"crash_loop", "image_pull_failed", "unschedulable", "config_error"} <= {issue["type"] for issue in issues}
    pods = json.loads(demo.kubectl("get", "pods", "-n", "shop", "-o", "json"))["items"]
    now = time.time()
    for pod in pods:
        if pod["status"]["phase"] == "Pending":
            created = (
                time.mktime(time.strptime(pod["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
            )
            assert now - created > 300, pod["metadata"]["name"]


def test_a_reader_may_not_scale_and_a_stranger_may_not_read(demo: Running) -> None:
    refused = demo.api("reader").post("/workspaces/ws-demo/deployments/basket/scale", {"replicas": 3})
    assert refused.status == 403
    assert refused.json["error"]["code"] == "INSUFFICIENT_INTERNAL_PERMISSIONS"
    assert refused.json["error"]["details"]["required_permission"] == "workspace:write"
    agent = demo.ready["accounts"]["agent"]
    stranger = Api(demo.ready["url"], demo.ready["accounts"]["reader"]["id"], agent["token"])
    answer = stranger.get("/health")
    assert answer.status == 401
    assert answer.json["error"]["details"]["token_status"] == "mismatched"


def test_staging_sees_nothing_of_the_cluster_that_it_shares(demo: Running) -> None:
    nodes = demo.api("agent").get("/workspaces/ws-staging/nodes")
    assert "worker-1" not in json.dumps(nodes.json)
    overview = json.dumps(demo.api("agent").get("/workspaces/ws-staging/overview").ok())
    assert "parcel-labels" not in overview


def test_what_was_done_stands_in_the_audit_trail(demo: Running) -> None:
    marker = "workspaces/ws-demo/deployments/storefront/scale"
    demo.api("agent").post(f"/{marker}", {"replicas": 5, "dry_run": True}).ok()

    def audited() -> tuple[bool, Any]:
        entries = demo.api("admin").get("/audit?limit=50").ok()["data"]["entries"]
        return any(entry["path"].endswith(marker) and entry["status"] == 200 for entry in entries), entries[:3]

    eventually("the dry run is audited", audited)


def test_the_token_is_in_no_log_and_no_process_list(demo: Running) -> None:
    secrets = [account["token"] for account in demo.ready["accounts"].values()]
    logs = Path(demo.ready["playground"]["logs"])
    held = "".join(path.read_text(errors="replace") for path in logs.glob("*.log"))
    assert held
    for pid in demo.ready["pids"].values():
        held += Path(f"/proc/{pid}/cmdline").read_text()
    assert not [secret for secret in secrets if secret in held]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    started = start_demo(tmp_path)
    process, ready = started.process, started.ready
    process.send_signal(number)
    assert process.wait(30) == 0
    assert not [pid for pid in ready["pids"].values() if Path(f"/proc/{pid}").exists()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.log"]


def test_killing_the_demo_ends_its_children(tmp_path: Path) -> None:
    started = start_demo(tmp_path)
    process, ready = started.process, started.ready
    process.kill()
    process.wait(10)

    def gone() -> tuple[bool, Any]:
        left = [pid for pid in ready["pids"].values() if _alive(pid)]
        return not left, left

    eventually("playground and service end", gone)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
