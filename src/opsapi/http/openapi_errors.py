"""The failures of each operation, as OpenAPI responses with a real or plausible example of each."""

from collections.abc import Iterable
from typing import Any

import msgspec

from opsapi.accounts.errors import (
    DelegationNotAllowed,
    InsufficientInternalPermissions,
    InvalidServiceAccount,
    IpNotAllowed,
)
from opsapi.http.errors import (
    HeadersTooLarge,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    MalformedJson,
    MethodNotAllowed,
    NotAcceptable,
    PayloadTooLarge,
    RateLimitExceeded,
    RequestTimeout,
    UnsupportedMediaType,
)
from opsapi.http.samples import sample
from opsapi.kit.endpoint import Endpoint, Idempotency, NoBody
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InternalError,
    OpsError,
    ResourceNotFound,
    ValidationFailed,
)
from opsapi.kit.permissions import Grant, Grants, Permission

REQUEST_ID = "req-5f2c9a1b7e3d-2a"
_GRANTS = Grants(frozenset({Grant(Permission.WORKSPACE_READ), Grant(Permission.APPLICATION_READ)}))
_INSTANCES: tuple[OpsError, ...] = (
    InvalidServiceAccount("sa-invalid", "expired"),
    InsufficientInternalPermissions(Permission.WORKSPACE_ADMIN, _GRANTS),
    IpNotAllowed("sa-deployer", "203.0.113.7"),
    DelegationNotAllowed("sa-deployer", "kim@example.com"),
    ValidationFailed({"replicas": "Expected `int` >= 0"}),
    MalformedJson("expecting ',' delimiter", line=1, column=14),
    ResourceNotFound("workspace", "ws-unknown"),
    AmbiguousResource("deployment", "web", ["shop/web", "blog/web"], "?project="),
    MethodNotAllowed("PUT", ["GET", "HEAD", "OPTIONS"]),
    NotAcceptable("text/html"),
    RequestTimeout(30),
    PayloadTooLarge(1048576),
    UnsupportedMediaType("text/plain"),
    HeadersTooLarge(16384),
    IdempotencyInProgress("8e03978e-40d5-43e8-bc93-6894a57f9324"),
    IdempotencyKeyReused("8e03978e-40d5-43e8-bc93-6894a57f9324"),
    RateLimitExceeded("workspace_operations", 50, 21),
    DependencyUnavailable("kubernetes_api", "not read yet", workspace_id="ws-123"),
    InternalError(),
)
_EXAMPLES: dict[type[OpsError], OpsError] = {type(instance): instance for instance in _INSTANCES}


def failures_of(declared: Endpoint) -> list[type[OpsError]]:
    """What the guard and the decoding can answer, and what the declaration adds."""
    found: list[type[OpsError]] = [
        InvalidServiceAccount,
        IpNotAllowed,
        DelegationNotAllowed,
        ValidationFailed,
        NotAcceptable,
        RateLimitExceeded,
        HeadersTooLarge,
        InternalError,
        DependencyUnavailable,
    ]
    if declared.permission is not None:
        found.append(InsufficientInternalPermissions)
    if "{" in declared.path:
        found.append(ResourceNotFound)
    if declared.method != "GET":
        found += [MalformedJson, RequestTimeout, PayloadTooLarge, UnsupportedMediaType]
    if declared.idempotency in (Idempotency.KEYED, Idempotency.NATURAL):
        found += [IdempotencyInProgress, IdempotencyKeyReused]
    return list(dict.fromkeys(_documented(error) for error in [*found, *declared.errors]))


def _documented(error: type[OpsError]) -> type[OpsError]:
    """A domain's own class for a general failure (`WorkspaceNotFound`) is documented as the general one."""
    same = [
        base
        for base in error.__mro__
        if issubclass(base, OpsError)
        and getattr(base, "code", "") == error.code
        and base.details_type is error.details_type
    ]
    return same[-1]


def takes_body(declared: Endpoint) -> bool:
    return declared.body is not NoBody


class ErrorSchemas:
    """Component schemas and examples, one of each for an error class."""

    def __init__(self, errors: Iterable[type[OpsError]]) -> None:
        self._errors = list(dict.fromkeys(errors))
        codes: dict[str, type[OpsError]] = {}
        for error in self._errors:
            other = codes.setdefault(error.code, error)
            if other is not error:
                raise TypeError(f"{other.__name__} and {error.__name__} share the code {error.code}")

    @property
    def details_types(self) -> list[Any]:
        return [error.details_type for error in self._errors]

    def schemas(self, details: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """`details`: the schema of each of `details_types`, in that order."""
        return {_component(error): _schema(error, schema) for error, schema in zip(self._errors, details, strict=True)}

    def examples(self) -> dict[str, Any]:
        return {
            _component(error): {"summary": error.summary.split(";")[0], "value": _example(error)}
            for error in self._errors
        }


def response(status: int, errors: list[type[OpsError]], *, limited: bool = True) -> dict[str, Any]:
    """The response of one status; `oneOf` its errors, told apart by `code`."""
    refs = [{"$ref": f"#/components/schemas/{_component(error)}"} for error in errors]
    headers = ["X-Request-Id"]
    if limited:
        headers += ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    if status in (409, 429, 503):
        headers.append("Retry-After")
    if status == 401:
        headers.append("WWW-Authenticate")
    return {
        "description": " ".join(f"`{error.code}`: {error.summary}" for error in errors),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            "application/json": {
                "schema": refs[0] if len(refs) == 1 else {"oneOf": refs},
                "examples": {error.code: {"$ref": f"#/components/examples/{_component(error)}"} for error in errors},
            }
        },
    }


def _component(error: type[OpsError]) -> str:
    return "Error." + error.code


def _schema(error: type[OpsError], details: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "title": error.code,
        "description": error.summary,
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "details", "request_id"],
                "properties": {
                    "code": {"const": error.code},
                    "message": {"type": "string"},
                    "details": details,
                    "request_id": {"type": "string"},
                },
            }
        },
    }


def _example(error: type[OpsError]) -> dict[str, Any]:
    instance = _EXAMPLES.get(error)
    if instance is not None:
        message, details = instance.message, msgspec.to_builtins(instance.details)
    else:
        message, details = error.summary, sample(error.details_type)
    return {"error": {"code": error.code, "message": message, "details": details, "request_id": REQUEST_ID}}
