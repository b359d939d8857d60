"""Reads a Struct from a YAML file and the environment, and says everything that is wrong with it at once.

A field `port` of the group `http` is the key `http.port` in the file and `OPSAPI_HTTP__PORT` in the environment, which
wins. A field `x` of type `Secret` may instead be given as `x_file` (or `OPSAPI_…__X_FILE`): a path whose content is the
secret.
"""

import difflib
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from opsapi.kit.secret import Secret

PREFIX = "OPSAPI_"
S = TypeVar("S", bound=msgspec.Struct)


class InvalidConfiguration(Exception):
    """`problems`: one sentence each, naming the key, the value and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(model: type[S], path: Path | None, environment: Mapping[str, str] | None = None) -> S:
    """Reads `model`. Raises InvalidConfiguration with every problem found."""
    problems: list[str] = []
    document = _read_document(path, problems)
    environment = os.environ if environment is None else environment
    overrides = _environment_tree(environment, problems)
    base = path.resolve().parent if path is not None else Path.cwd()
    value = _struct(model, _merge(document, overrides), "", base, problems)
    if problems:
        raise InvalidConfiguration(problems)
    assert isinstance(value, model)
    return value


def _read_document(path: Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path}: no such file; `opsapi demo` needs none, docs/configuration.md has a first one")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problems.append(f"{path}: not YAML{where}: {getattr(error, 'problem', error)}")
    else:
        if document is None:
            return {}
        if isinstance(document, dict):
            return document
        problems.append(f"{path}: expected keys at the top, found a {type(document).__name__}")
    return {}


def _environment_tree(environment: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX):
            continue
        keys = variable.removeprefix(PREFIX).lower().split("__")
        if keys == ["config"]:
            continue
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                problems.append(f"{variable}: another variable sets its parent as a plain value")
                break
        else:
            node[keys[-1]] = _Text(text, variable)
    return tree


class _Text(str):
    """A value from the environment: converted leniently (`"8080"` is an int) and named by its variable."""

    variable: str

    def __new__(cls, text: str, variable: str) -> "_Text":
        made = super().__new__(cls, text)
        made.variable = variable
        return made


def _merge(low: Any, high: Any) -> Any:
    if isinstance(low, dict) and isinstance(high, dict):
        return low | {key: _merge(low.get(key), value) for key, value in high.items()}
    return high


def _struct(model: type[Any], given: Any, at: str, base: Path, problems: list[str]) -> Any:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        problems.append(f"{at or 'the file'}: expected keys ({', '.join(_names(model)[:6])}, …), found {_shown(given)}")
        return None
    hints = get_type_hints(model, include_extras=True)
    fields = {field.name: field for field in msgspec.structs.fields(model)}
    values: dict[str, Any] = {}
    before = len(problems)
    given = _with_secret_files(given, hints, at, base, problems)
    for key, value in given.items():
        path = f"{at}.{key}" if at else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), _names(model), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_names(model))}"
            problems.append(f"{_name(path, value)}: unknown key; {hint}")
        else:
            values[key] = _value(hints[key], value, path, base, problems)
    for name, field in fields.items():
        if field.required and name not in given:
            problems.append(f"{f'{at}.{name}' if at else name}: missing; {_allowed(hints[name])}")
    if len(problems) > before:
        return None
    try:
        return model(**values)
    except ValueError as error:
        problems.append(f"{at or 'the file'}: {error}")
        return None


def _with_secret_files(
    given: dict[str, Any], hints: dict[str, Any], at: str, base: Path, problems: list[str]
) -> dict[str, Any]:
    for name, hint in hints.items():
        key = f"{name}_file"
        if key not in given or not (_holds(hint, Secret) or _holds_secrets(hint)):
            continue
        given = dict(given)
        path = base / os.path.expanduser(str.__str__(given.pop(key)))
        if name in given:
            problems.append(f"{f'{at}.{name}' if at else name}: give it or {key}, not both")
            continue
        try:
            text = path.read_text(encoding="utf-8").strip()
            given[name] = text.split() if _holds_secrets(hint) else text
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            problems.append(f"{f'{at}.{key}' if at else key}: {path} cannot be read: {reason}")
    return given


def _value(hint: Any, given: Any, at: str, base: Path, problems: list[str]) -> Any:
    plain = plain_type(hint)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return _struct(plain, given, at, base, problems)
    if get_origin(plain) is tuple and _is_struct(get_args(plain)[0]):
        if not isinstance(given, list):
            problems.append(f"{at}: expected a list, found {_shown(given)}")
            return ()
        return tuple(
            _struct(plain_type(get_args(plain)[0]), item, f"{at}[{i}]", base, problems) for i, item in enumerate(given)
        )
    if _holds(hint, Secret):
        if isinstance(given, str) and given:
            return Secret(given)
        problems.append(f"{_name(at, given)}: expected a non-empty text")
        return None
    if _holds_secrets(hint):
        if isinstance(given, _Text):
            given = given.replace(",", " ").split()
        if isinstance(given, list) and all(isinstance(one, str) and one for one in given):
            return tuple(Secret(one) for one in given)
        problems.append(f"{_name(at, given)}: expected a list of non-empty texts")
        return None
    if _holds(hint, Path) and isinstance(given, str):
        return base / os.path.expanduser(str.__str__(given))
    if isinstance(given, _Text) and get_origin(plain) is tuple:
        given = [part.strip() for part in given.split(",") if part.strip()]
    try:
        return msgspec.convert(given, hint, strict=not isinstance(given, (_Text, list)))
    except msgspec.ValidationError:
        problems.append(f"{_name(at, given)}: {_shown(given)} is not allowed; {_allowed(hint)}")
        return None


def plain_type(hint: Any) -> Any:
    """The type below Annotated and `| None`."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        return plain_type(rest[0]) if len(rest) == 1 else hint
    return hint


