"""The first answer to an Idempotency-Key is the answer."""

import asyncio
from dataclasses import replace

import pytest

from opsapi.http.app import App, create_app
from opsapi.kit.errors import DependencyUnavailable, InvalidState, StateDetails
from support.http import READER, Raw, World, call, credentials, world

WIDGETS = "/internal/v1/workspaces/ws-1/widgets"


async def make(w: World, app: App, key: str, body: bytes = b'{"name": "x"}', path: str = WIDGETS) -> Raw:
    headers = credentials(Content_Type="application/json", Idempotency_Key=key)
    return await call(app, "POST", path, headers=headers, body=body)


async def test_the_same_body_replays_the_first_answer() -> None:
    w = world()
    app = w.app()
    first = await make(w, app, "key-1", b'{"name": "slow", "size": 2}')
    again = await make(w, app, "key-1", b'{ "size": 2,"name":"slow"}')
    assert (first.status, again.status, again.body) == (202, 202, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(w.widgets.calls) == 1
    assert w.widgets.calls[0][1].idempotency_key == "key-1"


async def test_another_body_under_the_key_is_a_422() -> None:
    w = world()
    app = w.app()
    await make(w, app, "key-1")
    answer = await make(w, app, "key-1", b'{"name": "y"}')
    assert (answer.status, answer.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(w.widgets.calls) == 1


async def test_keys_are_per_path() -> None:
    w = world()
    app = w.app()
    await make(w, app, "key-1")
    answer = await make(w, app, "key-1", b'{"name": "y"}', "/internal/v1/workspaces/ws-2/widgets")
    assert answer.status == 201


async def test_a_twin_waits_for_the_first_ones_answer() -> None:
    w = world()
    w.widgets.hold = asyncio.Event()
    app = w.app()
    first = asyncio.create_task(make(w, app, "key-1"))
    await w.widgets.entered.wait()
    twin = asyncio.create_task(make(w, app, "key-1"))
    while w.authenticator.asked < 2:
        await asyncio.sleep(0)
    w.widgets.hold.set()
    assert (await first).body == (await twin).body
    assert len(w.widgets.calls) == 1


async def test_a_twin_that_waited_long_enough_is_a_409() -> None:
    w = world(idempotency_wait_seconds=0.05)
    w.widgets.hold = asyncio.Event()
    app = w.app()
    first = asyncio.create_task(make(w, app, "key-1"))
    await w.widgets.entered.wait()
    twin = await make(w, app, "key-1")
    assert (twin.status, twin.code) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert "retry-after" in twin.headers
    w.widgets.hold.set()
    assert (await first).status == 201


async def test_a_refusal_of_the_domain_is_replayed_and_audited_with_its_code() -> None:
    w = world()
    w.widgets.failure = InvalidState("paused", StateDetails(resource_id="ws-1", state="paused"))
    app = w.app()
    first = await make(w, app, "key-1")
    w.widgets.failure = None
    again = await make(w, app, "key-1")
    assert (first.status, again.status, again.code) == (409, 409, "INVALID_STATE")
    assert [entry.error_code for entry in w.audit.entries] == ["INVALID_STATE", "INVALID_STATE"]


@pytest.mark.parametrize("failure", [RuntimeError("boom"), DependencyUnavailable("database", "away")])
async def test_a_failure_of_the_service_frees_the_key(failure: Exception) -> None:
    w = world()
    w.widgets.failure = failure
    app = w.app()
    assert (await make(w, app, "key-1")).status >= 500
    w.widgets.failure = None
    assert (await make(w, app, "key-1")).status == 201


async def test_a_key_is_claimed_only_once_the_request_is_valid() -> None:
    w = world()
    app = w.app()
    assert (await make(w, app, "key-1", b'{"name": 1}')).status == 400
    refused = credentials(READER, Content_Type="application/json", Idempotency_Key="key-1")
    assert (await call(app, "POST", WIDGETS, headers=refused, body=b'{"name": "x"}')).status == 403
    assert w.store.keys == {}


async def test_a_route_that_returns_a_secret_refuses_the_key() -> None:
    w = world()
    headers = credentials(Content_Type="application/json", Idempotency_Key="key-1")
    answer = await call(w.app(), "POST", "/internal/v1/secrets", headers=headers, body=b"{}")
    assert (answer.status, list(answer.json()["error"]["details"]["fields"])) == (400, ["Idempotency-Key"])
    assert w.widgets.calls == []


async def test_a_deletion_honours_the_key_and_a_read_ignores_it() -> None:
    w = world()
    app = w.app()
    headers = credentials(Idempotency_Key="key-1")
    removals = [await call(app, "DELETE", "/internal/v1/workspaces/ws-1", headers=headers) for _ in range(2)]
    reads = [await call(app, headers=headers) for _ in range(2)]
    assert removals[1].headers["idempotency-replayed"] == "true"
    assert [a.status for a in reads] == [200, 200]
    assert [name for name, *_ in w.widgets.calls] == ["remove", "health", "health"]


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_an_ill_formed_key_is_refused(key: str) -> None:
    w = world()
    assert (await make(w, w.app(), key)).status == 400
    assert w.widgets.calls == []


async def test_a_store_that_fails_to_keep_the_answer_does_not_cost_it(caplog: pytest.LogCaptureFixture) -> None:
    w = world()

    async def finish(claim_id: str, answer: object) -> None:
        raise RuntimeError("the disk is full")

    w.store.finish = finish  # type: ignore[method-assign]
    assert (await make(w, w.app(), "key-1")).status == 201
    assert "could not be settled" in caplog.text


async def test_without_a_store_a_key_is_refused_rather_than_ignored() -> None:
    w = world()
    app = create_app(w.bound(), replace(w.ports(), idempotency=None), w.settings)
    assert (await make(w, app, "key-1")).status == 400
    assert w.widgets.calls == []
