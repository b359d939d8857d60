"""Real answers of a real control plane are read fast, whole and right."""

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.adapters.kubernetes import wire
from opsapi.adapters.kubernetes.wire import Bookmark, Failed, Undecodable, Unreadable, decode_event, decode_page
from opsapi.workspaces.objects import DEPLOYMENT, KINDS, POD, Kind, KubernetesObject, ObjectMeta, Pod

RECORDED = Path(__file__).parents[2] / "recordings" / "kube-api-1.36.jsonl.gz"


@cache
def answers() -> list[dict[str, Any]]:
    with gzip.open(RECORDED, "rt") as lines:
        return [json.loads(line)["response"] for line in lines]


def kind_of(body: dict[str, Any], suffix: str = "") -> Kind | None:
    named = (str(body.get("kind", "")), body.get("apiVersion"))
    return next((kind for kind in KINDS if (kind.kind + suffix, kind.api_version) == named), None)


def recorded_objects() -> Iterator[tuple[Kind, dict[str, Any]]]:
    for answer in answers():
        body = answer["body"]
        if isinstance(body, dict) and (kind := kind_of(body)) is not None:
            yield kind, body


def recorded_lists() -> Iterator[tuple[Kind, dict[str, Any]]]:
    for answer in answers():
        body = answer["body"]
        if isinstance(body, dict) and (kind := kind_of(body, "List")) is not None:
            yield kind, body


def recorded_events() -> Iterator[dict[str, Any]]:
    for answer in answers():
        body = answer["body"]
        if isinstance(body, dict):
            yield from body.get("stream", [body] if body.get("type") == "ERROR" else [])


def assert_within(part: Any, whole: Any, at: str = "") -> None:
    """Everything in `part` stands in `whole`, lists in full; times are compared as times."""
    if isinstance(part, dict):
        for key, value in part.items():
            assert key in whole, f"{at}.{key}"
            assert_within(value, whole[key], f"{at}.{key}")
    elif isinstance(part, list):
        assert len(part) == len(whole), at
        for index, value in enumerate(part):
            assert_within(value, whole[index], f"{at}[{index}]")
    elif isinstance(part, str) and part != whole:
        assert datetime.fromisoformat(part) == datetime.fromisoformat(whole), at
    else:
        assert part == whole, at


def test_recorded_objects_are_read_as_they_are() -> None:
    seen: Counter[str] = Counter()
    for kind, body in recorded_objects():
        held = msgspec.json.decode(json.dumps(body).encode(), type=kind.struct)
        assert_within(json.loads(msgspec.json.encode(held)), body)
        seen[kind.kind] += 1
    assert set(seen) >= {"Pod", "Node", "Deployment", "StatefulSet", "DaemonSet", "CronJob", "HorizontalPodAutoscaler"}


def test_recorded_lists_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wire, "_decode_page_slowly")
    found = 0
    for kind, body in recorded_lists():
        page = decode_page(kind, json.dumps(body).encode())
        assert page.metadata.resource_version == body["metadata"]["resourceVersion"]
        assert page.metadata.continue_ == body["metadata"].get("continue", "")
        names = [one.metadata.name for one in page.items or ()]  # type: ignore[attr-defined]
        assert names == [item["metadata"]["name"] for item in body["items"] or ()]
        found += len(names)
    assert found > 20


def test_recorded_watches_are_read_event_by_event() -> None:
    seen: Counter[str] = Counter()
    for event in recorded_events():
        kind = kind_of(event["object"]) or (POD if event["type"] == "ERROR" else None)
        if kind is None:
            continue
        held = decode_event(kind, json.dumps(event).encode())
        assert held is not None
        assert not isinstance(held, Unreadable)
        assert type(held).__name__.upper() == ("FAILED" if event["type"] == "ERROR" else event["type"])
        seen[event["type"]] += 1
        if isinstance(held, Bookmark):
            assert held.object.metadata.resource_version == event["object"]["metadata"]["resourceVersion"]
        if isinstance(held, Failed):
            assert (held.object.code, held.object.reason) == (410, "Expired")
    assert set(seen) == {"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"}


def test_recorded_refusals_keep_their_words() -> None:
    seen = Counter[str]()
    for answer in answers():
        body = answer["body"]
        if answer["status"] >= 400 and isinstance(body, dict) and body.get("kind") == "Status":
            status = wire.decode_status(json.dumps(body).encode())
            assert (status.reason, status.message, status.code) == (
                body.get("reason", ""),
                body.get("message", ""),
                body["code"],
            )
            told = (status.details.causes or ()) if status.details is not None else ()
            causes = (body.get("details") or {}).get("causes", ())
            assert [cause.field for cause in told] == [cause.get("field", "") for cause in causes]
            seen[status.reason] += 1
    assert set(seen) >= {"NotFound", "Forbidden", "Conflict", "Invalid", "AlreadyExists", "TooManyRequests"}


def object_of(kind: Kind, text: str) -> KubernetesObject:
    page = decode_page(kind, b'{"metadata": {"resourceVersion": "1"}, "items": [' + text.encode() + b"]}")
    assert page.items is not None
    return page.items[0]


def test_null_where_a_list_or_map_should_be_is_nothing() -> None:
    one = object_of(POD, '{"metadata": {"name": "a", "labels": null}, "spec": {"containers": null}, "status": null}')
    assert one == Pod(metadata=ObjectMeta(name="a"))


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"items": []}', b'{"metadata": 3}', b"\xff", b"[" * 100_000])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_page(DEPLOYMENT, body)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": 3}',
        b'{"type": "BOOKMARK", "object": 3}',
        b"\xff",
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_event(DEPLOYMENT, line)


def test_no_object_keeps_the_page_that_it_came_in_alive() -> None:
    entry = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    item = {"metadata": {"name": "web", "managedFields": [entry]}}
    page = json.dumps({"metadata": {"resourceVersion": "1"}, "items": [item]}).encode()
    line = json.dumps({"type": "ADDED", "object": item}).encode()
    before = sys.getrefcount(page), sys.getrefcount(line)
    held = decode_page(DEPLOYMENT, page).items, decode_event(DEPLOYMENT, line)
    assert (sys.getrefcount(page), sys.getrefcount(line)) == before
    assert b"f:replicas" in msgspec.json.encode(held[0])
