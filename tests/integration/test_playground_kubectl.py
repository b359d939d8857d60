"""Real kubectl against the playground's API server."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from opsapi.playground.api.providers import LogOptions
from opsapi.playground.registry import Obj
from support.cluster import ApiHandle, running_api

pytestmark = pytest.mark.kubectl

_BUNDLED = shutil.which("kubectl", path=str(Path(sys.executable).parent))
_SYSTEM = shutil.which("kubectl", path="/usr/bin:/usr/local/bin")
KUBECTLS = [
    pytest.param(_BUNDLED, id="bundled"),
    pytest.param(
        _SYSTEM, id="system", marks=pytest.mark.skipif(_SYSTEM is None, reason="no kubectl of the system is installed")
    ),
]

SHOP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.27
        ports: [{containerPort: 80}]
        resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {cpu: 500m, memory: 512Mi}}
        readinessProbe: {httpGet: {path: /, port: 80}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: shop}
data: {a: "1", b: "2"}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: shop}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: "0 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: j, image: busybox}]}}}}
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1, default: 1}, color: {type: string}}}
          status: {type: object, properties: {size: {type: integer}}}
"""


@dataclass(slots=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(slots=True)
class Kubectl:
    binary: str
    kubeconfig: Path
    api: ApiHandle

    async def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        process = await asyncio.create_subprocess_exec(
            self.binary,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent), "PATH": "/usr/bin:/bin"},
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def ok(self, *arguments: str, stdin: str = "") -> str:
        ran = await self(*arguments, stdin=stdin)
        assert ran.code == 0, f"kubectl {' '.join(arguments)}: {ran.err}{ran.out}"
        return ran.out

    async def refused(self, *arguments: str, stdin: str = "") -> str:
        ran = await self(*arguments, stdin=stdin)
        assert ran.code != 0, f"kubectl {' '.join(arguments)} succeeded: {ran.out}"
        return ran.err


async def _three_lines(pod: Obj, container: str, options: LogOptions) -> AsyncIterator[bytes]:
    lines = [f"{container} line {number}\n".encode() for number in range(3)]
    for line in lines[-options.tail_lines :] if options.tail_lines is not None else lines:
        yield line


@pytest.fixture(params=KUBECTLS)
async def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with running_api(tls=True, logs=_three_lines) as api:
        path = tmp_path / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(api.kubeconfig()))
        run = Kubectl(request.param, path, api)
        await run.ok("create", "namespace", "shop")
        yield run


async def test_a_manifest_is_applied_by_the_client_and_again_without_a_change(kubectl: Kubectl) -> None:
    first = await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    assert first.count("created") == 5
    again = await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    assert "deployment.apps/web unchanged" in again
    assert "service/web unchanged" in again
    ran = await kubectl("diff", "-f", "-", stdin=SHOP)
    assert (ran.code, ran.out) == (0, "")


async def test_a_list_is_applied_like_its_items(kubectl: Kubectl) -> None:
    items = list(yaml.safe_load_all(SHOP))
    bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert (await kubectl.ok("apply", "-f", "-", stdin=bundle)).count("created") == len(items)
    told = await kubectl.refused("apply", "-f", "-", stdin=bundle.replace('"replicas"', '"replica"'))
    assert 'unknown field "spec.replica"' in told


async def test_server_side_apply_takes_over_and_names_conflicting_fields(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    assert "serverside-applied" in await kubectl.ok("apply", "--server-side", "-f", "-", stdin=SHOP)
    await kubectl.ok("-n", "shop", "patch", "cm", "conf", "-p", '{"data":{"a":"9"}}')
    told = await kubectl.refused("apply", "--server-side", "-f", "-", stdin=SHOP)
    assert 'conflict with "kubectl-patch" using v1' in told
    assert ".data.a" in told
    await kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=SHOP)
    assert await kubectl.ok("-n", "shop", "get", "cm", "conf", "-o", "jsonpath={.data.a}") == "1"


