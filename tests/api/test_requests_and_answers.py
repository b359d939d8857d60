"""What a request may hold, and the shape of what comes back."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from opsapi.kit.errors import DependencyUnavailable, InvalidState, StateDetails
from support.http import READER, WIDGET, Raw, World, call, credentials, world

WIDGETS = "/internal/v1/workspaces/ws-1/widgets"
JSON = credentials(Content_Type="application/json")


async def post(w: World, body: bytes | list[bytes], **headers: str) -> Raw:
    return await call(w.app(), "POST", WIDGETS, headers=JSON | headers, body=body)


def fields(answer: Raw) -> dict[str, str]:
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    found: dict[str, str] = answer.json()["error"]["details"]["fields"]
    return found


async def test_a_success_is_data_and_meta() -> None:
    answer = await call(world().app(), "GET", WIDGETS, headers=credentials(X_Request_Id="request-0001"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "request-0001"
    assert answer.json() == {
        "data": [
            {
                "id": "w-1",
                "name": "first",
                "size": 3,
                "colour": "red",
                "made_at": "2024-01-20T15:30:00Z",
                "ports": [{"name": "http", "number": 80}, {"name": "https", "number": 443}],
                "labels": {"team": "shop"},
            }
        ],
        "meta": {
            "request_id": "request-0001",
            "observed_at": "2024-01-20T15:30:00Z",
            "partial": [
                {"field": "[].ports[].number", "reason": "not measured"},
                {"field": "[].size", "reason": "unknown"},
            ],
            "truncated": False,
            "untrusted": ["/data/0/name", "/data/0/labels"],
            "next_cursor": "abc",
        },
    }


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "has space in it", "line\nbreak", "-starts-badly", "é" * 10])
async def test_an_ill_formed_request_id_is_replaced(given: str) -> None:
    answer = await call(world().app(), headers=credentials(X_Request_Id=given))
    assert answer.headers["x-request-id"].startswith("req-")
    assert answer.json()["meta"]["request_id"] == answer.headers["x-request-id"]


async def test_a_failure_is_one_error_with_its_request_id() -> None:
    w = world()
    w.widgets.failure = InvalidState("It is paused", StateDetails(resource_id="ws-1", state="paused"))
    answer = await call(w.app())
    assert answer.status == 409
    assert answer.json() == {
        "error": {
            "code": "INVALID_STATE",
            "message": "It is paused",
            "details": {"resource_id": "ws-1", "state": "paused"},
            "request_id": answer.headers["x-request-id"],
        }
    }


async def test_an_unexpected_failure_shows_nothing_of_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    w = world()
    w.widgets.failure = RuntimeError("password=hunter2 at db-7")
    answer = await call(w.app())
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert b"hunter2" not in answer.body
    record = next(r for r in caplog.records if r.name == "opsapi.http")
    assert record.__dict__["request_id"] == answer.headers["x-request-id"]


async def test_a_503_says_when_to_come_back() -> None:
    w = world()
    w.widgets.failure = DependencyUnavailable("kubernetes_api", "not read yet", workspace_id="ws-1", retry_after=7)
    answer = await call(w.app())
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")


async def test_begun_work_is_a_202_with_its_place_and_pace() -> None:
    answer = await post(world(), b'{"name": "slow"}')
    assert (answer.status, answer.headers["location"]) == (202, "/internal/v1/operations/op-1")
    meta = answer.json()["meta"]
    assert (meta["operation_id"], meta["poll_after_ms"], meta["observed_at"]) == ("op-1", 1000, None)


async def test_created_is_the_declarations_first_status() -> None:
    assert (await post(world(), b'{"name": "quick"}')).status == 201


async def test_answers_carry_the_security_headers() -> None:
    plain = (await call(world().app())).headers
    proxied = (await call(world(tls_terminated_by_proxy=True).app())).headers
    assert plain["cache-control"] == "no-store"
    assert plain["x-content-type-options"] == "nosniff"
    assert plain["referrer-policy"] == "no-referrer"
    assert plain["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in plain
    assert "strict-transport-security" not in plain
    assert "strict-transport-security" in proxied


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("application/json", 200),
        ("application/*;q=0.1", 200),
        ("text/html, application/json;q=0.9", 200),
        ("text/html", 406),
        ("application/json;q=0, */*", 406),
        ("", 406),
        ("*/*;q=zero", 406),
    ],
)
async def test_accept_decides_whether_json_will_do(accept: str, status: int) -> None:
    assert (await call(world().app(), headers=credentials(Accept=accept))).status == status


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("Application/JSON; charset=UTF-8", 201),
        ('application/json; charset="utf-8"', 201),
        ("application/json; charset=latin-1", 415),
        ("text/json", 415),
        ("application/merge-patch+json", 415),
        ("", 415),
    ],
)
async def test_only_json_in_utf8_is_decoded(content_type: str, status: int) -> None:
    answer = await post(world(), b'{"name": "x"}', **{"Content-Type": content_type})
    assert answer.status == status


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b'{"name": "x",}', 1, None),
        (b'{"name":\n  tru}', 2, 3),
        (b'{"name": "\xff"}', 1, 11),
        (b'{"name": "\xc3\xa9\xff"}', 1, 12),
        (b'{"name": "x"} {}', 1, 15),
        (b'{"name": "x"', 1, 13),
        (b"not json", 1, 1),
        (b"\xef\xbb\xbf{}", None, None),
        (b'{"name": NaN}', None, None),
        (b'{"name": -Infinity}', None, None),
        (b'{"name": "a", "name": "b"}', None, None),
        (b'{"name": "x", "labels": {"a": "1", "a": "1"}}', None, None),
        (b'{"name": "\\ud800"}', None, None),
        (b'{"name": "x", "labels": ' + b'{"a":' * 100 + b"1" + b"}" * 101, None, None),
        (b"[" * 100_000, None, None),
        (b'{"name":' * 50_000, None, None),
    ],
)
async def test_malformed_json_is_a_400_that_points_at_its_place(
    body: bytes, line: int | None, column: int | None
) -> None:
    w = world()
    answer = await post(w, body)
    assert (answer.status, answer.code) == (400, "MALFORMED_JSON")
    details = answer.json()["error"]["details"]
    if line is not None:
        assert details["line"] == line
    if column is not None:
        assert details["column"] == column
    assert w.widgets.calls == []


async def test_brackets_inside_strings_do_not_count_as_nesting() -> None:
    assert (await post(world(), b'{"name": "' + b"[" * 55 + b'\\""}')).status == 201


async def test_everything_wrong_with_a_body_is_named_at_once() -> None:
    body = b"""{"size": "three", "colour": "blue", "typo": 1, "other": 2, "labels": {"a": 5},
               "ports": [{"name": "ok", "number": 80}, {"number": 0, "extra": true}]}"""
    found = fields(await post(world(), body))
    assert set(found) == {
        "name",
        "size",
        "colour",
        "typo",
        "other",
        "labels[...]",
        "ports[1].name",
        "ports[1].number",
        "ports[1].extra",
    }
    assert found["name"] == "required"
    assert found["typo"] == "unknown field"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"[]", "body"),
        (b"null", "body"),
        (b'"x"', "body"),
        (b"", "name"),
        (b'{"name": "a\\u0000b"}', "name"),
        (b'{"name": "x", "labels": {"a\\u0000": "1"}}', "labels"),
        (b'{"name": "x", "size": 1e400}', "body"),
        (b'{"name": "x", "size": 99999999999999999999}', "body"),
        (b'{"name": "x", "size": ' + b"9" * 5000 + b"}", "body"),
        (b'{"name": "x", "size": -1}', "size"),
        (b'{"name": "x", "size": 1.5}', "size"),
        (b'{"name": "x", "size": null}', "size"),
    ],
)
async def test_values_of_the_wrong_kind_are_refused_by_path(body: bytes, path: str) -> None:
    w = world()
    assert path in fields(await post(w, body))
    assert w.widgets.calls == []


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (b"limit=0", {"limit"}),
        (b"limit=1e1", {"limit"}),
        (b"limit=%201", {"limit"}),
        (b"limit=99999999999999999999", {"limit"}),
        (b"limit=", {"limit"}),
        (b"limit=1&limit=2", {"limit"}),
        (b"typo=1&other=2", {"typo", "other"}),
        (b"workspace_id=ws-2", {"workspace_id"}),
        (b"ready=True", {"ready"}),
        (b"ready=1", {"ready"}),
        (b"colours=red,blue", {"colours[1]"}),
        (b"above=nan", {"above"}),
        (b"above=1e5", {"above"}),
        (b"since=yesterday", {"since"}),
        (b"search=%ff", {"search"}),
        (b"search=%", {"search"}),
        (b"search=%0a", {"search"}),
        (b"search=%00", {"search"}),
        (b"%zz=1", {"query"}),
        (b"&".join(b"a%d=1" % i for i in range(60)), {"query"}),
    ],
)
async def test_query_parameters_are_decoded_strictly(query: bytes, names: set[str]) -> None:
    w = world()
    assert set(fields(await call(w.app(), "GET", WIDGETS, query=query))) == names
    assert w.widgets.calls == []


async def test_query_parameters_arrive_typed() -> None:
    w = world()
    query = b"limit=7&ready=false&colours=red,green&search=a+b%2Bc%C3%A9&above=-1.5&since=2024-01-20T15:30:00Z"
    assert (await call(w.app(), "GET", WIDGETS, query=query)).status == 200
    params = w.widgets.calls[0][2]
    assert (params.workspace_id, params.limit, params.ready) == ("ws-1", 7, False)
    assert (params.colours, params.search, params.above) == (["red", "green"], "a b+cé", -1.5)
    assert params.since == datetime(2024, 1, 20, 15, 30, tzinfo=UTC)


async def test_a_path_parameter_is_decoded_exactly_once() -> None:
    w = world()
    w.scopes.workspaces.add("ws%31")
    assert (await call(w.app(), "GET", "/internal/v1/workspaces/ws%2531/widgets")).status == 200
    assert w.widgets.calls[0][2].workspace_id == "ws%31"


@pytest.mark.parametrize(
    "name",
    ["..", ".", "%2e%2e", "%2E", "a%2fb", "..%2f..%2fsecrets", "a%5cb", "a%00b", "a%0d%0ab", "%ff", "%", "x" * 600],
)
async def test_a_path_that_climbs_or_hides_something_reaches_nothing(name: str) -> None:
    w = world()
    answer = await call(w.app(), "GET", f"/internal/v1/workspaces/{name}/widgets")
    assert answer.status in (400, 404)
    assert w.widgets.calls == []
    assert "x-ratelimit-limit" in answer.headers


async def test_fields_selects_parts_of_data_and_of_what_meta_says_about_it() -> None:
    answer = await call(world().app(), "GET", WIDGETS, query=b"fields=name,ports.number,labels.team")
    assert answer.json()["data"] == [
        {"name": "first", "ports": [{"number": 80}, {"number": 443}], "labels": {"team": "shop"}}
    ]
    assert [entry["field"] for entry in answer.json()["meta"]["partial"]] == ["[].ports[].number"]


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("nam", "'name'"),
        ("ports.nmber", "'number'"),
        ("name.x", "has no field"),
        ("", "name between"),
        ("a,,b", "no field"),
    ],
)
async def test_an_unknown_field_is_refused_with_the_nearest_one(wanted: str, hint: str) -> None:
    answer = await call(world().app(), "GET", WIDGETS, query=b"fields=" + wanted.encode())
    assert hint in fields(answer)["fields"]


async def test_fields_is_unknown_where_the_declaration_has_none() -> None:
    answer = await call(world().app(), query=b"fields=status")
    assert fields(answer) == {"fields": "unknown parameter"}


async def test_head_answers_as_get_does() -> None:
    w = world()
    head = await call(w.app(), "HEAD")
    assert (head.status, int(head.headers["content-length"]) > 50) == (200, True)
    assert w.widgets.calls[0][0] == "health"


async def test_a_get_with_a_body_is_refused() -> None:
    answer = await call(world().app(), body=b"{}", headers=JSON)
    assert fields(answer) == {"body": "this method takes none"}


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b"{}", 200), (b'{"x": 1}', 400), (b"[]", 400)])
async def test_an_endpoint_without_a_body_takes_none_or_an_empty_object(body: bytes, status: int) -> None:
    answer = await call(world().app(), "DELETE", "/internal/v1/workspaces/ws-1", headers=JSON, body=body)
    assert answer.status == status


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413_and_reading_stops(chunked: bool) -> None:
    w = world(body_max_bytes=2048)
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1000
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    size = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": "10000000"}
    answer = await call(w.app(), "POST", WIDGETS, headers=JSON | size, receive=receive)
    assert (answer.status, answer.code, answer.headers["connection"]) == (413, "PAYLOAD_TOO_LARGE", "close")
    assert read == (3000 if chunked else 0)
    assert answer.json()["error"]["details"] == {"limit_bytes": 2048}


async def test_a_body_that_does_not_arrive_in_time_is_a_408() -> None:
    w = world(body_timeout_seconds=0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    answer = await call(w.app(), "POST", WIDGETS, headers=JSON | {"Content-Length": "5"}, receive=receive)
    assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")


async def test_a_client_that_leaves_amid_its_body_gets_no_answer_but_an_audit_entry() -> None:
    w = world()

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    answer = await call(w.app(), "POST", WIDGETS, headers=JSON | {"Content-Length": "5"}, receive=receive)
    assert answer.status == 0
    assert [entry.status for entry in w.audit.entries] == [499]


async def test_a_handler_beyond_its_deadline_is_cancelled_and_answered_503() -> None:
    w = world(handler_timeout_seconds=0.05)
    w.widgets.hold = asyncio.Event()
    answer = await call(w.app())
    assert (answer.status, answer.code) == (503, "DEPENDENCY_UNAVAILABLE")
    assert w.widgets.cancelled.is_set()


@pytest.mark.parametrize(
    "header", ["Authorization", "X-Service-Account", "Content-Type", "Idempotency-Key", "Content-Length"]
)
async def test_a_deciding_header_given_twice_is_refused(header: str) -> None:
    w = world()
    app = w.app()
    given = [(name.lower().encode(), value.encode()) for name, value in JSON.items()]
    given += [(header.lower().encode(), b"1"), (header.lower().encode(), b"1")]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    scope = {
        "type": "http",
        "method": "POST",
        "path": WIDGETS,
        "raw_path": WIDGETS.encode(),
        "query_string": b"",
        "headers": given,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b"given more than once" in sent[1]["body"]


async def test_headers_beyond_the_limit_are_a_431() -> None:
    app = world(header_max_bytes=1024, header_max_count=10).app()
    large = await call(app, headers=credentials(X_Large="x" * 2000))
    many = await call(app, headers=credentials() | {f"X-{i}": "1" for i in range(20)})
    assert [(a.status, a.code) for a in (large, many)] == [(431, "HEADERS_TOO_LARGE")] * 2


async def test_nulls_are_answered_not_left_out() -> None:
    answer = await post(world(), b'{"name": "x"}')
    assert answer.json()["data"]["colour"] is None


async def test_a_reader_sees_what_it_is_granted() -> None:
    answer = await call(world().app(), "GET", WIDGETS, headers=credentials(READER))
    assert answer.json()["data"][0]["id"] == WIDGET.id
