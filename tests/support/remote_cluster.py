"""A cluster in another process: serves a FakeWorkloads over loopback, one JSON document a line, and calls it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec

from opsapi.applications.errors import OutcomeUnknown, TargetGone, WriteConflict, WriteRefused
from opsapi.applications.ports import AutoscalerBounds, ScaleState, WorkloadRef, WrittenEvent
from opsapi.workspaces.objects import DEPLOYMENT, HorizontalPodAutoscaler, Workload
from support.workloads import FakeWorkloads

_FAULTS: dict[str, type[Exception]] = {"gone": TargetGone, "conflict": WriteConflict}


class Request(msgspec.Struct):
    verb: str
    namespace: str
    name: str
    uid: str
    arguments: dict[str, Any] = {}


class Response(msgspec.Struct):
    """`value` stays encoded, since Kubernetes' Structs hold raw JSON."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    fault: str = ""


@asynccontextmanager
async def serving(workloads: FakeWorkloads) -> AsyncIterator[int]:
    """The port on which `workloads` is served."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                response = await _answer(workloads, msgspec.json.decode(line, type=Request))
                writer.write(msgspec.json.encode(response) + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _answer(workloads: FakeWorkloads, asked: Request) -> Response:
    ref = WorkloadRef("ws-123", DEPLOYMENT, asked.namespace, asked.name, asked.uid)
    try:
        return Response(msgspec.Raw(msgspec.json.encode(await _call(workloads, ref, asked))))
    except TargetGone:
        return Response(fault="gone")
    except WriteConflict:
        return Response(fault="conflict")
    except WriteRefused as error:
        return Response(fault=f"refused {error.reason}")


async def _call(workloads: FakeWorkloads, ref: WorkloadRef, asked: Request) -> object:
    arguments = asked.arguments
    match asked.verb:
        case "read_workload":
            return await workloads.read_workload(ref)
        case "read_scale":
            return await workloads.read_scale(ref)
        case "write_scale":
            version = arguments["resource_version"]
            return await workloads.write_scale(ref, arguments["replicas"], resource_version=version)
        case "find_autoscaler":
            return await workloads.find_autoscaler(ref)
        case "write_event":
            event = msgspec.convert(arguments["event"], WrittenEvent)
            at = datetime.fromisoformat(arguments["at"])
            await workloads.write_event(ref, event, operation_id=arguments["operation_id"], at=at)
            return None
        case _:
            raise AssertionError(asked.verb)


class RemoteWorkloads:
    """Implements Workloads by asking the process behind `port`."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def _ask(self, verb: str, ref: WorkloadRef, **arguments: Any) -> bytes:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                request = Request(verb, ref.namespace, ref.name, ref.uid, arguments)
                writer.write(msgspec.json.encode(request) + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
        except OSError as error:
            raise OutcomeUnknown("kubernetes_api", "no answer", workspace_id=ref.workspace_id) from error
        if not line:
            raise OutcomeUnknown("kubernetes_api", "no answer", workspace_id=ref.workspace_id)
        response = msgspec.json.decode(line, type=Response)
        if response.fault.startswith("refused"):
            raise WriteRefused(response.fault.removeprefix("refused "), "", 403)
        if response.fault:
            raise _FAULTS[response.fault]
        return bytes(response.value)

    async def read_workload(self, ref: WorkloadRef) -> Workload:
        return msgspec.json.decode(await self._ask("read_workload", ref), type=Workload)

    async def read_scale(self, ref: WorkloadRef) -> ScaleState:
        return msgspec.json.decode(await self._ask("read_scale", ref), type=ScaleState)

    async def write_scale(
        self, ref: WorkloadRef, replicas: int, *, resource_version: str, dry_run: bool = False
    ) -> ScaleState:
        assert not dry_run
        answer = await self._ask("write_scale", ref, replicas=replicas, resource_version=resource_version)
        return msgspec.json.decode(answer, type=ScaleState)

    async def find_autoscaler(self, ref: WorkloadRef) -> HorizontalPodAutoscaler | None:
        found = await self._ask("find_autoscaler", ref)
        return msgspec.json.decode(found, type=HorizontalPodAutoscaler | None)

    async def write_autoscaler(
        self,
        ref: WorkloadRef,
        bounds: AutoscalerBounds,
        *,
        existing: HorizontalPodAutoscaler | None,
        operation_id: str,
        dry_run: bool = False,
    ) -> HorizontalPodAutoscaler:
        raise AssertionError("these tests scale without autoscalers")

    async def write_event(self, ref: WorkloadRef, event: WrittenEvent, *, operation_id: str, at: datetime) -> None:
        await self._ask("write_event", ref, event=event, operation_id=operation_id, at=at.isoformat())
