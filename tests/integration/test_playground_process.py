"""The playground as a process, seen through a real kubectl and its control endpoint."""

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.playground_process import PlaygroundProcess, kubectl_path, playground

pytestmark = [pytest.mark.kubectl, pytest.mark.slow]

READER = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: opsapi-reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: opsapi-reader, namespace: shop}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: opsapi-reader, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: opsapi-reader}
subjects: [{kind: ServiceAccount, name: opsapi-reader, namespace: shop}]
"""

GUARDED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1.27"}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaygroundProcess]:
    folder = tmp_path_factory.mktemp("demo")
    manifest = folder / "reader.yaml"
    manifest.write_text(READER)
    account = f"shop/opsapi-reader={folder / 'reader.kubeconfig'}"
    with playground(folder, "--manifest", str(manifest), "--service-account", account) as running:
        yield running


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[PlaygroundProcess]:
    with playground(tmp_path, "--world", "empty") as running:
        yield running


def test_kubectl_sees_the_demo_with_what_is_well_and_what_is_not(demo: PlaygroundProcess) -> None:
    shown = {line.split()[0]: line.split()[2] for line in demo.kubectl("-n", "shop", "get", "pods").splitlines()[1:]}
    states = {name.rsplit("-", 2)[0]: state for name, state in shown.items()}
    assert states["parcel-labels"] == "CrashLoopBackOff"
    assert states["newsletter"] == "CreateContainerConfigError"
    assert states["cover-renderer"] == "Pending"
    assert "ImagePullBackOff" in {state for name, state in shown.items() if name.startswith("gift-cards-")} | {
        state.replace("ErrImagePull", "ImagePullBackOff") for name, state in shown.items() if name.startswith("gift-")
    }
    assert states["storefront"] == states["catalog"] == "Running"
    nodes = demo.kubectl("get", "nodes")
    assert nodes.count(" Ready ") == 3
    assert "Ready,SchedulingDisabled" in nodes
    assert demo.ready["workspaces"] == {"ws-demo": ["shop", "platform"], "ws-staging": ["staging"]}


def test_each_fault_of_the_demo_has_stood_for_more_than_five_minutes(demo: PlaygroundProcess) -> None:
    now = demo.call("GET", "/playground/v1/clock").body["now"]
    for app in ("parcel-labels", "recommender", "search-index", "newsletter"):
        for pod in demo.objects("-n", "shop", "pods", "-l", f"app={app}"):
            ready = next(item for item in pod["status"]["conditions"] if item["type"] == "Ready")
            assert ready["status"] == "False"
            assert pod["metadata"]["creationTimestamp"] < now[:11] + "99"
            age = demo.kubectl("-n", "shop", "get", "pod", pod["metadata"]["name"], "--no-headers").split()[-1]
            assert age.endswith("m") or "h" in age


def test_top_logs_and_describe_work(demo: PlaygroundProcess) -> None:
    assert demo.kubectl("top", "nodes").count("worker-") == 4
    assert "storefront-" in demo.kubectl("-n", "shop", "top", "pods")
    assert "required environment variable CARRIER_URL is not set" in demo.kubectl(
        "-n", "shop", "logs", "deploy/parcel-labels", "--previous"
    )
    assert len(demo.kubectl("-n", "shop", "logs", "deploy/storefront", "--tail=5").splitlines()) == 5
    assert "Back-off restarting failed container" in demo.kubectl(
        "-n", "shop", "describe", "pod", "-l", "app=parcel-labels"
    )


def test_a_bad_rollout_is_undone(demo: PlaygroundProcess) -> None:
    demo.kubectl("-n", "shop", "rollout", "undo", "deploy/gift-cards")
    demo.kubectl("-n", "shop", "rollout", "status", "deploy/gift-cards", "--timeout=30s")
    demo.advance(60)
    assert {line.split()[2] for line in demo.kubectl("-n", "shop", "get", "pods").splitlines() if "gift-" in line} == {
        "Running"
    }


def test_a_service_account_may_do_what_its_role_says_and_no_more(demo: PlaygroundProcess) -> None:
    account = Path(demo.ready["kubeconfigs"]["shop/opsapi-reader"])
    assert "storefront-" in demo.kubectl("get", "pods", kubeconfig=account)
    refused = demo.kubectl("get", "deployments", kubeconfig=account, ok=False)
    assert 'User "system:serviceaccount:shop:opsapi-reader" cannot list resource "deployments"' in refused
    token = demo.ready["tokens"]["shop/opsapi-reader"]
    assert demo.call("GET", "/playground/v1/clock", token=token).status == 403


def test_files_with_tokens_are_for_their_owner_only(demo: PlaygroundProcess) -> None:
    for path in (demo.kubeconfig, Path(demo.ready["kubeconfigs"]["shop/opsapi-reader"])):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_drain_waits_for_disruption_budgets(empty: PlaygroundProcess, tmp_path: Path) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(GUARDED)
    empty.kubectl("apply", "-f", str(manifest))
    empty.advance(60)
    victim = empty.objects("pods")[0]["spec"]["nodeName"]
    blocked = empty.kubectl("drain", victim, "--timeout=2s", ok=False)
    assert "Cannot evict pod as it would violate the pod's disruption budget." in blocked
    empty.kubectl("patch", "pdb", "web", "--type=merge", "-p", '{"spec": {"minAvailable": 2}}')
    empty.kubectl("drain", victim, "--timeout=30s")
    empty.advance(60)
    pods = empty.objects("pods")
    assert len(pods) == 3
    assert victim not in {pod["spec"]["nodeName"] for pod in pods}


def test_faults_are_injected_listed_and_cleared(empty: PlaygroundProcess) -> None:
    empty.kubectl("create", "deployment", "web", "--image=nginx:1.27", "--replicas=2")
    empty.advance(60)
    body = {"type": "crash-loop", "namespace": "default", "workload": "web", "exit_code": 9}
    made = empty.call("POST", "/playground/v1/faults", body)
    assert made.status == 201
    empty.advance(60)
    states = [pod["status"]["containerStatuses"][0] for pod in empty.objects("pods")]
    assert {state["lastState"]["terminated"]["exitCode"] for state in states} == {9}
    assert [item["id"] for item in empty.call("GET", "/playground/v1/faults").body["faults"]] == [made.body["id"]]
    assert empty.call("DELETE", f"/playground/v1/faults/{made.body['id']}").status == 200
    empty.advance(120)
    empty.kubectl("rollout", "status", "deploy/web", "--timeout=10s")


def test_the_api_server_itself_can_be_made_to_fail(empty: PlaygroundProcess) -> None:
    made = empty.call("POST", "/playground/v1/faults", {"type": "api-500", "resource": "pods", "count": 1})
    assert made.status == 201
    assert empty.call("GET", "/api/v1/pods").status == 500
    assert empty.call("GET", "/api/v1/pods").status == 200
    assert empty.call("GET", "/playground/v1/faults").body == {"faults": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "faults", {"type": "crash-lop"}, 400, "is not one of crash-loop"),
        ("POST", "faults", {"type": "api-teapot"}, 400, "is not one of api-away"),
        ("POST", "faults", {"type": "oom", "namespace": "default"}, 400, "either a workload or a pod"),
        ("POST", "faults", {"type": "node-down", "node": "node-9"}, 400, "there is no node 'node-9'"),
        ("POST", "faults", {"type": "oom", "colour": "red"}, 400, "colour"),
        ("POST", "faults", [], 400, "Expected"),
        ("POST", "clock/advance", {"seconds": -1}, 400, "is not between 0 and"),
        ("POST", "clock/advance", {"seconds": "soon"}, 400, "Expected `float`"),
        ("GET", "clock/advance", None, 405, "takes POST"),
        ("DELETE", "faults/fault-99", None, 404, "no active fault"),
        ("GET", "nothing", None, 404, "none of the playground's control endpoints"),
    ],
)
def test_control_requests_that_make_no_sense_are_told_why(
    demo: PlaygroundProcess, method: str, path: str, body: object, status: int, words: str
) -> None:
    answer = demo.call(method, f"/playground/v1/{path}", body)
    assert (answer.status, answer.body["kind"]) == (status, "Status")
    assert words in answer.body["message"]


def test_a_node_tells_what_runs_on_it(demo: PlaygroundProcess) -> None:
    summary = demo.call("GET", "/playground/v1/nodes/worker-1/stats").body
    assert summary["node"]["memory"]["workingSetBytes"] > 640 << 20
    parts = sum(c["cpu"]["usageNanoCores"] for pod in summary["pods"] for c in pod["containers"])
    assert 0 < parts < summary["node"]["cpu"]["usageNanoCores"]
    assert demo.call("GET", "/playground/v1/nodes/worker-9/stats").status == 404


def test_the_exposition_is_served(demo: PlaygroundProcess) -> None:
    text = demo.call("GET", "/playground/v1/metrics").body
    assert 'http_requests_total{namespace="shop",pod="storefront-' in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_an_open_watch(tmp_path: Path, number: signal.Signals) -> None:
    with playground(tmp_path, "--world", "empty") as running:
        watch = subprocess.Popen(
            [kubectl_path(), "--kubeconfig", str(running.kubeconfig), "get", "nodes", "-w"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with watch:
            assert watch.stdout is not None
            first = watch.stdout.readline()
            code = running.stop(number)
            watch.kill()
        assert b"NAME" in first
        assert code == 0
        assert (tmp_path / "stderr").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--world", "moon"], "'moon' is none of demo, empty, scale:NODESxPODS"),
        (["--world", "scale:many"], "not a fleet"),
        (["--world", "empty", "--manifest", "/nowhere.yaml"], "No such file"),
        (["--world", "empty", "--service-account", "default/ghost=/tmp/never"], "there is no such ServiceAccount"),
    ],
)
def test_a_start_that_cannot_work_says_what_to_change(arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opsapi.playground", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_plain_http_serves_programs_that_send_their_token(tmp_path: Path) -> None:
    with playground(tmp_path, "--world", "empty", "--plain-http") as running:
        assert running.ready["url"].startswith("http://")
        assert running.call("GET", "/api/v1/nodes").status == 200
        assert running.call("GET", "/api/v1/nodes", token="wrong").status == 401


def test_a_fleet_is_loaded_running(tmp_path: Path) -> None:
    with playground(tmp_path, "--world", "scale:20x300") as running:
        pods = running.objects("pods", "-A")
        assert len(pods) == 300
        assert {pod["status"]["phase"] for pod in pods} == {"Running"}
        running.kubectl("-n", "team-0001", "scale", "deploy/app-01", "--replicas=3")
        running.advance(60)
        assert len(running.objects("pods", "-A")) == 293