async def test_every_kind_lists_with_its_columns(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    shown = await kubectl.ok("-n", "shop", "get", "deploy,svc,cm,pdb,cj", "-o", "wide")
    for words in ("READY   UP-TO-DATE   AVAILABLE", "CLUSTER-IP", "MIN AVAILABLE", "SCHEDULE", "nginx:1.27"):
        assert words in shown
    every = ",".join(kind.group_resource for kind in kubectl.api.registry.kinds.storage_kinds())
    await kubectl.ok("get", every, "-A")


async def test_workloads_are_scaled_changed_and_rolled_by_every_command(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    for command in (
        "scale deploy/web --replicas=3",
        "set image deploy/web web=nginx:1.29",
        "set env deploy/web A=b",
        "set resources deploy/web -c web --limits=cpu=400m,memory=256Mi",
        "label deploy web tier=front",
        "annotate deploy web note=hi",
        "rollout restart deploy/web",
        "rollout pause deploy/web",
        "rollout resume deploy/web",
        "autoscale deploy web --min=2 --max=5 --cpu-percent=70",
        "expose deploy web --name=web2 --port=8080",
    ):
        await kubectl.ok("-n", "shop", *command.split())
    made = json.loads(await kubectl.ok("-n", "shop", "get", "deploy", "web", "-o", "json"))
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert made["spec"]["replicas"] == 3
    assert container["image"] == "nginx:1.29"
    assert container["env"] == [{"name": "A", "value": "b"}]
    assert container["resources"]["limits"] == {"cpu": "400m", "memory": "256Mi"}
    assert "Expected replicas to be 9, was 3" in await kubectl.refused(
        "-n", "shop", "scale", "deploy/web", "--replicas=4", "--current-replicas=9"
    )


async def test_what_kubectl_posts_as_protobuf_is_understood(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    for command in (
        "create cm c2 --from-literal=a=b",
        "create secret generic s2 --from-literal=a=b",
        "create job j1 --image=busybox",
        "create job --from=cronjob/nightly n1",
        "create deployment d2 --image=nginx --replicas=2",
        "create service clusterip s3 --tcp=80:8080",
        "create quota q --hard=pods=5,requests.cpu=2",
        "create pdb p2 --selector=app=x --min-available=1",
        "create ingress i --rule=shop.example/*=web:80",
        "create sa bot",
        "create role r --verb=get,list --resource=pods",
        "create rolebinding rb --role=r --serviceaccount=shop:bot",
    ):
        await kubectl.ok("-n", "shop", *command.split())
    assert await kubectl.ok("-n", "shop", "get", "job", "n1", "-o", "jsonpath={.metadata.ownerReferences[0].kind}")
    assert await kubectl.ok("-n", "shop", "get", "svc", "s3", "-o", "jsonpath={.spec.ports[0].targetPort}") == "8080"


async def test_roles_are_enforced_for_whom_they_bind(kubectl: Kubectl) -> None:
    await kubectl.ok("-n", "shop", "create", "sa", "bot")
    await kubectl.ok("-n", "shop", "create", "role", "r", "--verb=get,list", "--resource=pods")
    await kubectl.ok("-n", "shop", "create", "rolebinding", "rb", "--role=r", "--serviceaccount=shop:bot")
    who = "--as=system:serviceaccount:shop:bot"
    assert (await kubectl("auth", "can-i", "list", "pods", "-n", "shop", who)).out == "yes\n"
    assert (await kubectl("auth", "can-i", "delete", "pods", "-n", "shop", who)).out == "no\n"
    token = (await kubectl.ok("-n", "shop", "create", "token", "bot")).strip()
    await kubectl.ok("-n", "shop", "get", "pods", "--token", token, "--kubeconfig", _anonymous(kubectl))
    told = await kubectl.refused("get", "nodes", "--token", token, "--kubeconfig", _anonymous(kubectl))
    assert 'User "system:serviceaccount:shop:bot" cannot list resource "nodes"' in told


def _anonymous(kubectl: Kubectl) -> str:
    document = yaml.safe_load(kubectl.kubeconfig.read_text())
    document["users"][0]["user"] = {}
    path = kubectl.kubeconfig.with_name("anonymous.yaml")
    path.write_text(yaml.safe_dump(document))
    return str(path)


async def test_custom_resources_are_served_as_soon_as_they_are_defined(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", stdin=CRD)
    await kubectl.ok("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=5s")
    head = "apiVersion: example.com/v1\nkind: Widget\n"
    widget = head + "metadata: {name: w, namespace: shop}\nspec: {color: red}\n"
    await kubectl.ok("apply", "-f", "-", stdin=widget)
    shown = await kubectl.ok("-n", "shop", "get", "wd")
    assert shown.split() == ["NAME", "SIZE", "w", "1"]
    await kubectl.ok("-n", "shop", "scale", "widget/w", "--replicas=4")
    assert await kubectl.ok("-n", "shop", "get", "wd", "w", "-o", "jsonpath={.spec.size}") == "4"
    told = await kubectl.refused("-n", "shop", "patch", "wd", "w", "--type=merge", "-p", '{"spec":{"size":0}}')
    assert "should be greater than or equal to 1" in told
    await kubectl.ok("delete", "crd", "widgets.example.com", "--timeout=10s")
    assert "could not find the requested resource" in await kubectl.refused("-n", "shop", "get", "widgets")
    assert kubectl.api.registry.store.count("widgets.example.com") == 0


async def test_a_namespace_goes_with_everything_in_it(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", stdin=SHOP)
    await kubectl.ok("delete", "namespace", "shop", "--timeout=10s")
    assert "NotFound" in await kubectl.refused("get", "namespace", "shop")
    assert kubectl.api.registry.store.count("deployments.apps", "shop") == 0


async def test_logs_come_from_the_provider_and_exec_says_why_not(kubectl: Kubectl) -> None:
    pod = {"metadata": {"name": "one"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}}
    kubectl.api.registry.create("pods", "shop", pod)
    kubectl.api.registry.patch_status("pods", "shop", "one", {"phase": "Running"})
    assert await kubectl.ok("-n", "shop", "logs", "one", "--tail=2") == "c line 1\nc line 2\n"
    assert "container nosuch is not valid" in await kubectl.refused("-n", "shop", "logs", "one", "-c", "nosuch")
    assert "simulated" in await kubectl.refused("-n", "shop", "exec", "one", "--", "ls")


async def test_a_watch_shows_changes_as_they_happen(kubectl: Kubectl) -> None:
    await kubectl.ok("-n", "shop", "create", "cm", "seen", "--from-literal=a=b")
    process = await asyncio.create_subprocess_exec(
        kubectl.binary,
        "-n",
        "shop",
        "get",
        "cm",
        "-w",
        "--kubeconfig",
        str(kubectl.kubeconfig),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        shown = b""
        while b"seen" not in shown:
            shown = await asyncio.wait_for(process.stdout.readline(), 10)
        kubectl.api.registry.create("configmaps", "shop", {"metadata": {"name": "later"}})
        while b"later" not in shown:
            shown = await asyncio.wait_for(process.stdout.readline(), 10)
    finally:
        process.kill()
        await process.wait()


async def test_bad_requests_are_told_as_a_real_server_tells_them(kubectl: Kubectl) -> None:
    cases = {
        "get deploy nosuch": 'deployments.apps "nosuch" not found',
        "create cm Bad_Name --from-literal=a=b": "a lowercase RFC 1123 subdomain must consist of",
        "get pods --field-selector nosuch=1": "field label not supported: nosuch",
        "create deployment d --image=nginx --replicas=-1": "must be greater than or equal to 0",
    }
    for command, wanted in cases.items():
        assert wanted in await kubectl.refused("-n", "shop", *command.split())
    unknown = SHOP.replace("replicas: 2", "replicsa: 2")
    assert 'unknown field "spec.replicsa"' in await kubectl.refused("apply", "-f", "-", stdin=unknown)
    assert 'namespaces "nosuch" not found' in await kubectl.refused("-n", "nosuch", "create", "sa", "x")
