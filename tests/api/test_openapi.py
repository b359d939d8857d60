"""The OpenAPI document is valid, complete and true of what is served."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from opsapi.http.openapi import openapi_document
from opsapi.http.openapi_errors import ErrorSchemas
from opsapi.http.settings import HttpSettings
from opsapi.kit.endpoint import LIMIT_CLASSES
from opsapi.kit.errors import InternalError, OpsError
from support.http import Raw, call, credentials, world

METHODS = ("get", "post", "patch", "delete")


def document(settings: HttpSettings | None = None) -> dict[str, Any]:
    declarations = [bound.declaration for bound in world().bound()]
    made: dict[str, Any] = msgspec.to_builtins(openapi_document(declarations, settings or HttpSettings()))
    return made


DOCUMENT = document()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def check(value: Any, schema: dict[str, Any]) -> None:
    base = Resource.from_contents(DOCUMENT, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:document", base)
    absolute = msgspec.json.decode(msgspec.json.encode(schema).replace(b'"#/', b'"urn:document#/'))
    Draft202012Validator(absolute, registry=registry, format_checker=FormatChecker()).validate(value)


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_schema_is_valid_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_declaration_is_an_operation_and_no_other_needs_an_account() -> None:
    told = {(method, path) for method, path, operation in operations() if operation["security"]}
    assert told == {(b.declaration.method, b.declaration.path) for b in world().bound()}


def test_both_credentials_are_required_together() -> None:
    both: list[dict[str, list[str]]] = [{"serviceAccountToken": [], "serviceAccountId": []}]
    assert DOCUMENT["security"] == both
    assert all(operation["security"] in (both, []) for _, _, operation in operations())
    assert set(DOCUMENT["components"]["securitySchemes"]) == set(both[0])


def test_every_example_validates_against_its_schema() -> None:
    checked = 0
    for _, _, operation in operations():
        bodies = [resolved(each) for each in operation["responses"].values()]
        bodies += [operation["requestBody"]] if "requestBody" in operation else []
        for body in bodies:
            for media in body.get("content", {}).values():
                for example in media.get("examples", {}).values():
                    check(resolved(example)["value"], media["schema"])
                    checked += 1
    assert checked > 95


def test_every_failure_response_has_an_example_of_each_of_its_codes() -> None:
    for _, path, operation in operations():
        for status, response in operation["responses"].items():
            if int(status) < 400 or not operation["security"]:
                continue
            media = response["content"]["application/json"]
            codes = {resolved(e)["value"]["error"]["code"] for e in media["examples"].values()}
            schemas = media["schema"].get("oneOf", [media["schema"]])
            assert codes == {resolved(s)["properties"]["error"]["properties"]["code"]["const"] for s in schemas}, path


def test_every_success_and_every_body_has_an_example() -> None:
    for _, path, operation in operations():
        if not operation["security"]:
            continue
        bodies = [r for status, r in operation["responses"].items() if int(status) < 400]
        bodies += [operation["requestBody"]] if "requestBody" in operation else []
        assert all(body["content"]["application/json"]["examples"] for body in bodies), path


def test_permission_limit_and_idempotency_are_told() -> None:
    widgets = DOCUMENT["paths"]["/internal/v1/workspaces/{workspace_id}/widgets"]["post"]
    assert widgets["x-permission"] == "workspace:write"
    assert widgets["x-rate-limit"] == {
        "class": "workspace_operations",
        "requests_per_minute": 50,
        "counted_per": ["account", "workspace"],
    }
    assert (widgets["x-idempotency"], widgets["x-dry-run"]) == ("keyed", True)
    for hint in ("`workspace:write`", "50 requests a minute", "Idempotency-Key", "dry_run"):
        assert hint in widgets["description"]


def test_the_limits_told_are_the_configured_ones() -> None:
    health = document(HttpSettings(limits={"health": 7}))["paths"]["/internal/v1/health"]["get"]
    assert health["x-rate-limit"]["requests_per_minute"] == 7


def test_parameters_come_from_the_params_struct() -> None:
    operation = DOCUMENT["paths"]["/internal/v1/workspaces/{workspace_id}/widgets"]["get"]
    told = {p["name"]: p for p in map(resolved, operation["parameters"])}
    assert told["workspace_id"]["in"] == "path"
    assert told["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert told["limit"]["description"] == "How many."
    assert told["ready"]["schema"] == {"type": "boolean"}
    assert (told["colours"]["style"], told["colours"]["explode"]) == ("form", False)
    assert {"fields", "X-Request-Id", "X-On-Behalf-Of", "X-Agent-Run"} <= set(told)
    assert "Idempotency-Key" not in told


def test_success_and_failure_carry_the_rate_limit_headers() -> None:
    for _, path, operation in operations():
        for response in operation["responses"].values():
            if operation["security"]:
                assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(
                    response["headers"]
                ), path


def test_two_errors_with_one_code_are_refused() -> None:
    class Other(OpsError):
        code = "INTERNAL_ERROR"
        status = 500
        summary = "Another"

    with pytest.raises(TypeError, match="INTERNAL_ERROR"):
        ErrorSchemas([InternalError, Other])


def test_only_known_limit_classes_can_be_configured() -> None:
    with pytest.raises(ValueError, match=LIMIT_CLASSES[0].name):
        HttpSettings(limits={"helth": 5})


WIDGETS = "/internal/v1/workspaces/ws-1/widgets"
JSON = credentials(Content_Type="application/json")


@pytest.mark.parametrize(
    ("method", "path", "template", "options"),
    [
        ("GET", "/internal/v1/health", "/internal/v1/health", {}),
        ("GET", "/internal/v1/health", "/internal/v1/health", {"headers": {}}),
        ("GET", "/internal/v1/health", "/internal/v1/health", {"headers": credentials(Accept="text/html")}),
        ("GET", WIDGETS, "/internal/v1/workspaces/{workspace_id}/widgets", {}),
        ("GET", WIDGETS, "/internal/v1/workspaces/{workspace_id}/widgets", {"query": b"fields=name"}),
        ("GET", WIDGETS, "/internal/v1/workspaces/{workspace_id}/widgets", {"query": b"limit=x"}),
        ("POST", WIDGETS, "/internal/v1/workspaces/{workspace_id}/widgets", {"body": b"{", "headers": JSON}),
        ("POST", WIDGETS, "/internal/v1/workspaces/{workspace_id}/widgets", {"body": b"{}", "headers": JSON}),
        ("POST", WIDGETS, "/internal/v1/workspaces/{workspace_id}/widgets", {"body": b'{"name":"x"}', "headers": JSON}),
        (
            "GET",
            "/internal/v1/applications/app-twice/details",
            "/internal/v1/applications/{application_id}/details",
            {},
        ),
        ("GET", "/internal/v1/applications/app-away/details", "/internal/v1/applications/{application_id}/details", {}),
        ("GET", "/livez", "/livez", {"headers": {}}),
        ("GET", "/readyz", "/readyz", {"headers": {}}),
    ],
)
async def test_real_answers_validate_against_the_document(
    method: str, path: str, template: str, options: dict[str, Any]
) -> None:
    answer: Raw = await call(world().app(), method, path, **options)
    response = DOCUMENT["paths"][template][method.lower()]["responses"][str(answer.status)]
    check(answer.json(), response["content"]["application/json"]["schema"])
    for name in response.get("headers", {}):
        if name.startswith("X-"):
            assert name.lower() in answer.headers
