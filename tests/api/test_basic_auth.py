"""Basic auth: taken where a declaration asks for it, and nowhere else."""

import base64

import msgspec
import pytest

from opsapi.http.app import App, create_app
from opsapi.http.openapi import openapi_document
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import OTHER, Body, Idempotency, NoParams, Reply, Scope, declarations, declared, endpoint
from opsapi.kit.permissions import Permission
from support.http import ADMIN, READER, World, call, credentials, world

PATH = "/internal/v1/basic"


class Said(msgspec.Struct, frozen=True):
    account: str


class Empty(Body, frozen=True, kw_only=True):
    pass


class BasicEndpoints:
    @endpoint(
        "POST",
        PATH,
        permission=Permission.WORKSPACE_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Who",
        tag="Basic",
        answer=Said,
        basic_auth=True,
    )
    async def say_who(self, call: Call, _params: NoParams, _body: Empty) -> Reply[Said]:
        return Reply(Said(call.caller.account_id))


def basic(text: str) -> dict[str, str]:
    encoded = base64.b64encode(text.encode()).decode()
    return {"Authorization": f"Basic {encoded}", "Content-Type": "application/json"}


def app(made: World | None = None) -> App:
    made = made or world()
    return create_app(declared([BasicEndpoints(), made.widgets]), made.ports(), made.settings)


async def test_account_and_token_pass_in_one_header() -> None:
    answer = await call(app(), "POST", PATH, headers=basic(f"{ADMIN[0]}:{ADMIN[1]}"), body=b"{}")
    assert (answer.status, answer.json()["data"]) == (200, {"account": ADMIN[0]})


async def test_both_headers_pass_there_too() -> None:
    answer = await call(app(), "POST", PATH, headers=credentials(ADMIN, Content_Type="application/json"), body=b"{}")
    assert answer.status == 200


async def test_its_permission_is_asked_for_as_ever() -> None:
    answer = await call(app(), "POST", PATH, headers=basic(f"{READER[0]}:{READER[1]}"), body=b"{}")
    assert (answer.status, answer.code) == (403, "INSUFFICIENT_INTERNAL_PERMISSIONS")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"{ADMIN[0]}:opsa_wrong", "unknown"),
        (ADMIN[0], "malformed"),
        (f"{ADMIN[0]}:", "malformed"),
        (f":{ADMIN[1]}", "malformed"),
        (f"{ADMIN[0]}:two words", "malformed"),
        (f"sa admin:{ADMIN[1]}", "malformed"),
        (f"{ADMIN[0]}\r\n:{ADMIN[1]}", "malformed"),
    ],
)
async def test_what_is_wrong_is_refused_and_counted(text: str, status: str) -> None:
    answer = await call(app(), "POST", PATH, headers=basic(text), body=b"{}")
    assert (answer.status, answer.code) == (401, "INVALID_SERVICE_ACCOUNT")
    assert answer.json()["error"]["details"]["token_status"] == status
    assert answer.headers["x-ratelimit-remaining"] == "9"


@pytest.mark.parametrize("encoded", ["=", "====", "c2E", "c2E6eA==x", "!!!!", "c2E6 eA==", "A" * 2000])
async def test_what_is_not_base64_is_refused(encoded: str) -> None:
    answer = await call(app(), "POST", PATH, headers={"Authorization": f"Basic {encoded}"}, body=b"{}")
    assert answer.status == 401


async def test_a_header_that_names_another_account_is_refused() -> None:
    headers = basic(f"{ADMIN[0]}:{ADMIN[1]}") | {"X-Service-Account": READER[0]}
    assert (await call(app(), "POST", PATH, headers=headers, body=b"{}")).status == 401


@pytest.mark.parametrize(("method", "path"), [("GET", "/internal/v1/whoami"), ("GET", PATH), ("GET", "/nowhere")])
async def test_no_other_path_and_no_other_method_takes_it(method: str, path: str) -> None:
    answer = await call(app(), method, path, headers=basic(f"{ADMIN[0]}:{ADMIN[1]}"))
    assert answer.status == 401


async def test_the_document_offers_it_where_it_is_taken_alone() -> None:
    document = openapi_document(declarations(BasicEndpoints), world().settings)
    assert document["paths"][PATH]["post"]["security"] == [
        {"serviceAccountToken": [], "serviceAccountId": []},
        {"serviceAccountBasic": []},
    ]
    assert document["components"]["securitySchemes"]["serviceAccountBasic"]["scheme"] == "basic"
