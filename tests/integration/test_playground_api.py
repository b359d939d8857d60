"""The playground's API over HTTP: watches, faults, paging, the official Python client."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import aio

from opsapi.playground.api.faults import ApiFault, FaultMode
from opsapi.playground.api.server import serve
from opsapi.playground.registry import Obj, User
from support.cluster import ADMIN_TOKEN, ApiHandle, running_api

PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api() -> AsyncIterator[ApiHandle]:
    async with running_api(tokens={"reader-token": User("reader")}) as made:
        yield made


@pytest.fixture
async def client(api: ApiHandle) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {api.token}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=10) as made:
        yield made


def config_map(name: str) -> Obj:
    return {"metadata": {"name": name}, "data": {"a": "b"}}


async def lines(response: httpx.Response, count: int) -> list[Any]:
    """The next `count` events of a watch."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        async for line in response.aiter_lines():
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found


async def test_a_watch_from_a_version_shows_everything_since(api: ApiHandle, client: httpx.AsyncClient) -> None:
    listed = (await client.get(CONFIG_MAPS)).json()
    version = listed["metadata"]["resourceVersion"]
    made = api.registry.create("configmaps", "default", config_map("one"))
    path = f"{CONFIG_MAPS}?watch=true&resourceVersion={version}"
    async with client.stream("GET", path) as response:
        api.registry.update("configmaps", "default", "one", {**made, "data": {"a": "c"}})
        api.registry.delete("configmaps", "default", "one")
        events = await lines(response, 3)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    assert versions[0] > int(version)


async def test_an_object_that_leaves_a_selection_is_deleted_for_its_watcher(
    api: ApiHandle, client: httpx.AsyncClient
) -> None:
    made = api.registry.create(
        "configmaps", "default", {"metadata": {"name": "one", "labels": {"app": "web"}}, "data": {"a": "b"}}
    )
    path = f"{CONFIG_MAPS}?watch=true&labelSelector=app%3Dweb&resourceVersion={api.registry.store.version}"
    async with client.stream("GET", path) as response:
        meta = {**made["metadata"], "labels": {"app": "db"}}
        gone = api.registry.update("configmaps", "default", "one", {**made, "metadata": meta})
        meta = {**gone["metadata"], "labels": {"app": "web"}}
        api.registry.update("configmaps", "default", "one", {**gone, "metadata": meta})
        events = await lines(response, 2)
    assert [event["type"] for event in events] == ["DELETED", "ADDED"]


async def test_pages_are_one_snapshot_and_end_when_it_is_compacted(api: ApiHandle, client: httpx.AsyncClient) -> None:
    for name in "abcdef":
        api.registry.create("configmaps", "default", config_map(name))
    first = (await client.get(f"{CONFIG_MAPS}?limit=2")).json()
    assert first["metadata"]["remainingItemCount"] == 5
    api.registry.delete("configmaps", "default", "c")
    api.registry.create("configmaps", "default", config_map("bb"))
    token = first["metadata"]["continue"]
    rest = (await client.get(f"{CONFIG_MAPS}?limit=500&continue={token}")).json()
    names = [one["metadata"]["name"] for one in [*first["items"], *rest["items"]]]
    assert names == ["a", "b", "c", "d", "e", "f", "kube-root-ca.crt"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    api.registry.store.compact()
    api.registry.create("configmaps", "default", config_map("g"))
    gone = await client.get(f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert (gone.status_code, gone.json()["reason"]) == (410, "Expired")


async def test_a_long_list_comes_in_pieces_and_whole(api: ApiHandle, client: httpx.AsyncClient) -> None:
    for number in range(1200):
        api.registry.load("configmaps", "default", config_map(f"c{number:04}"))
    answer = await client.get(f"{CONFIG_MAPS}?fieldSelector=metadata.name!%3Dkube-root-ca.crt")
    assert "content-length" not in answer.headers
    assert [one["metadata"]["name"] for one in answer.json()["items"]] == [f"c{number:04}" for number in range(1200)]


async def test_without_a_token_one_is_anonymous_and_with_a_wrong_one_nobody(api: ApiHandle) -> None:
    async with httpx.AsyncClient(base_url=api.url) as client:
        assert (await client.get("/version")).status_code == 200
        assert (await client.get("/api/v1/pods")).status_code == 403
        wrong = await client.get("/version", headers={"Authorization": "Bearer nobody"})
        assert (wrong.status_code, wrong.json()["message"]) == (401, "Unauthorized")


async def test_a_role_binds_by_name_verb_and_subresource(api: ApiHandle) -> None:
    registry = api.registry
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]},
    ]
    registry.create("roles.rbac.authorization.k8s.io", "default", {"metadata": {"name": "r"}, "rules": rules})
    binding = {
        "metadata": {"name": "rb"},
        "subjects": [{"kind": "User", "name": "reader"}],
        "roleRef": {"kind": "Role", "name": "r"},
    }
    registry.create("rolebindings.rbac.authorization.k8s.io", "default", binding)
    registry.create("configmaps", "default", config_map("one"))
    registry.create("configmaps", "default", config_map("two"))
    headers = {"Authorization": "Bearer reader-token"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers) as client:
        assert (await client.get(f"{CONFIG_MAPS}/one")).status_code == 200
        assert (await client.get(f"{CONFIG_MAPS}/two")).status_code == 403
        assert (await client.get(CONFIG_MAPS)).status_code == 403
        path = "/apis/apps/v1/namespaces/default/deployments/x"
        merge = {"Content-Type": "application/merge-patch+json"}
        assert (await client.patch(f"{path}/scale", json={}, headers=merge)).status_code == 404
        assert (await client.patch(path, json={}, headers=merge)).status_code == 403
        registry.delete("rolebindings.rbac.authorization.k8s.io", "default", "rb")
        assert (await client.get(f"{CONFIG_MAPS}/one")).status_code == 403


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (ApiFault(FaultMode.THROTTLED, retry_after=3), 429, "TooManyRequests"),
        (ApiFault(FaultMode.ERROR), 500, "InternalError"),
        (ApiFault(FaultMode.FORBIDDEN, resource="pods"), 403, "Forbidden"),
    ],
)
async def test_a_fault_hits_as_often_as_it_says(
    api: ApiHandle, client: httpx.AsyncClient, fault: ApiFault, status: int, reason: str
) -> None:
    fault.count = 2
    api.faults.add(fault)
    answers = [await client.get(PODS) for _ in range(3)]
    assert [one.status_code for one in answers] == [status, status, 200]
    assert answers[0].json()["reason"] == reason
    if status == 429:
        assert answers[0].headers["retry-after"] == "3"
    assert api.faults.hits == {fault.mode: 2}


