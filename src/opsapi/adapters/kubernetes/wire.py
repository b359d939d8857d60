"""The API server's JSON, decoded into the slim Structs.

The typed decoders are fast and strict. Where a body does not fit (a null where the API's schema says a list, an object
of a custom resource that ignores its schema), the slow way drops nulls and reads object by object, so that one odd
object never hides the others.
"""

from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import UNSET

from opsapi.workspaces.objects import Kind, KubernetesObject, WorkloadMeta

T = TypeVar("T")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Undecodable(Exception):
    """The bytes are not what the API would send."""


class StatusCause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    causes: tuple[StatusCause, ...] | None = None
    retry_after_seconds: int | None = None


class Status(msgspec.Struct, frozen=True):
    """metav1.Status, how the API says no."""

    reason: str = ""
    message: str = ""
    code: int = 0
    details: StatusDetails | None = None


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `unreadable` names the objects that were left out."""

    metadata: ListMeta
    items: list[T] | None = None
    unreadable: tuple[str, ...] = ()


class Added(msgspec.Struct, Generic[T], frozen=True, tag_field="type", tag="ADDED"):
    object: T


class Modified(msgspec.Struct, Generic[T], frozen=True, tag_field="type", tag="MODIFIED"):
    object: T


class Deleted(msgspec.Struct, Generic[T], frozen=True, tag_field="type", tag="DELETED"):
    object: T


class BookmarkMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class BookmarkObject(msgspec.Struct, frozen=True):
    metadata: BookmarkMeta


class Bookmark(msgspec.Struct, frozen=True, tag_field="type", tag="BOOKMARK"):
    object: BookmarkObject


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="ERROR"):
    object: Status


class Unreadable(msgspec.Struct, frozen=True):
    """An event whose object does not fit its Struct: what it was about, where that much can be told."""

    metadata: ListMeta
    namespace: str
    name: str
    reason: str


class _AnyEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


Change = Added[KubernetesObject] | Modified[KubernetesObject] | Deleted[KubernetesObject]
WatchEvent = Change | Bookmark | Failed | Unreadable


class _NameMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    resource_version: str = ""


class _Named(msgspec.Struct, frozen=True):
    metadata: _NameMeta


_EVENTS: dict[str, Any] = {"ADDED": Added, "MODIFIED": Modified, "DELETED": Deleted}
_loose_event = msgspec.json.Decoder(_AnyEvent)
_loose_page = msgspec.json.Decoder(Page[msgspec.Raw])
_status = msgspec.json.Decoder(Status)


@lru_cache(maxsize=64)
def _page_decoder(struct: type[KubernetesObject]) -> msgspec.json.Decoder[Page[KubernetesObject]]:
    return msgspec.json.Decoder(Page[struct])  # type: ignore[valid-type]


@lru_cache(maxsize=64)
def _event_decoder(struct: type[KubernetesObject]) -> msgspec.json.Decoder[WatchEvent]:
    return msgspec.json.Decoder(
        Added[struct] | Modified[struct] | Deleted[struct] | Bookmark | Failed  # type: ignore[valid-type]
    )


def decode_page(kind: Kind, body: bytes) -> Page[KubernetesObject]:
    """Raises Undecodable where the body is no list at all."""
    try:
        page = _page_decoder(kind.struct).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        page = _decode_page_slowly(kind, body)
    if _keeps_managed_fields(kind.struct):
        for one in page.items or ():
            _detach(one)
    return page


@lru_cache(maxsize=64)
def _keeps_managed_fields(struct: type[KubernetesObject]) -> bool:
    kept = msgspec.structs.fields(struct)[0].type
    return isinstance(kept, type) and issubclass(kept, WorkloadMeta)


def _detach(one: KubernetesObject) -> None:
    """A Raw is a view that would keep the whole page alive; a copy holds its own few hundred bytes. The copy of the
    manifest that `kubectl apply` leaves on each object is larger than all that we keep, and nobody reads it."""
    meta = cast("WorkloadMeta", one.metadata)  # type: ignore[attr-defined]
    meta.annotations.pop(_LAST_APPLIED, None)
    for entry in meta.managed_fields:
        if entry.fields_v1 is not UNSET:
            msgspec.structs.force_setattr(entry, "fields_v1", entry.fields_v1.copy())


def _decode_page_slowly(kind: Kind, body: bytes) -> Page[KubernetesObject]:
    try:
        page = _loose_page.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"a list of {kind} that is none: {error}") from error
    items: list[KubernetesObject] = []
    unreadable: list[str] = []
    for raw in page.items or ():
        try:
            items.append(decode_object(kind.struct, bytes(raw)))
        except Undecodable as error:
            unreadable.append(str(error))
    return Page(page.metadata, items, tuple(unreadable))


def decode_event(kind: Kind, line: bytes) -> WatchEvent | None:
    """None for a type of event that we do not know. Raises Undecodable where the line is no event at all."""
    try:
        quick = _event_decoder(kind.struct).decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_event_slowly(kind, line)
    if not isinstance(quick, Bookmark | Failed | Unreadable) and _keeps_managed_fields(kind.struct):
        _detach(quick.object)
    return quick


def _decode_event_slowly(kind: Kind, line: bytes) -> WatchEvent | None:
    try:
        event = _loose_event.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"a watch event of {kind} that is none: {error}") from error
    shape = _EVENTS.get(event.type)
    if shape is None:
        if event.type in ("BOOKMARK", "ERROR"):
            raise Undecodable(f"a malformed {event.type} of {kind}")
        return None
    try:
        result: WatchEvent = shape(decode_object(kind.struct, bytes(event.object)))
    except Undecodable as error:
        return _unreadable(bytes(event.object), error)
    return result


def _unreadable(body: bytes, error: Undecodable) -> Unreadable:
    """Raises the error again where not even the name can be told."""
    try:
        meta = msgspec.json.decode(body, type=_Named).metadata
    except msgspec.DecodeError:
        raise error from None
    return Unreadable(ListMeta(resource_version=meta.resource_version), meta.namespace, meta.name, str(error))


def decode_object(struct: type[T], body: bytes) -> T:
    """Tolerates null where a field has a default, as Go's decoder does. Raises Undecodable naming the object."""
    try:
        return msgspec.json.decode(body, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    tree: Any = None
    try:
        tree = _without_nulls(msgspec.json.decode(body))
        return msgspec.convert(tree, struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        meta = tree.get("metadata") if isinstance(tree, dict) else None
        named = f"{meta.get('namespace', '')}/{meta.get('name', '?')}" if isinstance(meta, dict) else "an object"
        raise Undecodable(f"{named}: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def decode_status(body: bytes) -> Status:
    """What could be told of a failure; an empty Status where the body is none (a proxy's page)."""
    try:
        return _status.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Status()
