"""An API server that misbehaves on demand: one collection of objects with history, and a queue of faults.

It speaks HTTP/1.1 by hand, because most of what it does wrong no framework would let it do.
"""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opsapi.workspaces.objects import POD, Kind

Object = dict[str, Any]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float
    client: str = ""
    """The common name of the client's certificate."""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


class Reply:
    """What a fault writes its bytes to."""

    def __init__(self, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        self._writer = writer
        self._headers = headers

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in (self._headers | headers).items()), "", ""]
        await self.raw("\r\n".join(lines).encode())

    async def json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        await self.head(status, extra)
        await self.raw(data)

    async def begin_stream(self) -> None:
        await self.head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})

    async def chunk(self, data: bytes) -> None:
        if data:
            await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end_stream(self) -> None:
        await self.raw(b"0\r\n\r\n")


Fault = Callable[[Request, Reply], Awaitable[None]]
"""Answers instead of the collection; the connection is closed when it returns."""


def status_body(code: int, reason: str, message: str = "") -> Object:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message or reason, "code": code,
    }  # fmt: skip


def answers(code: int, reason: str = "", *, headers: dict[str, str] | None = None, body: object = None) -> Fault:
    async def fault(request: Request, reply: Reply) -> None:
        await reply.json(code, status_body(code, reason) if body is None else body, headers)

    return fault


def streams(*pieces: bytes, clean: bool = True) -> Fault:
    """A watch of exactly these bytes; without `clean` the connection is cut after them."""

    async def fault(request: Request, reply: Reply) -> None:
        await reply.begin_stream()
        for piece in pieces:
            await reply.chunk(piece)
        if clean:
            await reply.end_stream()

    return fault


def events(*changes: tuple[str, Object]) -> bytes:
    return b"".join(json.dumps({"type": kind, "object": one}).encode() + b"\n" for kind, one in changes)


GONE_IN_STREAM = streams(events(("ERROR", status_body(410, "Expired", "too old resource version"))))


async def hangs(request: Request, reply: Reply) -> None:
    """Takes the request and says nothing, for longer than any test lives."""
    await asyncio.Event().wait()


async def hangs_in_stream(request: Request, reply: Reply) -> None:
    await reply.begin_stream()
    await asyncio.Event().wait()


async def slams(request: Request, reply: Reply) -> None:
    """Closes the connection without an answer."""


def _common_name(writer: asyncio.StreamWriter) -> str:
    shown = writer.get_extra_info("peercert") or {}
    names = {key: value for part in shown.get("subject", ()) for key, value in part}
    return str(names.get("commonName", ""))


@dataclass
class Collection:
    """Objects with one history; versions are whole numbers from 1 on."""

    kind: Kind = POD
    version: int = 1
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    history: list[tuple[int, str, Object]] = field(default_factory=list)
    compacted: int = 0
    """Watches from before this version are answered 410."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    made: int = 0

    def put(self, namespace: str, name: str, *, recreate: bool = False, **body: Any) -> Object:
        old = self.objects.get((namespace, name))
        if old is not None and recreate:
            self.delete(namespace, name)
            old = None
        self.version += 1
        self.made += 1
        uid = old["metadata"]["uid"] if old is not None else f"uid-{self.made}"
        meta = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(self.version)}
        one: Object = {"metadata": meta | body.pop("metadata", {}), **body}
        self.objects[(namespace, name)] = one
        self.history.append((self.version, "MODIFIED" if old is not None else "ADDED", one))
        return one

    def delete(self, namespace: str, name: str) -> None:
        one = self.objects.pop((namespace, name), None)
        if one is not None:
            self.version += 1
            gone = {**one, "metadata": one["metadata"] | {"resourceVersion": str(self.version)}}
            self.history.append((self.version, "DELETED", gone))

    def compact(self) -> None:
        """Forgets the history: whoever watches from before is out of luck."""
        self.compacted = self.version
        self.history.clear()

    async def publish(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def since(self, version: int) -> Iterable[tuple[int, str, Object]]:
        return [entry for entry in self.history if entry[0] > version]

    def versions(self) -> dict[tuple[str, str], tuple[str, str]]:
        """What a faithful cache holds: uid and resourceVersion by namespace and name."""
        return {key: (one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for key, one in self.objects.items()}


class MisbehavingServer:
    """Serves each collection at its kind's path, faithfully but for the faults that a test queues."""

    def __init__(
        self,
        *collections: Collection,
        time: Callable[[], float] = lambda: 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.collections = {self._path(one.kind): one for one in collections}
        self.requests: list[Request] = []
        self.list_faults: deque[Fault] = deque()
        self.watch_faults: deque[Fault] = deque()
        self.always: dict[str, Fault] = {}
        """By path: every request to it."""
        self.headers: dict[str, str] = {}
        """Sent with every answer."""
        self.port = 0
        self._time = time
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @staticmethod
    def _path(kind: Kind) -> str:
        return f"/apis/{kind.api_version}/{kind.resource}" if kind.group else f"/api/v1/{kind.resource}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "MisbehavingServer":
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; after a stop, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Away: nothing listens, and every connection is cut."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Cuts every connection wherever it is."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def tries(self, *, watch: bool | None = None) -> list[Request]:
        return [one for one in self.requests if watch is None or one.is_watch == watch]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        start, *lines = head.strip().split("\r\n")
        method, target, _ = start.split(" ")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        request = Request(method, parts.path, query, headers, body, self._time(), _common_name(writer))
        self.requests.append(request)
        reply = Reply(writer, self.headers)
        faults = self.watch_faults if request.is_watch else self.list_faults
        fault = self.always.get(parts.path) or (faults.popleft() if faults else None)
        if fault is not None:
            await fault(request, reply)
            return False
        collection = self.collections.get(parts.path)
        if collection is None:
            await reply.json(404, b"404 page not found\n")
        elif request.is_watch:
            await self._watch(collection, request, reply)
        else:
            await self._list(collection, request, reply)
        return True

    async def _list(self, collection: Collection, request: Request, reply: Reply) -> None:
        keys = sorted(collection.objects)
        token = request.query.get("continue", "")
        if token:
            version, _, after = token.partition(":")
            if int(version) < collection.compacted:
                await reply.json(410, status_body(410, "Expired", "The provided continue parameter is too old"))
                return
            keys = [key for key in keys if "/".join(key) > after]
        else:
            version = str(collection.version)
        limit = int(request.query.get("limit", "0")) or len(keys)
        page, rest = keys[:limit], keys[limit:]
        meta = {"resourceVersion": version} | ({"continue": f"{version}:{'/'.join(page[-1])}"} if rest else {})
        await reply.json(200, {"metadata": meta, "items": [collection.objects[key] for key in page]})

    async def _watch(self, collection: Collection, request: Request, reply: Reply) -> None:
        version = int(request.query["resourceVersion"])
        if version < collection.compacted:
            await GONE_IN_STREAM(request, reply)
            return
        await reply.begin_stream()
        while True:
            for at, kind, one in collection.since(version):
                version = at
                await reply.chunk(events((kind, one)))
            async with collection.changed:
                while collection.version <= version:
                    await collection.changed.wait()
            if collection.compacted > version:
                await reply.chunk(events(("ERROR", status_body(410, "Expired"))))
                await reply.end_stream()
                return