async def test_a_fault_keeps_to_its_path_and_resource(api: ApiHandle, client: httpx.AsyncClient) -> None:
    fault = api.faults.add(ApiFault(FaultMode.FORBIDDEN, resource="pods"))
    assert (await client.get(PODS)).status_code == 403
    assert (await client.get(CONFIG_MAPS)).status_code == 200
    api.faults.remove(fault)
    assert (await client.get(PODS)).status_code == 200


async def test_a_connection_is_dropped_without_an_answer(api: ApiHandle, client: httpx.AsyncClient) -> None:
    api.faults.add(ApiFault(FaultMode.AWAY, count=1))
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await client.get(PODS)
    assert (await client.get(PODS)).status_code == 200


async def test_a_watch_is_cut_after_so_many_events(api: ApiHandle, client: httpx.AsyncClient) -> None:
    for name in "abc":
        api.registry.create("configmaps", "default", config_map(name))
    api.faults.add(ApiFault(FaultMode.WATCH_CUT, count=1, after_events=2))
    response = await client.get(f"{CONFIG_MAPS}?watch=true")
    assert response.text.count("\n") == 2
    assert response.text.endswith("}\n")


async def test_a_watch_is_cut_in_the_middle_of_a_line(api: ApiHandle, client: httpx.AsyncClient) -> None:
    for name in "abc":
        api.registry.create("configmaps", "default", config_map(name))
    api.faults.add(ApiFault(FaultMode.WATCH_CUT, count=1, after_events=2, mid_line=True))
    got: list[bytes] = []

    async def read(response: httpx.Response) -> None:
        async for chunk in response.aiter_bytes():
            got.append(chunk)

    async with client.stream("GET", f"{CONFIG_MAPS}?watch=true") as response:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await read(response)
    text = b"".join(got)
    assert text.count(b"\n") == 2
    assert not text.endswith(b"\n")


async def test_410_comes_as_a_status_and_in_the_stream(api: ApiHandle, client: httpx.AsyncClient) -> None:
    api.registry.create("configmaps", "default", config_map("a"))
    api.faults.add(ApiFault(FaultMode.GONE, count=1))
    api.faults.add(ApiFault(FaultMode.GONE_IN_STREAM, count=1, after_events=1))
    refused = await client.get(f"{CONFIG_MAPS}?watch=true")
    assert (refused.status_code, refused.json()["reason"]) == (410, "Expired")
    events = [json.loads(line) for line in (await client.get(f"{CONFIG_MAPS}?watch=true")).text.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "ERROR"]
    assert events[1]["object"]["code"] == 410
    assert (await client.get(CONFIG_MAPS)).status_code == 200


