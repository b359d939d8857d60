"""Real kubectl acts: applies on the server, resizes, rolls out and back, snapshots, backs up and restores."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.playground_process import PlaygroundProcess, kubectl_path, playground

pytestmark = pytest.mark.kubectl

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.27
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
        resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {cpu: 500m, memory: 512Mi}}
"""
SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: green, size: "10"}
"""
STATEFUL = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "postgres:17.1"}]}
"""
DAEMON = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "agent:1"}]}
"""


_NUMBERS = itertools.count(1)


class Hands:
    """One namespace of the playground, in which kubectl acts."""

    def __init__(self, process: PlaygroundProcess, namespace: str, folder: Path) -> None:
        self.process = process
        self.namespace = namespace
        self.folder = folder

    def __call__(self, command: str, *more: str, ok: bool = True) -> str:
        return self.process.kubectl("-n", self.namespace, *command.split(), *more, ok=ok)

    def file(self, text: str) -> str:
        path = self.folder / f"{next(_NUMBERS)}.yaml"
        path.write_text(text)
        return str(path)

    def get(self, what: str) -> Any:
        return json.loads(self(f"get {what} -o json --show-managed-fields"))

    def apply(self, text: str, flags: str = "", *, ok: bool = True) -> str:
        return self(f"apply {flags} -f", self.file(text), ok=ok)

    def image(self, what: str) -> str:
        return str(self.get(what)["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaygroundProcess]:
    folder = tmp_path_factory.mktemp("acting")
    with playground(
        folder, "--world", "empty", "--install", "snapshots", "--install", "velero", "--speed", "20"
    ) as made:
        yield made


@pytest.fixture
def hands(process: PlaygroundProcess, tmp_path: Path) -> Hands:
    namespace = f"acting-{next(_NUMBERS)}"
    process.kubectl("create", "namespace", namespace)
    return Hands(process, namespace, tmp_path)


# Server-side apply


def test_apply_on_the_server_creates_owns_and_takes_away_what_is_no_longer_applied(hands: Hands) -> None:
    assert "serverside-applied (server dry run)" in hands.apply(WEB, "--server-side --dry-run=server")
    assert hands("get deploy -o name") == ""
    hands.apply(WEB, "--server-side")
    entry = next(one for one in hands.get("deploy/web")["metadata"]["managedFields"] if one["operation"] == "Apply")
    assert (entry["manager"], entry.get("subresource")) == ("kubectl", None)
    assert entry["fieldsV1"]["f:spec"]["f:replicas"] == {}
    hands.apply(WEB.replace(', {name: B, value: "2"}', ""), "--server-side")
    container = hands.get("deploy/web")["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "A", "value": "1"}]
    hands.apply(WEB.replace("  replicas: 2\n", ""), "--server-side")
    assert hands.get("deploy/web")["spec"]["replicas"] == 1


def test_diff_shows_what_apply_would_do_and_changes_nothing(hands: Hands) -> None:
    hands.apply(WEB, "--server-side")
    before = hands.get("deploy/web")["metadata"]["generation"]
    changed = hands.file(WEB.replace("nginx:1.27", "nginx:1.28"))
    for flags in (["--server-side"], []):
        command = [kubectl_path(), "--kubeconfig", str(hands.process.kubeconfig), "-n", hands.namespace, "diff", *flags]
        done = subprocess.run([*command, "-f", changed], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stderr
        assert [line[0] for line in done.stdout.splitlines() if "image: nginx" in line] == ["-", "+"]
    assert hands.get("deploy/web")["metadata"]["generation"] == before
    assert hands(f"diff --server-side -f {hands.file(WEB)}") == ""


def test_two_managers_share_an_object_and_meet_only_where_they_differ(hands: Hands) -> None:
    hands.apply(SETTINGS, "--server-side --field-manager=one")
    mine = SETTINGS.replace('data: {color: green, size: "10"}', "data: {shape: round}")
    hands.apply(mine, "--server-side --field-manager=two")
    hands.apply(mine.replace("shape: round", "shape: round, color: green"), "--server-side --field-manager=two")
    told = hands.apply(mine.replace("shape: round", "color: red"), "--server-side --field-manager=two", ok=False)
    assert 'Apply failed with 1 conflict: conflict with "one": .data.color' in told
    both = hands.apply(
        mine.replace("shape: round", 'color: red, size: "1"'), "--server-side --field-manager=two", ok=False
    )
    assert 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.color\n- .data.size' in both
    hands.apply(mine.replace("shape: round", "color: red"), "--server-side --field-manager=two --force-conflicts")
    assert hands.get("cm/settings")["data"] == {"color": "red", "size": "10"}
    again = hands.apply(SETTINGS, "--server-side --field-manager=one", ok=False)
    assert 'conflict with "two": .data.color' in again


def test_a_conflict_with_a_scale_names_the_subresource(hands: Hands) -> None:
    hands.apply(WEB, "--server-side")
    hands("scale deploy/web --replicas=3")
    told = hands.apply(WEB, "--server-side", ok=False)
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1' in told
    assert ".spec.replicas" in told


# Resize


def resizing(resources: dict[str, Any]) -> str:
    return json.dumps({"spec": {"containers": [{"name": "web", "resources": resources}]}})


def test_kubectl_resizes_a_running_pod_and_hears_why_where_it_may_not(hands: Hands) -> None:
    hands.apply(WEB)
    hands("rollout status deploy/web --timeout=30s")
    pod = hands("get pods -o name").split()[0]
    command = f"patch {pod} --subresource resize -p"
    hands(command, resizing({"limits": {"memory": "640Mi"}}))
    hands.process.advance(5)
    status = hands.get(pod)["status"]
    assert status["containerStatuses"][0]["resources"]["limits"]["memory"] == "640Mi"
    assert status["containerStatuses"][0]["restartCount"] == 0
    told = hands(command, resizing({"limits": {"memory": None}}), ok=False)
    assert "resource limits cannot be removed" in told
    hands(command, resizing({"requests": {"cpu": "99"}, "limits": {"cpu": "99"}}))
    hands.process.advance(2)
    pending = next(one for one in hands.get(pod)["status"]["conditions"] if one["type"] == "PodResizePending")
    assert (pending["status"], pending["reason"]) == ("True", "Infeasible")


# Rollouts


def test_a_deployments_history_is_listed_and_undone(hands: Hands) -> None:
    hands.apply(WEB)
    hands("annotate deploy/web kubernetes.io/change-cause=first")
    for image in ("nginx:1.28", "nginx:1.29"):
        hands(f"set image deploy/web web={image}")
        hands(f"annotate --overwrite deploy/web kubernetes.io/change-cause={image}")
        hands("rollout status deploy/web --timeout=60s")
    shown = [line.split() for line in hands("rollout history deploy/web").splitlines()[2:] if line]
    assert shown == [["1", "first"], ["2", "nginx:1.28"], ["3", "nginx:1.29"]]
    assert "nginx:1.28" in hands("rollout history deploy/web --revision=2")
    hands("rollout undo deploy/web --dry-run=server")
    assert hands.image("deploy/web") == "nginx:1.29"
    hands("rollout undo deploy/web")
    hands("rollout status deploy/web --timeout=60s")
    assert hands.image("deploy/web") == "nginx:1.28"
    hands("rollout undo deploy/web --to-revision=1")
    assert hands.image("deploy/web") == "nginx:1.27"
    hands("rollout status deploy/web --timeout=60s")
    assert [line.split()[0] for line in hands("rollout history deploy/web").splitlines()[2:] if line] == ["3", "4", "5"]
    assert "unable to find specified revision 99 in history" in hands(
        "rollout undo deploy/web --to-revision=99", ok=False
    )
    hands("rollout pause deploy/web")
    assert "you cannot rollback a paused deployment" in hands("rollout undo deploy/web", ok=False)
    hands("rollout resume deploy/web")


def test_the_history_limit_is_what_undo_can_go_back_through(hands: Hands) -> None:
    hands.apply(WEB.replace("  replicas: 2", "  replicas: 1\n  revisionHistoryLimit: 1"))
    for number in range(2, 5):
        hands(f"set env deploy/web A={number}")
        hands("rollout status deploy/web --timeout=60s")
    hands.process.advance(30)
    assert [line.split()[0] for line in hands("rollout history deploy/web").splitlines()[2:] if line] == ["3", "4"]


def test_restart_and_set_change_the_template_and_each_is_a_revision(hands: Hands) -> None:
    hands.apply(WEB)
    hands("rollout status deploy/web --timeout=60s")
    before = set(hands("get pods -o name").split())
    hands("rollout restart deploy/web")
    hands("rollout status deploy/web --timeout=60s")
    hands.process.advance(40)
    assert before.isdisjoint(hands("get pods -o name").split())
    hands("set resources deploy/web -c web --limits=cpu=1,memory=1Gi --requests=cpu=200m,memory=256Mi")
    hands("set env deploy/web A-")
    container = hands.get("deploy/web")["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "200m", "memory": "256Mi"},
    }
    assert container["env"] == [{"name": "B", "value": "2"}]
    hands("rollout status deploy/web --timeout=60s")
    assert hands.get("deploy/web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "4"


@pytest.mark.parametrize(
    ("manifest", "what", "first"), [(STATEFUL, "sts/db", "postgres:17.1"), (DAEMON, "ds/agent", "agent:1")]
)
def test_sets_go_back_through_their_controller_revisions(hands: Hands, manifest: str, what: str, first: str) -> None:
    name = what.partition("/")[2]
    hands.apply(manifest)
    hands(f"rollout status {what} --timeout=60s")
    for version in ("2", "3"):
        hands(f"set image {what} {name}=registry.example/{name}:{version}")
        hands(f"rollout status {what} --timeout=90s")
    assert [line.split()[0] for line in hands(f"rollout history {what}").splitlines()[2:] if line] == ["1", "2", "3"]
    assert f"registry.example/{name}:2" in hands(f"rollout history {what} --revision=2")
    hands(f"rollout undo {what}")
    hands(f"rollout status {what} --timeout=90s")
    assert hands.image(what) == f"registry.example/{name}:2"
    hands(f"rollout undo {what} --to-revision=1")
    hands(f"rollout status {what} --timeout=90s")
    images = {pod["spec"]["containers"][0]["image"] for pod in hands.get("pods")["items"]}
    assert images == {first}
    assert [line.split()[0] for line in hands(f"rollout history {what}").splitlines()[2:] if line] == ["3", "4", "5"]
    hands(f"rollout restart {what}")
    hands(f"rollout status {what} --timeout=90s")


# Snapshots and backups


CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: db}
spec:
  containers: [{name: db, image: "postgres:17.1"}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""
SNAPSHOT = """
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: monday}
spec: {source: {persistentVolumeClaimName: data}}
"""


def with_data(hands: Hands) -> Any:
    """A claim with something on it; what the control endpoint says it holds."""
    hands.apply(CLAIM)
    hands("wait pod/db --for=condition=Ready --timeout=30s")
    path = f"/playground/v1/volumes/{hands.namespace}/data"
    answer = hands.process.call("POST", path, {"text": "the orders of Monday"})
    assert answer.status == 200
    assert answer.body == hands.process.call("GET", path).body
    assert answer.body["revision"] == 1
    return answer.body


def test_a_snapshot_is_taken_and_restored_with_kubectl(hands: Hands) -> None:
    before = with_data(hands)
    hands.apply(SNAPSHOT)
    hands("wait vs/monday", "--for=jsonpath={.status.readyToUse}=true", "--timeout=30s")
    shown = hands("get vs").split()
    assert shown[:7] == [
        "NAME",
        "READYTOUSE",
        "SOURCEPVC",
        "SOURCESNAPSHOTCONTENT",
        "RESTORESIZE",
        "SNAPSHOTCLASS",
        "SNAPSHOTCONTENT",
    ]
    assert shown[9:13] == ["monday", "true", "data", "1Gi"]
    source = "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: monday}"
    copy = CLAIM.replace("spec: {access", f"spec: {{{source}, access").replace("name: data}", "name: copy}", 1)
    hands.apply(copy.replace("name: db}\nspec", "name: reader}\nspec").replace("claimName: data", "claimName: copy"))
    hands("wait pod/reader --for=condition=Ready --timeout=30s")
    after = hands.process.call("GET", f"/playground/v1/volumes/{hands.namespace}/copy").body
    assert after["checksum"] == before["checksum"]
    assert after["handle"] != before["handle"]
    missing = hands.process.call("GET", f"/playground/v1/volumes/{hands.namespace}/nosuch")
    assert missing.status == 404


def test_a_namespace_is_backed_up_lost_and_restored_with_kubectl(hands: Hands) -> None:
    before = with_data(hands)
    hands.apply(SETTINGS)
    name = hands.namespace
    head = {"apiVersion": "velero.io/v1", "metadata": {"name": name, "namespace": "velero"}}
    backup = {**head, "kind": "Backup", "spec": {"includedNamespaces": [name], "ttl": "24h0m0s"}}
    velero = Hands(hands.process, "velero", hands.folder)
    velero.apply(yaml.safe_dump(backup))
    velero(f"wait backup/{name}", "--for=jsonpath={.status.phase}=Completed", "--timeout=30s")
    stored = hands.process.call("GET", f"/playground/v1/backups/{name}").body
    assert f"configmaps/{name}/settings" in stored["items"]
    assert [one["claim"] for one in stored["snapshots"]] == ["data"]
    hands.process.kubectl("delete", "namespace", name, "--timeout=60s")
    velero.apply(yaml.safe_dump({**head, "kind": "Restore", "spec": {"backupName": name}}))
    velero(f"wait restore/{name}", "--for=jsonpath={.status.phase}=Completed", "--timeout=30s")
    results = hands.process.call("GET", f"/playground/v1/restores/{name}").body
    assert (results["warnings"], results["errors"]) == ([], [])
    hands("wait pod/db --for=condition=Ready --timeout=30s")
    assert hands.get("cm/settings")["data"]["color"] == "green"
    after = hands.process.call("GET", f"/playground/v1/volumes/{name}/data").body
    assert after["checksum"] == before["checksum"]


def test_faults_of_storage_are_injected_over_the_control_endpoint(hands: Hands) -> None:
    fault = hands.process.call(
        "POST", "/playground/v1/faults", {"type": "backup-storage-away", "duration_seconds": 3600}
    )
    assert fault.status == 201
    try:
        hands.process.advance(61)
        shown = Hands(hands.process, "velero", hands.folder)("get bsl default --no-headers").split()
        assert shown[:2] == ["default", "Unavailable"]
    finally:
        hands.process.call("DELETE", f"/playground/v1/faults/{fault.body['id']}")
    hands.process.advance(61)
    listed = hands.process.call("GET", "/playground/v1").body
    assert "snapshot-fails" in listed["faults"]["storage"]
    refused = hands.process.call("POST", "/playground/v1/faults", {"type": "snapshot-fails"})
    assert (refused.status, "namespace" in refused.body["message"]) == (400, True)
