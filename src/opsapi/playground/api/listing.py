"""GET of objects and collections: paging with consistent snapshots, selectors, Tables and metadata only."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from opsapi.playground.api import conversion, tables
from opsapi.playground.api.bodies import go_json_error
from opsapi.playground.api.request import Rendering, Request
from opsapi.playground.api.responses import Response, json_response
from opsapi.playground.api.selectors import Predicate, field_predicate, label_predicate, parse_fields
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.defaults import TEMPLATE_GENERATION
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.machinery.status import bad_request, expired, failure
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.storage.store import Entry, Key, Store, TooOldError

_encode = msgspec.json.Encoder().encode
_BATCH = 500
"""Items that go out at once; longer lists are streamed."""
CONTINUE_GONE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


def encoded(store: Store, kind: Kind, entry: Entry) -> bytes:
    """An entry's JSON in `kind`'s version, kept with the entry."""
    if kind.is_storage_version:
        return entry.encoded(store.cache)
    if entry.views is None:
        entry.views = {}
    known: bytes | None = entry.views.get(kind.api_version)
    if known is None:
        known = entry.views[kind.api_version] = _encode(conversion.from_storage(kind, entry.obj))
    return known


def item_prefix(kind: Kind) -> bytes:
    """What a list leaves out of each built-in item: kind and apiVersion."""
    return _encode({"kind": kind.kind, "apiVersion": kind.api_version})[:-1] + b","


def as_item(raw: bytes, prefix: bytes) -> bytes:
    return b"{" + raw[len(prefix) :] if prefix and raw.startswith(prefix) else raw


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a collection a request asks for."""

    namespace: str
    name: str
    labels: Predicate | None
    fields: Predicate | None
    node: str = ""
    """The node whose pods are asked for, which an index finds."""

    @property
    def is_everything(self) -> bool:
        return self.labels is None and self.fields is None and not self.name

    def matches(self, obj: Obj) -> bool:
        if self.name and obj["metadata"]["name"] != self.name:
            return False
        if self.labels is not None and not self.labels(obj):
            return False
        return self.fields is None or self.fields(obj)


def selection(request: Request, kind: Kind) -> Selection:
    """Raises ApiError (400) on selectors that do not parse."""
    terms = parse_fields(kind, request.param("fieldSelector"))
    name = next((one.value for one in terms if one.field == "metadata.name" and not one.negated), "")
    namespace = request.target.namespace if kind.namespaced else ""
    if not namespace and kind.namespaced:
        namespace = next((one.value for one in terms if one.field == "metadata.namespace" and not one.negated), "")
    rest = [one for one in terms if one.field != "metadata.name" or one.negated]
    labels = label_predicate(request.param("labelSelector"))
    node = ""
    if kind.resource == "pods":
        node = next((one.value for one in terms if one.field == "spec.nodeName" and not one.negated), "")
    return Selection(namespace, name, labels, field_predicate(kind, rest), node)


@dataclass(frozen=True, slots=True)
class _Page:
    entries: list[Entry]
    version: int
    next: str
    remaining: int | None


