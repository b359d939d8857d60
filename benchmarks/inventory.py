"""What the inventory costs: its first list against bare fetching and decoding, its memory, its hold on the event loop.

Run: python -m benchmarks inventory. The pages are served by a process of their own; every figure stands beside the
reference of the same run, because a machine's speed is nobody's business but the ratio is.
"""

import asyncio
import gc
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import msgspec
import uvloop

from opsapi.adapters.kubernetes.addresses import AddressGuard
from opsapi.adapters.kubernetes.clusters import LiveCluster
from opsapi.adapters.kubernetes.timing import SystemTiming
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.workspaces.model import ClusterAccess, Source, Workspace
from opsapi.workspaces.objects import NODE, POD, Node, Pod
from opsapi.workspaces.ports import Sync

PAGE = 500


def pod(number: int, version: int, nodes: int, phase: str = "Running") -> dict[str, Any]:
    """A pod as a real API server writes it, with all that the product does not read."""
    name, owner = f"web-{number // 10:05d}-7d9f8c6b5-{number:06d}", f"3f2504e0-4f89-11d3-9a0c-{number // 10:012d}"
    ready = {"lastProbeTime": None, "lastTransitionTime": "2026-03-01T10:00:05Z", "observedGeneration": 1}
    mount = {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io", "readOnly": True}
    probe = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1}
    fields: dict[str, Any] = {
        f"f:{part}": {f"k:{i}": {".": {}, "f:name": {}} for i in range(6)} for part in ("metadata", "spec")
    }
    return {
        "metadata": {
            "name": name,
            "generateName": name[:-6],
            "namespace": f"team-{number % 50}",
            "uid": f"9b2d7f10-1c5e-4d55-8f6a-{number:012d}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-03-01T10:00:00Z",
            "labels": {"app": f"web-{number // 10}", "pod-template-hash": "7d9f8c6b5"},
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": "0" * 64},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": name[:-7],
                    "uid": owner,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [
                {
                    "manager": m,
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2026-03-01T10:00:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": fields,
                }
                for m in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "volumes": [
                {
                    "name": "kube-api-access-x",
                    "projected": {
                        "defaultMode": 420,
                        "sources": [
                            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                            {"configMap": {"name": "kube-root-ca.crt"}},
                        ],
                    },
                }
            ],
            "containers": [
                {
                    "name": "app",
                    "image": f"registry.example.com/team/web-{number // 10}:1.2.3",
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": f"SETTING_{i}", "value": "value"} for i in range(8)],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                    "volumeMounts": [mount],
                    "readinessProbe": probe,
                    "livenessProbe": probe,
                    "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "nodeName": f"node-{number % nodes:04d}",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": k, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                for k in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
            ],
        },
        "status": {
            "phase": phase,
            "conditions": [
                {"type": t, "status": "True", **ready}
                for t in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "hostIP": "10.0.0.1",
            "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}],
            "startTime": "2026-03-01T10:00:00Z",
            "qosClass": "Burstable",
            "containerStatuses": [
                {
                    "name": "app",
                    "state": {"running": {"startedAt": "2026-03-01T10:00:04Z"}},
                    "lastState": {},
                    "ready": True,
                    "restartCount": 0,
                    "image": "registry.example.com/team/web:1.2.3",
                    "imageID": "sha256:" + "0" * 64,
                    "containerID": "containerd://" + "0" * 64,
                    "started": True,
                }
            ],
        },
    }


def node(number: int, version: int) -> dict[str, Any]:
    sizes = {"cpu": "16", "memory": "65806432Ki", "pods": "110", "ephemeral-storage": "100Gi"}
    conditions = [
        {
            "type": t,
            "status": "False",
            "reason": f"No{t}",
            "message": f"kubelet has no {t}",
            "lastHeartbeatTime": "2026-03-01T10:00:00Z",
            "lastTransitionTime": "2026-03-01T09:00:00Z",
        }
        for t in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
    ]
    return {
        "metadata": {
            "name": f"node-{number:04d}",
            "uid": f"node-uid-{number}",
            "resourceVersion": str(version),
            "labels": {f"label-{i}": "x" for i in range(12)},
        },
        "spec": {},
        "status": {
            "capacity": sizes,
            "allocatable": sizes,
            "conditions": conditions,
            "nodeInfo": {"kubeletVersion": "v1.36.0"},
            "images": [{"names": [f"image-{i}@sha256:" + "0" * 64], "sizeBytes": 1000} for i in range(30)],
        },
    }


class Pages:
    """An API server of finished answers: lists are encoded before anybody asks, watches send what they are told."""

    def __init__(self, pods: int, nodes: int) -> None:
        self.nodes = nodes
        self.lists = {"/api/v1/pods": self._pages([pod(n, n + 1, nodes) for n in range(pods)])}
        self.lists["/api/v1/nodes"] = self._pages([node(n, n + 1) for n in range(nodes)])
        self.rate = 0.0
        self.pods = pods

    @staticmethod
    def _pages(items: list[dict[str, Any]]) -> list[bytes]:
        slices = [items[start : start + PAGE] for start in range(0, len(items), PAGE)] or [[]]
        metas = [{"resourceVersion": "1000000", "continue": str(n + 1)} for n in range(len(slices) - 1)]
        metas.append({"resourceVersion": "1000000"})
        return [msgspec.json.encode({"metadata": m, "items": held}) for m, held in zip(metas, slices, strict=True)]

    async def serve(self, told: Connection) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def hear() -> None:
            self.rate = told.recv()
            if self.rate < 0:
                stop.set()

        loop.add_reader(told.fileno(), hear)
        await stop.wait()
        server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                target = head.split(" ", 2)[1]
                path, _, query = target.partition("?")
                if "watch=true" in query:
                    await self._watch(path, writer)
                    return
                self._answer(path, query, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()

    def _answer(self, path: str, query: str, writer: asyncio.StreamWriter) -> None:
        pages = self.lists.get(path)
        if path == "/version":
            body = b'{"gitVersion":"v1.36.0"}'
        elif pages is None:
            body = b'{"metadata":{"resourceVersion":"1000000"},"items":[]}'
        else:
            token = next((part[9:] for part in query.split("&") if part.startswith("continue=")), "0")
            body = pages[int(token)]
        status = "404 Not Found" if "metrics.k8s.io" in path else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    async def _watch(self, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        version, due, last = 1_000_000, 0.0, time.monotonic()
        while not writer.is_closing():
            await asyncio.sleep(0.02)
            now = time.monotonic()
            due, last = due + self.rate * (now - last) if path == "/api/v1/pods" else 0.0, now
            lines = []
            while due >= 1:
                due -= 1
                version += 1
                one = pod(version % self.pods, version, self.nodes, ("Running", "Pending")[version % 2])
                lines.append(msgspec.json.encode({"type": "MODIFIED", "object": one}) + b"\n")
            if lines:
                block = b"".join(lines)
                writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                await writer.drain()


def _serve(pods: int, nodes: int, told: Connection) -> None:
    asyncio.run(Pages(pods, nodes).serve(told))


@contextmanager
def pages(pods: int, nodes: int) -> Iterator[tuple[str, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(pods, nodes, theirs))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", ours
    finally:
        ours.send(-1.0)
        process.join()


class ListMeta(msgspec.Struct):
    next: str = msgspec.field(default="", name="continue")


class PodList(msgspec.Struct):
    metadata: ListMeta
    items: list[Pod]


async def bare(url: str) -> int:
    """The reference: the same pages by aiohttp and msgspec, into a list."""
    held: list[Pod] = []
    decoder = msgspec.json.Decoder(PodList)
    async with aiohttp.ClientSession(read_bufsize=2**20) as session:
        token = ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": token} if token else {})
            async with session.get(f"{url}/api/v1/pods", params=query) as response:
                page = decoder.decode(await response.read())
            held += page.items
            token = page.metadata.next
            if not token:
                return len(held)


def live(url: str) -> LiveCluster:
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {"token": "x"}}],
    }
    access = ClusterAccess(inline=msgspec.json.encode(config).decode())
    timing = SystemTiming()
    workspace = Workspace(id="bench", name="bench", read=access, source=Source.CONFIG, created_at=timing.now())
    return LiveCluster(workspace, Tuning(page_size=PAGE), timing, AddressGuard(["127.0.0.0/8"]))


async def synced(cluster: LiveCluster) -> None:
    while any(cluster.cache.state(kind).sync is Sync.PENDING for kind in (POD, NODE)):  # noqa: ASYNC110
        await asyncio.sleep(0.005)  # the cache tells of objects, not of states


async def first_list(rounds: int = 5) -> None:
    """CPU of the whole workspace's first sync against the reference, the best of a few rounds each."""
    with pages(10_000, 200) as (url, _):
        warm = live(url)
        warm.start()  # imports, code paths
        await synced(warm)
        await warm.close()
        reference, ours = [], []
        for _ in range(rounds):
            gc.collect()
            begun = time.process_time()
            assert await bare(url) == 10_000
            reference.append(time.process_time() - begun)
            gc.collect()
            cluster = live(url)
            begun = time.process_time()
            cluster.start()
            await synced(cluster)
            ours.append(time.process_time() - begun)
            assert sum(1 for _ in cluster.cache.all(POD, Pod)) == 10_000
            await cluster.close()
    ratio = min(ours) / min(reference)
    print(
        f"first list of 10,000 pods: {min(ours):.3f} s CPU, "
        f"fetching and decoding alone {min(reference):.3f} s: {ratio:.2f}x (goal 1.5x)"
    )


def resident() -> float:
    """MiB, from the kernel."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


async def memory_and_lag() -> None:
    before = resident()
    with pages(20_000, 1_000) as (url, tell):
        cluster = live(url)
        cluster.start()
        await synced(cluster)
        gc.collect()
        held = resident()
        pods = sum(1 for _ in cluster.cache.all(POD, Pod))
        nodes = sum(1 for _ in cluster.cache.all(NODE, Node))
        print(f"{pods} pods, {nodes} nodes: {held:.0f} MiB resident, {held - before:.0f} of them for these (goal 400)")
        changes = 0

        def count(*_: object) -> None:
            nonlocal changes
            changes += 1

        cluster.cache.subscribe(count)
        quiet, _ = await lags(3.0)
        tell.send(1000.0)
        await asyncio.sleep(0.5)
        changes = 0
        begun = time.process_time()
        busy, seconds = await lags(10.0)
        cpu = (time.process_time() - begun) / seconds
        print(
            f"{changes / seconds:.0f} watch events a second: event loop's lag p99 {percentile(busy, 0.99):.1f} ms, "
            f"worst {max(busy):.1f} ms (quiet: p99 {percentile(quiet, 0.99):.1f} ms; goal 50), {cpu:.0%} of a core"
        )
        print(f"resident afterwards: {resident():.0f} MiB")
        await cluster.close()


async def lags(seconds: float) -> tuple[list[float], float]:
    """How much later than asked a sleep of 5 ms ends, in ms, and over how long that was measured."""
    found = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        asked = time.perf_counter()
        await asyncio.sleep(0.005)
        found.append((time.perf_counter() - asked - 0.005) * 1000)
    return found, time.perf_counter() - begun


def percentile(figures: list[float], share: float) -> float:
    return sorted(figures)[min(len(figures) - 1, int(len(figures) * share))]


async def measure() -> None:
    await memory_and_lag()
    await first_list()


def main() -> None:
    uvloop.run(measure())


if __name__ == "__main__":
    main()
