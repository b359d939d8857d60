"""metav1.Status bodies, worded as the API server words them."""

import json
from dataclasses import dataclass
from typing import Any

from opsapi.playground.kinds import Kind
from opsapi.playground.registry import ApiError, Obj


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of details.causes; `message` is what follows the field's name in the Status message."""

    reason: str
    message: str
    field: str


def quoted(value: Any) -> str:
    """A value as Go's field errors show it: strings quoted, structures as JSON."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=False)
    return json.dumps(value, ensure_ascii=False)


def invalid_value(field: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {quoted(value)}: {why}", field)


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value{': ' + why if why else ''}", field)


def forbidden_field(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def duplicate(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {quoted(value)}", field)


def not_supported(field: str, value: Any, allowed: list[str]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in sorted(allowed))
    return Cause("FieldValueNotSupported", f"Unsupported value: {quoted(value)}: supported values: {listed}", field)


def not_found_field(field: str, value: Any) -> Cause:
    return Cause("FieldValueNotFound", f"Not found: {quoted(value)}", field)


def too_long(field: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def failure(code: int, reason: str, message: str, details: Obj | None = None) -> ApiError:
    status: Obj = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    status["code"] = code
    return ApiError(status)


def resource_details(kind: Kind, name: str) -> Obj:
    """details of an error about one object: name, group and, as real servers do, the plural as `kind`."""
    return _details(name, kind.group, kind.plural)


def _details(name: str, group: str, kind: str) -> Obj:
    details: Obj = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    details["kind"] = kind
    return details


def not_found(kind: Kind, name: str) -> ApiError:
    return failure(404, "NotFound", f'{kind.group_resource} "{name}" not found', resource_details(kind, name))


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f'{kind.group_resource} "{name}" already exists'
    return failure(409, "AlreadyExists", message, resource_details(kind, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(kind: Kind, name: str, why: str = MODIFIED) -> ApiError:
    message = f'Operation cannot be fulfilled on {kind.group_resource} "{name}": {why}'
    return failure(409, "Conflict", message, resource_details(kind, name))


def precondition_failed(kind: Kind, name: str, what: str, wanted: str, found: str) -> ApiError:
    """A delete's preconditions do not hold; `what` is UID or ResourceVersion."""
    tail = (
        ". The object might have been deleted and then recreated"
        if what == "UID"
        else ". The object might have been modified"
    )
    why = f"the {what} in the precondition ({wanted}) does not match the {what} in record ({found}){tail}"
    message = f'Operation cannot be fulfilled on {kind.kind} "{name}": {why}'
    return failure(409, "Conflict", message, {"name": name, "kind": kind.kind})


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    """422 with one cause per field error, in the order in which validation met them."""
    group_kind = f"{kind}.{group}" if group else kind
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    said = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    details: Obj = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return failure(422, "Invalid", f'{group_kind} "{name}" is invalid: {said}', details)


def bad_request(message: str) -> ApiError:
    return failure(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str, causes: list[Obj] | None = None) -> ApiError:
    named = f' "{name}"' if name else ""
    details = resource_details(kind, name)
    if causes:
        details["causes"] = causes
    return failure(403, "Forbidden", f"{kind.group_resource}{named} is forbidden: {why}", details)


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return failure(405, "MethodNotAllowed", message, {})


def no_such_resource() -> ApiError:
    return failure(404, "NotFound", "the server could not find the requested resource", {})


def unsupported_media_type(accepted: str = "") -> ApiError:
    if accepted:
        told = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        return failure(415, "UnsupportedMediaType", told)
    return failure(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def expired(message: str) -> ApiError:
    return failure(410, "Expired", message)


def too_old(requested: int, oldest: int) -> ApiError:
    return expired(f"too old resource version: {requested} ({oldest})")


def deleted(kind: Kind, name: str, uid: str) -> Obj:
    """The success Status that a delete answers once the object is gone."""
    details = resource_details(kind, name)
    details["uid"] = uid
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
