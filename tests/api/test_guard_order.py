"""Who may pass, in which order, and what each refusal tells."""

from typing import Any

import pytest

from opsapi.http.app import create_app
from support.http import ADMIN, PLAIN, READER, World, call, credentials, world

WIDGETS = "/internal/v1/workspaces/ws-1/widgets"


async def never() -> dict[str, Any]:
    raise AssertionError("the body was read")


def limits(headers: dict[str, str]) -> tuple[int, int, int]:
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    limit, remaining, reset = (int(headers[name]) for name in names)
    return limit, remaining, reset


def posting(account: tuple[str, str] = ADMIN, **more: str) -> dict[str, str]:
    return credentials(account, Content_Type="application/json", **more)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, "missing"),
        ({"Authorization": f"Bearer {ADMIN[1]}"}, "missing"),
        ({"X-Service-Account": ADMIN[0]}, "missing"),
        ({"Authorization": "Bearer", "X-Service-Account": ADMIN[0]}, "missing"),
        ({"Authorization": "Bearer  ", "X-Service-Account": ADMIN[0]}, "missing"),
        ({"Authorization": f"Basic {ADMIN[1]}", "X-Service-Account": ADMIN[0]}, "malformed"),
        ({"Authorization": f"Bearer {ADMIN[1]} x", "X-Service-Account": ADMIN[0]}, "malformed"),
        ({"Authorization": f"Bearer {ADMIN[1]}", "X-Service-Account": "sa admin"}, "malformed"),
        ({"Authorization": "Bearer opsa_wrong", "X-Service-Account": ADMIN[0]}, "unknown"),
    ],
)
async def test_both_credentials_are_needed_and_a_failure_says_which_way_it_failed(
    headers: dict[str, str], status: str
) -> None:
    answer = await call(world().app(), headers=headers)
    assert (answer.status, answer.code) == (401, "INVALID_SERVICE_ACCOUNT")
    assert answer.json()["error"]["details"]["token_status"] == status
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert limits(answer.headers)[:2] == (10, 9)


async def test_the_scheme_is_taken_in_any_case() -> None:
    answer = await call(world().app(), headers=credentials() | {"Authorization": f"bEARER {ADMIN[1]}"})
    assert answer.status == 200


async def test_basic_auth_is_refused_where_no_declaration_asks_for_it() -> None:
    answer = await call(world().app(), headers={"Authorization": "Basic c2EtYWRtaW46eA=="})
    assert answer.status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 401),
        (posting(PLAIN), 404),
        (posting(READER), 403),
        (posting(ADMIN, X_Agent_Run="has space"), 400),
        (posting(ADMIN, X_On_Behalf_Of="mallory@elsewhere.org"), 403),
        (posting(ADMIN, Accept="text/html"), 406),
        (posting(ADMIN) | {"Content-Type": "text/plain"}, 415),
        (posting(ADMIN, Content_Encoding="gzip"), 415),
    ],
)
async def test_a_body_is_never_read_before_all_else_has_passed(headers: dict[str, str], status: int) -> None:
    w = world()
    answer = await call(w.app(), "POST", WIDGETS, headers=headers | {"Content-Length": str(10_000_000)}, receive=never)
    assert answer.status == status
    assert w.widgets.calls == []
    assert answer.headers["connection"] == "close"


async def test_a_body_is_not_read_once_the_limit_is_reached() -> None:
    w = world(limits={"workspace_operations": 1})
    app = w.app()
    assert (await call(app, "GET", WIDGETS)).status == 200
    answer = await call(app, "POST", WIDGETS, headers=posting() | {"Content-Length": "5"}, receive=never)
    assert (answer.status, answer.code) == (429, "RATE_LIMIT_EXCEEDED")


async def test_unknown_and_invisible_workspaces_are_told_apart_by_nothing() -> None:
    w = world()
    app = w.app()
    hidden = await call(app, "GET", "/internal/v1/workspaces/ws-2/widgets", headers=credentials(READER))
    unknown = await call(app, "GET", "/internal/v1/workspaces/ws-9/widgets", headers=credentials(READER))
    assert hidden.status == unknown.status == 404

    def neutral(text: bytes, name: str) -> str:
        told = text.decode().replace(name, "ws-x")
        return told[: told.index("request_id")]

    assert neutral(hidden.body, "ws-2") == neutral(unknown.body, "ws-9")
    assert limits(hidden.headers)[:2] == (60, 59)
    assert limits(unknown.headers)[:2] == (60, 58)


