"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386) on plain JSON, with the API server's errors.

Nothing here changes its input: what is patched is copied along the path.
"""

from typing import Any

from opsapi.playground.machinery.status import bad_request, failure
from opsapi.playground.registry import ApiError

_GO_KINDS = {dict: "object", str: "string", bool: "bool", int: "number", float: "number"}


def rejected() -> ApiError:
    """A JSON patch that does not apply: a failed test or an absent path."""
    message = "the server rejected our request due to an error in our request"
    return failure(422, "Invalid", message, {})


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merge(made.get(name), value)
    return made


def json_patch(target: Any, operations: Any) -> Any:
    """Raises ApiError: 400 for what is no JSON patch, 422 where it does not apply."""
    if not isinstance(operations, list):
        seen = _GO_KINDS.get(type(operations), "null")
        told = f"json: cannot unmarshal {seen} into Go value of type []handlers.jsonPatchOp"
        raise bad_request(f"error decoding patch: {told}")
    made = target
    for operation in operations:
        if not isinstance(operation, dict):
            seen = "array" if isinstance(operation, list) else _GO_KINDS.get(type(operation), "null")
            told = f"json: cannot unmarshal {seen} into Go value of type handlers.jsonPatchOp"
            raise bad_request(f"error decoding patch: {told}")
        made = _apply(made, operation)
    return made


def _apply(target: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise rejected()
    keys = pointer(path)
    if kind == "test":
        if _read(target, keys) != operation.get("value"):
            raise rejected()
        return target
    if kind == "remove":
        return _remove(target, keys)
    if kind == "replace":
        _read(target, keys)
        return _put(target, keys, operation.get("value"), insert=False)
    if kind == "add":
        return _put(target, keys, operation.get("value"), insert=True)
    source = operation.get("from")
    if kind in ("move", "copy") and isinstance(source, str):
        value = _read(target, pointer(source))
        base = _remove(target, pointer(source)) if kind == "move" else target
        return _put(base, keys, value, insert=True)
    raise rejected()


def pointer(path: str) -> list[str]:
    """`/a~1b/0` -> ["a/b", "0"]. Raises ApiError (422)."""
    if path == "":
        return []
    if not path.startswith("/"):
        raise rejected()
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _index(items: list[Any], key: str, *, insert: bool = False) -> int:
    if insert and key == "-":
        return len(items)
    if not key.isascii() or not key.isdecimal() or (key != "0" and key.startswith("0")):
        raise rejected()
    index = int(key)
    if index > len(items) or (not insert and index == len(items)):
        raise rejected()
    return index


def _read(target: Any, keys: list[str]) -> Any:
    for key in keys:
        if isinstance(target, dict):
            if key not in target:
                raise rejected()
            target = target[key]
        elif isinstance(target, list):
            target = target[_index(target, key)]
        else:
            raise rejected()
    return target


def _put(target: Any, keys: list[str], value: Any, *, insert: bool) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(target, dict):
        if rest and key not in target:
            raise rejected()
        return {**target, key: _put(target.get(key), rest, value, insert=insert)}
    if isinstance(target, list):
        made = list(target)
        if rest:
            index = _index(target, key)
            made[index] = _put(target[index], rest, value, insert=insert)
        elif insert:
            made.insert(_index(target, key, insert=True), value)
        else:
            made[_index(target, key)] = value
        return made
    raise rejected()


def _remove(target: Any, keys: list[str]) -> Any:
    if not keys:
        raise rejected()
    key, rest = keys[0], keys[1:]
    if isinstance(target, dict):
        if key not in target:
            raise rejected()
        if rest:
            return {**target, key: _remove(target[key], rest)}
        return {name: value for name, value in target.items() if name != key}
    if isinstance(target, list):
        index = _index(target, key)
        if rest:
            return [*target[:index], _remove(target[index], rest), *target[index + 1 :]]
        return [*target[:index], *target[index + 1 :]]
    raise rejected()
