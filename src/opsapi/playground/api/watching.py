"""WATCH: events from a resourceVersion on, with bookmarks, initial events and Tables."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from opsapi.playground.api import conversion
from opsapi.playground.api.faults import ApiFaults, WatchFault
from opsapi.playground.api.listing import Lister, Selection, encoded, parse_version, partial, selection, too_large
from opsapi.playground.api.request import Rendering, Request
from opsapi.playground.api.responses import Response
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.normal import zero
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.machinery.status import Cause, invalid, too_old
from opsapi.playground.registry import ChangeType, Obj
from opsapi.playground.storage.store import Entry, StoredEvent, TooOldError

_encode = msgspec.json.Encoder().encode
_DEFAULT_SECONDS = 1800.0
BOOKMARK_SECONDS = 60.0
_INITIAL_END = {"k8s.io/initial-events-end": "true"}


class CutMidLineError(Exception):
    """A fault ends the connection in the middle of a line."""


class Watcher:
    """One watch. Events are queued by the store's callback and written by `stream`."""

    def __init__(
        self, registry: ObjectRegistry, lister: Lister, request: Request, kind: Kind, rendering: Rendering
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._lister = lister
        self._request = request
        self._kind = kind
        self._rendering = rendering
        self._chosen = selection(request, kind)
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._initial_end = request.flag("sendInitialEvents")
        self._check()
        self._seconds = _timeout(request)
        self._queue: deque[StoredEvent] = deque()
        self._wake = asyncio.Event()
        self._first_lines: list[bytes] = []
        self._failed = False
        self._header_due = True
        self._sent_version = self._store.version
        self._stop = self._store.listen(kind.resource, self._notice)
        try:
            self._begin()
        except BaseException:
            self._stop()
            raise

    def _check(self) -> None:
        sent = self._request.param("sendInitialEvents")
        match = self._request.param("resourceVersionMatch")
        if sent and match != "NotOlderThan":
            why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise invalid("meta.k8s.io", "ListOptions", "", [Cause("FieldValueForbidden", why, "resourceVersionMatch")])
        if match and not sent:
            why = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            raise invalid("meta.k8s.io", "ListOptions", "", [Cause("FieldValueForbidden", why, "resourceVersionMatch")])

    def _begin(self) -> None:
        """What comes before live events: the state, or what happened since the version asked for."""
        sent = self._request.param("resourceVersion")
        version = parse_version(sent) if sent else 0
        if version > self._store.version:
            raise too_large(version, self._store.version)
        if version == 0 or self._initial_end:
            if self._request.param("sendInitialEvents") == "false":
                return
            for entry in self._store.entries(self._kind.resource, self._chosen.namespace):
                if self._chosen.matches(entry.obj):
                    self._first_lines.append(self._line("ADDED", entry, entry.obj))
            if self._initial_end and self._bookmarks:
                self._first_lines.append(self._bookmark(_INITIAL_END))
            return
        try:
            self._queue.extend(self._store.events_since(self._kind.resource, version))
        except TooOldError as error:
            self._first_lines.append(error_line(too_old(error.requested, error.oldest).status))
            self._failed = True

    def _notice(self, event: StoredEvent) -> None:
        self._queue.append(event)
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def stream(self, closing: asyncio.Event, faults: ApiFaults) -> AsyncIterator[bytes]:
        """Chunks of whole lines. Raises CutMidLineError where a fault wants the connection broken."""
        fault = faults.watch_fault(self._request.target)
        sent = 0
        try:
            if fault is not None and fault.after_events <= 0:
                for chunk in _cut(fault, self._first_lines or self._pending()):
                    yield chunk
                if fault.mid_line:
                    raise CutMidLineError
                return
            async for lines in self._batches(closing):
                if fault is None:
                    yield b"".join(lines)
                    continue
                room = fault.after_events - sent
                whole = lines[:room]
                if whole:
                    yield b"".join(whole)
                sent += len(whole)
                if sent >= fault.after_events:
                    for chunk in _cut(fault, lines[room:]):
                        yield chunk
                    if fault.mid_line:
                        raise CutMidLineError
                    return
        finally:
            self._stop()

    async def _batches(self, closing: asyncio.Event) -> AsyncIterator[list[bytes]]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        next_bookmark = loop.time() + BOOKMARK_SECONDS
        if self._first_lines:
            yield self._first_lines
        if self._failed:
            return
        while not closing.is_set():
            lines = self._pending()
            if lines:
                yield lines
                continue
            now = loop.time()
            if now >= end:
                return
            if self._bookmarks and now >= next_bookmark:
                next_bookmark = now + BOOKMARK_SECONDS
                yield [self._bookmark(None)]
                continue
            until = min(end, next_bookmark) if self._bookmarks else end
            self._wake.clear()
            try:
                async with asyncio.timeout(max(until - now, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _pending(self) -> list[bytes]:
        lines: list[bytes] = []
        while self._queue and len(lines) < 500:
            line = self._event(self._queue.popleft())
            if line:
                lines.append(line)
        return lines

    def _event(self, event: StoredEvent) -> bytes:
        chosen: Selection = self._chosen
        self._sent_version = event.version
        if chosen.namespace and event.new.key[0] != chosen.namespace:
            return b""
        if chosen.is_everything:
            return self._line(event.type, event.new, event.new.obj)
        now = event.type is not ChangeType.DELETED and chosen.matches(event.new.obj)
        before = event.old is not None and chosen.matches(event.old.obj)
        if now:
            return self._line("MODIFIED" if before else "ADDED", event.new, event.new.obj)
        if not before:
            return b""
        if event.type is ChangeType.DELETED:
            return self._line("DELETED", event.new, event.new.obj)
        assert event.old is not None
        meta = {**event.old.obj["metadata"], "resourceVersion": event.new.obj["metadata"]["resourceVersion"]}
        return self._line("DELETED", None, {**event.old.obj, "metadata": meta})

    def _line(self, kind: str, entry: Entry | None, obj: Obj) -> bytes:
        if not self._rendering.kind:
            raw = encoded(self._store, self._kind, entry) if entry is not None else self._encode(obj)
            return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"
        return b'{"type":"' + kind.encode() + b'","object":' + _encode(self._shown(obj)) + b"}\n"

    def _encode(self, obj: Obj) -> bytes:
        return _encode(conversion.from_storage(self._kind, obj))

    def _shown(self, obj: Obj) -> Obj:
        if self._rendering.kind == "Table":
            header, self._header_due = self._header_due, False
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return self._lister.table(self._request, self._kind, self._rendering, [obj], meta, header=header)
        return partial(conversion.from_storage(self._kind, obj), self._rendering.version)

    def _bookmark(self, annotations: dict[str, str] | None) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(self._store.version)}
        if annotations:
            meta["annotations"] = annotations
        obj: Obj
        if self._rendering.kind == "Table":
            obj = self._lister.table(self._request, self._kind, self._rendering, [], meta, header=False)
            shown = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{self._rendering.version}",
                "metadata": meta,
            }
            obj["rows"] = [{"cells": [], "object": shown}]
        elif self._rendering.kind:
            api_version = f"meta.k8s.io/{self._rendering.version}"
            obj = {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": meta}
        else:
            obj = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": meta}
            struct = self._registry.normalizer.schema_of(self._kind)
            if struct is not None and not self._kind.custom:
                obj |= {one.name: zero(one) for one in struct.emitted if one.name != "metadata"}
                if self._kind.scale is not None:
                    obj["spec"] = {"replicas": 0, **obj["spec"]}
        return b'{"type":"BOOKMARK","object":' + _encode(obj) + b"}\n"


def _cut(fault: WatchFault, rest: list[bytes]) -> list[bytes]:
    if fault.gone:
        return [error_line(too_old(1, 2).status)]
    if fault.mid_line:
        line = rest[0] if rest else b'{"type":"MODIFIED","object":{"kind":'
        return [line[: max(len(line) // 2, 1)]]
    return []


def error_line(status: Obj) -> bytes:
    return b'{"type":"ERROR","object":' + _encode(status) + b"}\n"


def _timeout(request: Request) -> float:
    sent = request.param("timeoutSeconds")
    if not sent:
        return _DEFAULT_SECONDS
    return float(parse_version(sent)) or _DEFAULT_SECONDS


def watch_response(watcher: Watcher, closing: asyncio.Event, faults: ApiFaults) -> Response:
    return Response(stream=watcher.stream(closing, faults))