class Lister:
    def __init__(self, registry: ObjectRegistry) -> None:
        self._registry = registry
        self._store = registry.store

    def get(self, request: Request, kind: Kind, rendering: Rendering) -> Response:
        target = request.target
        key = (target.namespace if kind.namespaced else "", target.name)
        entry = self._store.get(kind.resource, key)
        if entry is None:
            raise self._missing(kind, target.name)
        return self.render_one(request, kind, rendering, entry.obj, raw=encoded(self._store, kind, entry))

    def _missing(self, kind: Kind, name: str) -> ApiError:
        from opsapi.playground.machinery.status import not_found

        return not_found(kind, name)

    def render_one(
        self, request: Request, kind: Kind, rendering: Rendering, obj: Obj, *, raw: bytes | None = None, code: int = 200
    ) -> Response:
        """One stored object as the client wants it; `raw` is its JSON where somebody has it already."""
        if not rendering.kind:
            body = raw if raw is not None else _encode(conversion.from_storage(kind, obj))
            return Response(code, body + b"\n")
        if rendering.kind == "Table":
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return json_response(self.table(request, kind, rendering, [obj], meta, header=True), code)
        if rendering.kind == "PartialObjectMetadata":
            return json_response(partial(conversion.from_storage(kind, obj), rendering.version), code)
        told = "only the following media types are accepted: application/json"
        raise failure(406, "NotAcceptable", told)

    def table(
        self, request: Request, kind: Kind, rendering: Rendering, objs: Iterable[Obj], meta: Obj, *, header: bool
    ) -> Obj:
        include = request.param("includeObject", "Metadata")
        if include not in ("None", "Metadata", "Object"):
            raise bad_request(f'invalid includeObject "{include}"')
        now = self._registry.clock.now()

        def shown(obj: Obj) -> Obj | None:
            if include == "None":
                return None
            served = conversion.from_storage(kind, obj)
            if include == "Object":
                return served
            row = partial(served, rendering.version)
            if kind.resource == "daemonsets.apps":
                # Rows show the internal type's metadata, where this annotation is a field of its own.
                row["metadata"] = _without_annotation(row["metadata"], TEMPLATE_GENERATION)
            return row

        rows = ((obj, shown(obj)) for obj in objs)
        return tables.table(tables.columns_of(kind), rows, meta, rendering.version, now, header=header)

    def list_objects(self, request: Request, kind: Kind, rendering: Rendering) -> Response:
        page = self._page(request, kind, selection(request, kind))
        meta: Obj = {"resourceVersion": str(page.version)}
        if page.next:
            meta["continue"] = page.next
        if page.remaining:
            meta["remainingItemCount"] = page.remaining
        if rendering.kind == "Table":
            objs = [entry.obj for entry in page.entries]
            return json_response(self.table(request, kind, rendering, objs, meta, header=True))
        if rendering.kind == "PartialObjectMetadataList":
            items = [partial(conversion.from_storage(kind, entry.obj), rendering.version) for entry in page.entries]
            api_version = f"meta.k8s.io/{rendering.version}"
            return json_response({"kind": rendering.kind, "apiVersion": api_version, "metadata": meta, "items": items})
        if rendering.kind:
            raise failure(406, "NotAcceptable", "only the following media types are accepted: application/json")
        if len(page.entries) > _BATCH and request.method == "GET":
            return Response(200, stream=self._in_batches(kind, page.entries, meta))
        head, prefix = self._head(kind, meta)
        return Response(200, b"".join((head, self._joined(kind, page.entries, prefix), b"]}\n")))

    def _head(self, kind: Kind, meta: Obj) -> tuple[bytes, bytes]:
        """A list up to its items, and what each item leaves out."""
        head = _encode({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta})[:-1]
        return head + b',"items":[', b"" if kind.custom else item_prefix(kind)

    def _joined(self, kind: Kind, entries: list[Entry], prefix: bytes) -> bytes:
        store = self._store
        return b",".join([as_item(encoded(store, kind, entry), prefix) for entry in entries])

    async def _in_batches(self, kind: Kind, entries: list[Entry], meta: Obj) -> AsyncIterator[bytes]:
        """A long list a piece at a time, so that other requests are served in between."""
        head, prefix = self._head(kind, meta)
        for start in range(0, len(entries), _BATCH):
            yield (b"," if start else head) + self._joined(kind, entries[start : start + _BATCH], prefix)
            await asyncio.sleep(0)
        yield b"]}\n"

    def _page(self, request: Request, kind: Kind, chosen: Selection) -> _Page:
        limit = _limit(request)
        token = request.param("continue")
        version, start = self._store.version, None
        sent = request.param("resourceVersion")
        if token:
            if sent not in ("", "0"):
                raise bad_request("specifying resource version is not allowed when using continue")
            version, start = decode_continue(token)
        elif sent == "0":
            limit = 0
        elif sent:
            version = self._asked_version(request, sent)
        few = bool(chosen.node) and len(self._store.pods_on_node(chosen.node)) <= limit
        indexed = few and not token and version == self._store.version
        if indexed or (limit == 0 and not token and version == self._store.version):
            found = [entry for entry in self._candidates(kind, chosen) if chosen.matches(entry.obj)]
            return _Page(found, version, "", None)
        try:
            return self._slice(kind, chosen, version, start, limit)
        except TooOldError as error:
            if token:
                raise expired(CONTINUE_GONE) from error
            raise expired(f"too old resource version: {error.requested} ({error.oldest})") from error

    def _asked_version(self, request: Request, sent: str) -> int:
        version = parse_version(sent)
        if version > self._store.version:
            raise too_large(version, self._store.version)
        return version if request.param("resourceVersionMatch") == "Exact" else self._store.version

    def _candidates(self, kind: Kind, chosen: Selection) -> list[Entry]:
        if chosen.name and (chosen.namespace or not kind.namespaced):
            entry = self._store.get(kind.resource, (chosen.namespace, chosen.name))
            return [] if entry is None else [entry]
        if chosen.node:
            on_node = self._store.pods_on_node(chosen.node)
            kept = [one for one in on_node if not chosen.namespace or one.key[0] == chosen.namespace]
            return sorted(kept, key=lambda one: one.key)
        return self._store.entries(kind.resource, chosen.namespace)

    def _slice(self, kind: Kind, chosen: Selection, version: int, start: Key | None, limit: int) -> _Page:
        found: Iterator[Entry] = (
            entry
            for entry in self._store.page(kind.resource, chosen.namespace, version, start)
            if chosen.matches(entry.obj)
        )
        if limit == 0:
            return _Page(list(found), version, "", None)
        entries = list(islice(found, limit))
        if next(found, None) is None:
            return _Page(entries, version, "", None)
        remaining = None
        if chosen.is_everything:
            remaining = self._store.remaining(kind.resource, chosen.namespace, version, entries[-1].key)
        return _Page(entries, version, encode_continue(version, entries[-1].key), remaining)