def _is_struct(hint: Any) -> bool:
    plain = plain_type(hint)
    return isinstance(plain, type) and issubclass(plain, msgspec.Struct)


def _holds(hint: Any, wanted: type) -> bool:
    return plain_type(hint) is wanted


def _holds_secrets(hint: Any) -> bool:
    plain = plain_type(hint)
    return get_origin(plain) is tuple and plain_type(get_args(plain)[0]) is Secret


def _names(model: type[Any]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(model)]


def _name(at: str, given: Any) -> str:
    return f"{given.variable} ({at})" if isinstance(given, _Text) else at


def _shown(given: Any) -> str:
    text = repr(str.__str__(given)) if isinstance(given, str) else repr(given)
    return text if len(text) <= 80 else text[:77] + "…"


def _allowed(hint: Any) -> str:
    return f"expected {described(hint)}"


def described(hint: Any) -> str:
    """What a field accepts, in words."""
    if _holds(hint, Secret):
        return "a non-empty text"
    if _holds_secrets(hint):
        return "a list of non-empty texts"
    if _holds(hint, Path):
        return "a path"
    if _is_struct(hint):
        return f"keys ({', '.join(_names(plain_type(hint)))})"
    schema = msgspec.json.schema(hint)
    return describe_schema(schema, schema.get("$defs", {}))


def describe_schema(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    schema = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
    if "anyOf" in schema:
        return " or ".join(describe_schema(part, definitions) for part in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"a list of {describe_schema(schema['items'], definitions).removeprefix('a ')}"
    kinds = {
        "string": "a text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "null": "nothing",
        "object": "keys",
    }
    words = kinds.get(schema.get("type", ""), "a value")
    if "pattern" in schema:
        return f"{words} like `{schema['pattern']}`"
    return words + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"of at least {low}")
    if above is not None:
        parts.append(f"above {above}")
    if high is not None:
        parts.append(f"of at most {high}" if not parts else f"up to {high}")
    return f" {', '.join(parts)}" if parts else ""
