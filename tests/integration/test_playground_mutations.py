"""Recorded objects with parts broken at random: whatever comes in, a Status goes out, never an internal error."""

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.clock import SystemClock
from opsapi.playground.api import protobuf
from opsapi.playground.api.app import ApiOptions, PlaygroundApi, create_app
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.registry import ApiError, Obj, User
from support.asgi import Answer, call
from support.recordings import bodies

_JUNK: list[Any] = [
    None,
    0,
    -1,
    1.5,
    True,
    "",
    "x",
    "é\n",
    [],
    {},
    [None],
    [1],
    {"a": None},
    "25%",
    [[]],
    10**30,
    "1Gi",
]
_JUNK += [{"a": {"b": []}}, {"name": "a"}, [{"name": "a"}, {"name": "a"}]]
_SENT = {"Authorization": "Bearer t", "User-Agent": "mutant/1"}
_PATCHES = ("merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
_EXTRA: list[Obj] = [
    {"kind": "LimitRange", "apiVersion": "v1", "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
    {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "rules": [{"verbs": ["get"], "apiGroups": [""]}]},
    {
        "kind": "RoleBinding",
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "subjects": [{"kind": "User", "name": "x"}],
        "roleRef": {"kind": "Role", "name": "r"},
    },
    {
        "kind": "Endpoints",
        "apiVersion": "v1",
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}],
    },
    {"kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "provisioner": "x"},
    {"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1", "spec": {"service": {"name": "a"}, "group": "x"}},
]


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [prefix, *(path for key, one in inner for path in _paths(one, (*prefix, key)))]


def _mutant(chance: random.Random, obj: Obj) -> Obj:
    made = copy.deepcopy(obj)
    for _ in range(chance.randint(1, 3)):
        paths = [path for path in _paths(made) if path and path[0] not in ("kind", "apiVersion")]
        if not paths:
            return made
        *way, last = chance.choice(paths)
        target = made
        for key in way:
            target = target[key]
        if isinstance(target, dict) and chance.random() < 0.25:
            del target[last]
        else:
            target[last] = copy.deepcopy(chance.choice(_JUNK))
    return made


async def _sent(app: PlaygroundApi, chance: random.Random, kind: Kind, obj: Obj) -> Answer:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    base = f"{root}{'/namespaces/lab' if kind.namespaced else ''}/{kind.plural}"
    one, raw, dice = f"{base}/{chance.choice('abc')}", json.dumps(obj).encode(), chance.random()
    headers = {**_SENT, "Content-Type": "application/json"}
    if dice < 0.4:
        return await call(app, "POST", base, headers=headers, body=raw)
    if dice < 0.55:
        return await call(app, "PUT", one, headers=headers, body=raw)
    if dice < 0.9:
        headers["Content-Type"] = f"application/{chance.choice(_PATCHES)}"
        part = chance.choice(["", "", "/status", "/scale"])
        path = f"{one}{part}?fieldManager=m{chance.randint(1, 3)}&force=true"
        return await call(app, "PATCH", path, headers=headers, body=raw)
    if dice < 0.95:
        return await call(app, "DELETE", one, headers=headers)
    headers["Accept"] = "application/json;as=Table;v=v1;g=meta.k8s.io"
    return await call(app, "GET", base, headers=headers)


@pytest.mark.parametrize("seed", range(4))
async def test_a_broken_object_is_refused_or_stored_but_breaks_nothing(seed: int) -> None:
    chance = random.Random(seed)
    registry = ObjectRegistry(SystemClock(), seed=seed)
    app = create_app(registry, ApiOptions({"t": User("admin", ("system:masters",))}))
    registry.create("namespaces", "", {"metadata": {"name": "lab"}})
    seeds: dict[str, list[Obj]] = {}
    for obj in [*(seen.obj for seen in bodies().seen), *_EXTRA]:
        if obj["kind"] == "CustomResourceDefinition" and not registry.store.count(
            "customresourcedefinitions.apiextensions.k8s.io"
        ):
            registry.load("customresourcedefinitions.apiextensions.k8s.io", "", obj)
        seeds.setdefault(obj["kind"], []).append(obj)
    del seeds["Namespace"]
    codes: set[int] = set()
    for _ in range(1200):
        obj = chance.choice(seeds[chance.choice(sorted(seeds))])
        kind = registry.kinds.by_kind(obj["apiVersion"], obj["kind"])
        assert kind is not None
        kept = {
            key: one for key, one in (obj.get("metadata") or {}).items() if key not in ("namespace", "resourceVersion")
        }
        mutant = _mutant(chance, {**obj, "metadata": {**kept, "name": chance.choice("abc")}})
        answer = await _sent(app, chance, kind, mutant)
        assert answer.status < 500, (answer.json()["message"], kind.kind, mutant)
        codes.add(answer.status)
    assert {200, 201, 400, 404, 409, 422} <= codes


@given(st.binary(max_size=200))
def test_random_bytes_are_no_protobuf_and_say_so(raw: bytes) -> None:
    code = 200
    try:
        protobuf.decode(b"k8s\x00" + raw)
    except ApiError as error:
        code = error.code
    assert code in (200, 400, 415)


@given(st.binary(max_size=60))
def test_a_pod_of_random_bytes_is_decoded_or_refused(raw: bytes) -> None:
    envelope = b"\n\x09\n\x02v1\x12\x03Pod\x12" + bytes([len(raw)]) + raw
    code = 200
    try:
        assert protobuf.decode(b"k8s\x00" + envelope)["kind"] == "Pod"
    except ApiError as error:
        code = error.code
    assert code in (200, 400)