def partial(obj: Obj, version: str) -> Obj:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


def _without_annotation(meta: Obj, name: str) -> Obj:
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key != name}
    kept = {key: value for key, value in meta.items() if key != "annotations"}
    return {**kept, "annotations": annotations} if annotations else kept


def _limit(request: Request) -> int:
    sent = request.param("limit", "0") or "0"
    try:
        value = int(sent)
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{sent}": invalid syntax') from error
    return max(value, 0)


def parse_version(sent: str) -> int:
    if not sent.isascii() or not sent.isdecimal():
        raise bad_request(f'invalid resource version "{sent}": strconv.ParseUint: parsing "{sent}": invalid syntax')
    return int(sent)


def too_large(version: int, current: int) -> ApiError:
    told = f"Too large resource version: {version}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return failure(504, "Timeout", f"Timeout: {told}", {"causes": [cause], "retryAfterSeconds": 1})


def encode_continue(version: int, after: Key) -> str:
    start = f"{after[0]}/{after[1]}\0"
    text = _encode({"v": "meta.k8s.io/v1", "rv": version, "start": start})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_continue(token: str) -> tuple[int, Key]:
    """Raises ApiError (400)."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        why = "illegal base64 data at input byte 0"
        raise bad_request(f"invalid continue token: continue key is not valid: {why}") from error
    try:
        held: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = _first_character_error(raw)
        raise bad_request(f"invalid continue token: continue key is not valid: {why}") from error
    if not isinstance(held, dict) or held.get("v") != "meta.k8s.io/v1":
        raise bad_request(
            "invalid continue token: continue key is not valid: server does not recognize this encoded version"
        )
    start, version = held.get("start"), held.get("rv")
    if not isinstance(start, str) or not isinstance(version, int) or version < 1 or "/" not in start:
        raise bad_request(
            "invalid continue token: continue key is not valid: "
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
        )
    namespace, _, name = start.rstrip("\0").rpartition("/")
    return version, (namespace, name)


def _first_character_error(raw: bytes) -> str:
    told = go_json_error(raw)
    if told.startswith("invalid UTF-8"):
        return f"invalid character '{chr(raw[0])}' looking for beginning of value"
    return told