async def test_the_server_goes_away_and_comes_back_on_its_port(api: ApiHandle, client: httpx.AsyncClient) -> None:
    async with client.stream("GET", f"{CONFIG_MAPS}?watch=true") as watching:
        assert watching.status_code == 200
        await api.server.pause()
        with pytest.raises(httpx.HTTPError):
            await watching.aread()
    with pytest.raises(httpx.ConnectError):
        await client.get(PODS)
    await api.server.resume()
    assert (await client.get(PODS)).status_code == 200


async def test_shutting_down_does_not_wait_for_watches(api: ApiHandle) -> None:
    async with serve(api.app) as server:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        client = httpx.AsyncClient(base_url=server.url, headers=headers)
        request = client.build_request("GET", f"{PODS}?watch=true")
        watching = await client.send(request, stream=True)
        assert watching.status_code == 200
    with pytest.raises(httpx.HTTPError):
        await watching.aread()
    await client.aclose()


async def test_no_body_however_strange_brings_a_traceback(client: httpx.AsyncClient) -> None:
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    shallow = b'{"data":' * 400 + b"1" + b"}" * 400
    bodies = [
        shallow,
        b"",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{",
        b"\xff\xfe",
        deep,
        b'{"metadata":3}',
        b'{"metadata":{"name":7}}',
    ]
    bodies.append(b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")
    bodies += [b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","labels":[]}}', b"k8s\x00\xff\xff\xff"]
    for body in bodies:
        for media in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/x"):
            answer = await client.post(CONFIG_MAPS, content=body, headers={"Content-Type": media})
            assert 400 <= answer.status_code < 500, (body[:40], media, answer.text)
            assert answer.json()["kind"] == "Status"
        for media in ("json-patch", "merge-patch", "strategic-merge-patch", "apply-patch"):
            kind = f"application/{media}+{'yaml' if media == 'apply-patch' else 'json'}"
            path = f"{CONFIG_MAPS}/kube-root-ca.crt?fieldManager=x"
            answer = await client.patch(path, content=body, headers={"Content-Type": kind})
            assert answer.status_code < 500, (body[:40], media, answer.text)


async def test_a_key_that_stands_twice_is_refused_when_strict_and_warned_of_otherwise(
    client: httpx.AsyncClient,
) -> None:
    body = b'{"metadata":{"name":"twice"},"data":{"a":"1","b":"x","a":"2"}}'
    headers = {"Content-Type": "application/json"}
    strict = await client.post(f"{CONFIG_MAPS}?fieldValidation=Strict", content=body, headers=headers)
    assert strict.status_code == 400
    assert 'strict decoding error: duplicate field "data.a"' in strict.json()["message"]
    warned = await client.post(CONFIG_MAPS, content=body, headers=headers)
    assert warned.headers["warning"] == '299 - "duplicate field \\"data.a\\""'
    assert warned.json()["data"] == {"a": "2", "b": "x"}


async def test_a_body_over_three_mebibytes_is_too_large(client: httpx.AsyncClient) -> None:
    answer = await client.post(CONFIG_MAPS, content=b" " * (3 << 20) + b"  ")
    assert (answer.status_code, answer.json()["reason"]) == (413, "RequestEntityTooLarge")


async def test_the_official_client_creates_watches_and_deletes() -> None:
    async with running_api(tls=True) as api:
        session = await _session(api)
        async with session:
            core, apps = aio.client.CoreV1Api(session), aio.client.AppsV1Api(session)
            spec = {
                "replicas": 1,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            }
            body: Any = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
            made: Any = await apps.create_namespaced_deployment("default", body)
            assert made.spec.strategy.rolling_update.max_surge == "25%"
            scaled: Any = await apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 3}})
            assert scaled.spec.replicas == 3
            watch: Any = aio.watch.Watch()  # type: ignore[no-untyped-call]
            async with watch:
                async for event in watch.stream(core.list_namespace, timeout_seconds=5):
                    if event["object"].metadata.name == "kube-system":
                        break
            await apps.delete_namespaced_deployment("d", "default")
            with pytest.raises(aio.client.ApiException, match="404"):
                await apps.read_namespaced_deployment("d", "default")


async def _session(api: ApiHandle) -> Any:
    configuration = aio.client.Configuration()
    loader: Any = aio.config.kube_config.KubeConfigLoader(api.kubeconfig())  # type: ignore[no-untyped-call]
    await loader.load_and_set(configuration)
    return aio.client.ApiClient(configuration)


async def test_the_private_key_is_readable_by_its_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with running_api(tls=True) as api:
        assert yaml.safe_load(yaml.safe_dump(api.kubeconfig()))
        keys = list(tmp_path.rglob("tls.key"))
        assert [stat.S_IMODE(one.stat().st_mode) for one in keys] == [0o600]
    assert list(tmp_path.rglob("tls.key")) == []
