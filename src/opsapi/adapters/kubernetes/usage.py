"""Reads metrics.k8s.io: what pods and nodes use now."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.recollection import Recollection
from opsapi.adapters.kubernetes.timing import Timing
from opsapi.adapters.kubernetes.transport import Refused, Transport, Unreachable
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.kit.quantity import parse_quantity
from opsapi.workspaces.ports import ContainerUsage, NodeUsage, PodUsage, UsageSnapshot

logger = logging.getLogger(__name__)

_ROOT = "/apis/metrics.k8s.io/v1beta1"
_SLICE = 500
_KIBI = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class _Meta(msgspec.Struct, frozen=True, gc=False):
    name: str
    namespace: str = ""


class _Container(msgspec.Struct, frozen=True, gc=False):
    name: str
    usage: dict[str, str] = {}


class _PodMetrics(msgspec.Struct, frozen=True, gc=False):
    metadata: _Meta
    timestamp: datetime
    containers: tuple[_Container, ...] = ()


class _NodeMetrics(msgspec.Struct, frozen=True, gc=False):
    metadata: _Meta
    timestamp: datetime
    usage: dict[str, str] = {}


class _Pods(msgspec.Struct, frozen=True):
    items: list[_PodMetrics] | None = None


class _Nodes(msgspec.Struct, frozen=True):
    items: list[_NodeMetrics] | None = None


_T = TypeVar("_T")
_pods = msgspec.json.Decoder(_Pods)
_nodes = msgspec.json.Decoder(_Nodes)


def usage_millicores(text: str) -> float:
    """`"137402104n"` -> 137.402104. The metrics server writes nanocores; the rest goes the slow, exact way."""
    if text[-1:] == "n" and text[:-1].isdigit():
        return int(text[:-1]) / 1e6
    return float(parse_quantity(text) * 1000)


def usage_bytes(text: str) -> int:
    """`"1496784Ki"` -> 1532706816."""
    factor = _KIBI.get(text[-2:])
    if factor is not None and text[:-2].isdigit():
        return int(text[:-2]) * factor
    return int(parse_quantity(text))


class _Missing(Exception):
    """No reading; says why."""


class UsagePoller:
    """Polls every few seconds and keeps the last snapshot, whole or with the reason for what it lacks, and a short
    history of them."""

    def __init__(
        self,
        transport: Transport,
        tuning: Tuning,
        timing: Timing,
        cluster_clock: ClusterClock,
        namespaces: Sequence[str] = (),
        *,
        with_nodes: bool = True,
    ) -> None:
        self._transport = transport
        self._tuning = tuning
        self._timing = timing
        self._cluster_clock = cluster_clock
        self._namespaces = namespaces
        self._with_nodes = with_nodes
        self.snapshot = UsageSnapshot(None, None, None, "metrics.k8s.io has not been read yet")
        self.recollection = Recollection()

    async def run(self) -> None:
        while True:
            try:
                await self.poll()
            except Exception:
                logger.exception("Reading metrics.k8s.io failed")
                self.snapshot = UsageSnapshot(self._cluster_clock.now(), None, None, "reading metrics.k8s.io failed")
            await self._timing.sleep(self._tuning.usage_interval)

    async def poll(self) -> None:
        self.snapshot = await self.read()
        for index, ((namespace, name), usage) in enumerate((self.snapshot.pods or {}).items()):
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            self.recollection.add(namespace, name, usage)
        for _ in self.recollection.sweep():
            await asyncio.sleep(0)

    async def read(self) -> UsageSnapshot:
        reasons: list[str] = []
        pods: dict[tuple[str, str], PodUsage] | None = None
        nodes: dict[str, NodeUsage] | None = None
        try:
            pods = await self._read_pods()
        except _Missing as missing:
            reasons.append(f"pods: {missing}")
        if self._with_nodes:
            try:
                nodes = await self._read_nodes()
            except _Missing as missing:
                reasons.append(f"nodes: {missing}")
        else:
            reasons.append("nodes: the workspace is limited to namespaces")
        return UsageSnapshot(self._cluster_clock.now(), pods, nodes, "; ".join(reasons))

    async def _read_pods(self) -> dict[tuple[str, str], PodUsage]:
        readings: dict[tuple[str, str], PodUsage] = {}
        for namespace in self._namespaces or ("",):
            scope = f"/namespaces/{namespace}" if namespace else ""
            items = _decoded(_pods, await self._get(f"{_ROOT}{scope}/pods")).items or []
            for index, item in enumerate(items):
                if index % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
                reading = _pod_usage(item)
                if reading is not None:
                    readings[item.metadata.namespace, item.metadata.name] = reading
        return readings

    async def _read_nodes(self) -> dict[str, NodeUsage]:
        readings = {}
        for item in _decoded(_nodes, await self._get(f"{_ROOT}/nodes")).items or ():
            figures = _figures(item.usage)
            if figures is not None:
                readings[item.metadata.name] = NodeUsage(*figures, item.timestamp)
        return readings

    async def _get(self, path: str) -> bytes:
        try:
            return await self._transport.get(path, large=True)
        except Refused as refused:
            match refused.status:
                case 404:
                    raise _Missing("the cluster does not serve metrics.k8s.io (no metrics server)") from refused
                case 403:
                    raise _Missing("the credentials may not read metrics.k8s.io") from refused
                case _:
                    raise _Missing(f"metrics.k8s.io answers {refused.status}") from refused
        except Unreachable as failure:
            raise _Missing(failure.reason) from failure


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Missing("metrics.k8s.io answers something else than metrics") from error


def _figures(usage: dict[str, str]) -> tuple[float, int] | None:
    """None where either is missing or is no quantity: half a reading would add up to a wrong sum."""
    try:
        return usage_millicores(usage["cpu"]), usage_bytes(usage["memory"])
    except (KeyError, ValueError):
        return None


def _pod_usage(item: _PodMetrics) -> PodUsage | None:
    containers = {}
    for container in item.containers:
        figures = _figures(container.usage)
        if figures is None:
            return None
        containers[container.name] = ContainerUsage(*figures)
    return PodUsage(containers, item.timestamp)