async def test_unknown_and_invisible_applications_are_told_apart_by_nothing() -> None:
    app = world().app()
    answers = [
        await call(app, "GET", f"/internal/v1/applications/{name}/details", headers=credentials(READER))
        for name in ("app-2", "app-9")
    ]
    assert [a.status for a in answers] == [404, 404]
    assert {a.json()["error"]["details"]["resource_type"] for a in answers} == {"application"}
    assert "inner words" not in answers[1].body.decode()


async def test_unknown_ids_share_one_count_an_account_over_all_kinds_and_end_in_429() -> None:
    app = world(unknown_per_minute=3).app()
    paths = [
        "/internal/v1/workspaces/ws-9/widgets",
        "/internal/v1/applications/app-9/details",
        "/internal/v1/nothing",
        "/internal/v1/workspaces/ws-8/widgets",
    ]
    statuses = [(await call(app, "GET", path, headers=credentials(READER))).status for path in paths]
    assert statuses == [404, 404, 404, 429]
    assert (await call(app, "GET", WIDGETS, headers=credentials(READER))).status == 200


async def test_a_visible_workspace_without_the_permission_is_a_403_that_names_it() -> None:
    answer = await call(world().app(), "POST", WIDGETS, headers=posting(READER), body=b"{}")
    assert (answer.status, answer.code) == (403, "INSUFFICIENT_INTERNAL_PERMISSIONS")
    details = answer.json()["error"]["details"]
    assert details["required_permission"] == "workspace:write"
    assert details["service_account_permissions"] == ["application:read@ws-1", "workspace:read@ws-1"]
    assert limits(answer.headers)[:2] == (50, 49)


async def test_what_concerns_the_installation_needs_an_unbound_permission() -> None:
    answer = await call(world().app(), headers=credentials(READER))
    assert (answer.status, answer.json()["error"]["details"]["required_permission"]) == (403, "system:read")


async def test_no_permission_is_needed_where_the_declaration_asks_for_none() -> None:
    answer = await call(world().app(), "GET", "/internal/v1/whoami", headers=credentials(PLAIN))
    assert answer.json()["data"] == {"status": "sa-plain"}


async def test_ambiguous_and_unreachable_applications_keep_their_own_errors() -> None:
    app = world().app()
    twice = await call(app, "GET", "/internal/v1/applications/app-twice/details")
    away = await call(app, "GET", "/internal/v1/applications/app-away/details")
    assert (twice.status, twice.code) == (409, "AMBIGUOUS_RESOURCE")
    assert (away.status, away.code, away.headers["retry-after"]) == (503, "DEPENDENCY_UNAVAILABLE", "5")


async def test_the_workspace_limit_is_counted_per_account_and_workspace() -> None:
    app = world(limits={"workspace_operations": 2}).app()
    first = [(await call(app, "GET", WIDGETS)).status for _ in range(3)]
    other_workspace = await call(app, "GET", "/internal/v1/workspaces/ws-2/widgets")
    other_account = await call(app, "GET", WIDGETS, headers=credentials(READER))
    assert first == [200, 200, 429]
    assert (other_workspace.status, other_account.status) == (200, 200)


async def test_a_429_says_when_to_go_on_and_the_next_minute_allows_again() -> None:
    w = world(limits={"health": 1})
    app = w.app()
    assert limits((await call(app)).headers)[:2] == (1, 0)
    refused = await call(app)
    assert (refused.status, limits(refused.headers)[1]) == (429, 0)
    assert int(refused.headers["retry-after"]) >= 1
    assert limits(refused.headers)[2] == 1705764660
    assert w.widgets.calls[1:] == []
    w.time.now += 60
    assert (await call(app)).status == 200


async def test_failed_logins_end_in_429_for_their_address_but_never_lock_out_valid_credentials() -> None:
    app = world(failed_logins_per_minute=2).app()
    wrong = credentials(("sa-admin", "opsa_guess"))
    assert [(await call(app, headers=wrong)).status for _ in range(3)] == [401, 401, 429]
    assert (await call(app)).status == 200
    assert (await call(app, headers=wrong, peer="127.0.0.2")).status == 401


async def test_failed_logins_of_one_ipv6_network_are_counted_together() -> None:
    app = world(failed_logins_per_minute=2).app()
    peers = ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:0:1::1", "2001:db8:0:1::1"]
    statuses = [(await call(app, headers={}, peer=peer)).status for peer in peers]
    assert statuses == [401, 401, 429, 401]


