"""The exchanges recorded from a real 1.36 control plane, and the state of its objects at any of them."""

import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from opsapi.playground.api import protobuf
from opsapi.playground.kinds import KindTable
from opsapi.playground.machinery.normal import Normalizer
from opsapi.playground.registry import ApiError

Obj = dict[str, Any]
FILE = Path(__file__).parents[1] / "recordings" / "kube-api-1.36.jsonl.gz"
PROTOBUF = "application/vnd.kubernetes.protobuf"


@dataclass(slots=True)
class Exchange:
    """`body` and `answer` are decoded: JSON, text, or what protobuf held; raw_body is what to send again."""

    index: int
    label: str
    method: str
    path: str
    headers: dict[str, str]
    raw_body: bytes
    body: Any
    status: int
    answer_headers: dict[str, str]
    answer: Any
    stream: list[Obj] | None = None
    protobuf_answer: bool = False

    @property
    def plain_path(self) -> str:
        return urlsplit(self.path).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)


@cache
def exchanges() -> list[Exchange]:
    with gzip.open(FILE, "rb") as file:
        return [_exchange(index, msgspec.json.decode(line)) for index, line in enumerate(file)]


def _exchange(index: int, line: Obj) -> Exchange:
    request, response = line["request"], line["response"]
    raw = _raw(request["body"])
    body = request["body"]
    if request["headers"].get("Content-Type") == PROTOBUF:
        body = protobuf.decode(raw)
    answer, stream, packed = response["body"], None, False
    if isinstance(answer, dict) and "stream" in answer:
        stream = answer["stream"]
    elif isinstance(answer, dict) and answer.get("type") and "object" in answer:
        stream = [answer]
    if response["headers"].get("Content-Type") == PROTOBUF:
        answer, packed = _unpacked(_raw(answer)), True
    return Exchange(
        index,
        line["label"],
        request["method"],
        request["path"],
        request["headers"],
        raw,
        body,
        response["status"],
        response["headers"],
        answer,
        stream,
        packed,
    )


def _raw(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, dict) and set(body) == {"base64"}:
        return base64.b64decode(body["base64"])
    return msgspec.json.encode(body)


def _unpacked(raw: bytes) -> Any:
    """A protobuf answer as JSON would have it."""
    kinds = KindTable()
    try:
        decoded = protobuf.decode(raw)
    except ApiError:
        return _unpacked_list(kinds, raw)
    if decoded["kind"] == "Status":
        return _without_empty(decoded)
    kind = kinds.by_kind(decoded["apiVersion"], decoded["kind"])
    assert kind is not None, decoded["kind"]
    return Normalizer(kinds).decode(kind, decoded).obj


def _without_empty(status: Obj) -> Obj:
    made = {key: value for key, value in status.items() if value not in ("", None)}
    made["metadata"] = {}
    if "details" in made:
        made["details"] = {key: value for key, value in made["details"].items() if value not in ("", 0)}
    return made


def _unpacked_list(kinds: KindTable, raw: bytes) -> Obj:
    """runtime.Unknown around a list: metadata is its field 1, every item a field 2."""
    envelope = dict(protobuf.fields(raw[4:]))
    head = dict(protobuf.fields(_bytes(envelope[1])))
    api_version, name = _bytes(head[1]).decode(), _bytes(head[2]).decode()
    kind = kinds.by_kind(api_version, name.removesuffix("List"))
    assert kind is not None, name
    normalizer = Normalizer(kinds)
    struct = normalizer.schema_of(kind)
    assert struct is not None
    content = list(protobuf.fields(_bytes(envelope[2])))
    version = dict(protobuf.fields(_bytes(content[0][1]))).get(2, b"")
    items = []
    for number, value in content:
        if number == 2:
            item = normalizer.decode(kind, protobuf.message(struct, _bytes(value))).obj
            items.append({key: one for key, one in item.items() if key not in ("kind", "apiVersion")})
    meta = {"resourceVersion": _bytes(version).decode()}
    return {"kind": name, "apiVersion": api_version, "metadata": meta, "items": items}


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


@dataclass(frozen=True, slots=True)
class Seen:
    """One complete object as an exchange showed it."""

    index: int
    version: int
    obj: Obj

    @property
    def key(self) -> tuple[str, str, str]:
        meta = self.obj["metadata"]
        return self.obj["kind"], meta.get("namespace", ""), meta["name"]


@dataclass(slots=True)
class Bodies:
    """Every complete object that was ever seen, in the order of the exchanges."""

    seen: list[Seen] = field(default_factory=list)

    def at(self, uid: str, version: str) -> Obj | None:
        return next(
            (one.obj for one in self.seen if one.obj["metadata"]["uid"] == uid and one.version == int(version)), None
        )

    def state_before(self, index: int, uid: str, version: int) -> Obj | None:
        """The newest body, no newer than `version`, that another exchange than `index` showed of the object."""
        found = [
            one
            for one in self.seen
            if one.obj["metadata"]["uid"] == uid
            and (one.version < version or (one.version == version and one.index < index))
        ]
        return max(found, key=lambda one: (one.version, -one.index)).obj if found else None

    def latest_before(self, index: int, key: tuple[str, str, str]) -> Obj | None:
        """The last body of that kind, namespace and name that an earlier exchange showed."""
        found = [one for one in self.seen if one.key == key and one.index < index]
        return found[-1].obj if found else None


@cache
def bodies() -> Bodies:
    found = Bodies()
    for exchange in exchanges():
        for obj in _objects(exchange):
            meta = obj["metadata"]
            if "uid" in meta and meta.get("resourceVersion", "").isdecimal():
                found.seen.append(Seen(exchange.index, int(meta["resourceVersion"]), obj))
    return found


def _objects(exchange: Exchange) -> Iterator[Obj]:
    if "dryRun" in exchange.path or "/scale" in exchange.path:
        return
    answers: list[Any] = [one["object"] for one in exchange.stream] if exchange.stream else [exchange.answer]
    for answer in answers:
        if not isinstance(answer, dict) or "kind" not in answer or exchange.status >= 400:
            continue
        kind = answer["kind"]
        if kind.endswith("List") and isinstance(answer.get("items"), list):
            item = {"kind": kind.removesuffix("List"), "apiVersion": answer["apiVersion"]}
            if not kind.startswith(("PartialObject", "API")):
                yield from ({**item, **one} for one in answer["items"])
        elif kind == "Table":
            for row in answer.get("rows") or []:
                shown = row.get("object") or {}
                if shown.get("kind") not in (None, "PartialObjectMetadata"):
                    yield shown
        elif kind not in ("Status", "PartialObjectMetadata") and "metadata" in answer:
            yield answer
