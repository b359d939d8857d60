"""A live workspace over the playground's API server, and a way to change what it holds as anybody else would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from opsapi.adapters.kubernetes import KubernetesClusters, KubernetesWorkloads, Tuning
from opsapi.adapters.kubernetes.clusters import LiveCluster
from opsapi.workspaces.model import ClusterAccess, Mode, Plan, Source, Workspace
from opsapi.workspaces.objects import KINDS, Kind
from opsapi.workspaces.ports import Sync
from support.cluster import ADMIN_TOKEN, ApiHandle
from support.inventory import START
from support.leaping import until

LOOPBACK = Tuning(upload_allow=("127.0.0.0/8", "::1"), minimum_interval=0.02, probe_interval=0.05, backoff_cap=0.2)


class Admin:
    """Plain requests with the admin's token. Raises nothing for failures: the answer is given back."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def ask(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        data = msgspec.json.encode(body) if body is not None else None
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": content_type}
        async with self._session.request(method, f"{self._url}{path}", data=data, headers=headers) as response:
            answer = msgspec.json.decode(await response.read())
            assert response.status < 400, f"{method} {path}: {answer}"
            return answer

    async def create(self, path: str, body: object) -> Any:
        return await self.ask("POST", path, body)

    async def merge(self, path: str, body: object) -> Any:
        return await self.ask("PATCH", path, body, "application/merge-patch+json")

    async def delete(self, path: str) -> Any:
        return await self.ask("DELETE", path)


@asynccontextmanager
async def administrating(api: ApiHandle) -> AsyncIterator[Admin]:
    async with aiohttp.ClientSession() as session:
        yield Admin(api.url, session)


def deployment(name: str = "web", replicas: int = 3, image: str = "nginx:1.27") -> dict[str, Any]:
    container = {"name": "app", "image": image, "resources": {"requests": {"cpu": "100m"}}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


@dataclass
class Live:
    clusters: KubernetesClusters
    cluster: LiveCluster

    @property
    def workloads(self) -> KubernetesWorkloads:
        return KubernetesWorkloads(self.clusters)

    async def until_synced(self, *kinds: Kind) -> None:
        wanted = kinds or tuple(kind for kind in KINDS if not kind.optional)
        cache = self.cluster.cache
        await until(
            lambda: all(cache.state(kind).sync is Sync.SYNCED for kind in wanted),
            f"synced: {[(str(kind), cache.state(kind)) for kind in wanted]}",
        )


def workspace(access: ClusterAccess, **changes: Any) -> Workspace:
    held: dict[str, Any] = {
        "id": "ws-live", "name": "Live", "plan": Plan.DEDICATED, "mode": Mode.ACT, "read": access,
        "source": Source.CONFIG, "created_at": START,
    }  # fmt: skip
    return Workspace(**(held | changes))


def inline(kubeconfig: dict[str, object]) -> ClusterAccess:
    return ClusterAccess(inline=msgspec.json.encode(kubeconfig).decode())


@asynccontextmanager
async def living(access: ClusterAccess, *, tuning: Tuning = LOOPBACK, **changes: Any) -> AsyncIterator[Live]:
    clusters = KubernetesClusters(tuning)
    try:
        yield Live(clusters, await clusters.open(workspace(access, **changes)))
    finally:
        await clusters.close_all()