async def test_an_address_outside_the_allow_list_is_refused_and_counted_as_a_failed_login() -> None:
    w = world()
    w.authenticator.refused_address = "203.0.113.9"
    answer = await call(w.app(), peer="203.0.113.9")
    assert (answer.status, answer.code) == (403, "IP_NOT_ALLOWED")
    assert limits(answer.headers)[0] == 10


@pytest.mark.parametrize(
    ("proxies", "peer", "address"),
    [
        ((), "10.0.0.1", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "198.51.100.7"),
        (("10.0.0.0/8",), "192.0.2.1", "192.0.2.1"),
    ],
)
async def test_only_a_trusted_proxy_is_believed_about_the_address(
    proxies: tuple[str, ...], peer: str, address: str
) -> None:
    w = world(trusted_proxies=proxies)
    await call(w.app(), peer=peer, headers=credentials(X_Forwarded_For="1.1.1.1, 198.51.100.7"))
    assert w.widgets.calls[0][1].caller.address == address


async def test_delegation_and_agent_run_reach_the_handler_and_the_audit() -> None:
    w = world()
    await call(w.app(), headers=credentials(X_On_Behalf_Of="kim@example.com", X_Agent_Run="run-7"))
    caller = w.widgets.calls[0][1].caller
    entry = w.audit.entries[0]
    assert (caller.on_behalf_of, caller.agent_run) == ("kim@example.com", "run-7")
    assert (entry.on_behalf_of, entry.agent_run) == ("kim@example.com", "run-7")


@pytest.mark.parametrize("label", ["", " ", "a b", "é", "x" * 129, "tab\there"])
async def test_a_malformed_agent_run_is_refused(label: str) -> None:
    answer = await call(world().app(), headers=credentials(X_Agent_Run=label))
    assert (answer.status, list(answer.json()["error"]["details"]["fields"])) == (400, ["x-agent-run"])
    assert "x-ratelimit-limit" in answer.headers


async def test_every_call_is_audited_refused_ones_too_and_none_holds_a_token() -> None:
    w = world()
    app = w.app()
    await call(app)
    await call(app, headers=credentials(("sa-admin", "opsa_guess")))
    await call(app, "POST", WIDGETS, headers=posting(READER), body=b"{}")
    await call(app, "GET", "/internal/v1/nothing")
    told = [(e.account_id, e.claimed_account_id, e.endpoint, e.status, e.error_code) for e in w.audit.entries]
    assert told == [
        ("sa-admin", None, "health", 200, None),
        (None, "sa-admin", None, 401, "INVALID_SERVICE_ACCOUNT"),
        ("sa-reader", None, "make_widget", 403, "INSUFFICIENT_INTERNAL_PERMISSIONS"),
        ("sa-admin", None, None, 404, "RESOURCE_NOT_FOUND"),
    ]
    assert w.audit.entries[2].workspace_id == "ws-1"
    assert "opsa_" not in repr(w.audit.entries)


async def test_an_entry_that_the_mutation_wrote_itself_is_not_written_again() -> None:
    w = world()

    async def handle(call: Any, params: Any, body: Any) -> Any:
        call.audit.committed = True
        return await real(call, params, body)

    real = w.widgets.make_widget
    w.widgets.make_widget = handle  # type: ignore[method-assign]
    answer = await call(w.app(), "POST", WIDGETS, headers=posting(), body=b'{"name": "x"}')
    assert answer.status == 201
    assert w.audit.entries == []


async def test_what_cannot_be_audited_is_not_done() -> None:
    w = world()
    w.audit.full = True
    answer = await call(w.app(), "POST", WIDGETS, headers=posting(), body=b'{"name": "x"}')
    assert (answer.status, answer.code) == (503, "DEPENDENCY_UNAVAILABLE")
    assert limits(answer.headers)[:2] == (10, 10)
    assert w.widgets.calls == []


async def test_unknown_paths_and_methods_are_only_told_to_accounts() -> None:
    app = world().app()
    assert (await call(app, "GET", "/internal/v1/nothing", headers={})).status == 401
    assert (await call(app, "PUT", headers={})).status == 401
    answer = await call(app, "PUT")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "GET, HEAD, OPTIONS")


async def test_options_lists_the_methods_of_a_path() -> None:
    answer = await call(world().app(), "OPTIONS", WIDGETS)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    assert "x-ratelimit-limit" in answer.headers


def test_two_endpoints_on_one_route_cannot_be_served() -> None:
    w: World = world()
    bound = w.bound()
    with pytest.raises(TypeError, match="called"):
        create_app([*bound, bound[0]], w.ports(), w.settings)
