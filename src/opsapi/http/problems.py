"""All that is wrong with a decoded value, not only the first thing, by JSON path."""

import re
from typing import Any

import msgspec
from msgspec import inspect

Fields = dict[str, str]
"""`spec.replicas`, `items[2].name` -> why it is refused."""

MAX_PROBLEMS = 50
_WORD = re.compile(r"[\w./-]+")
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$", re.DOTALL)


def problems(value: Any, of: Any) -> Fields:
    """Empty where `value` (plain JSON values) converts to the type `of`."""
    found: Fields = {}
    _collect(value, of, "", found)
    return found


def join(path: str, name: str) -> str:
    """The path of the field `name` below `path`; a name that is no plain word is quoted."""
    shown = name if len(name) <= 100 else name[:97] + "..."
    if not _WORD.fullmatch(name):
        shown = msgspec.json.encode(shown).decode()
    return f"{path}.{shown}" if path else shown


def _collect(value: Any, of: Any, path: str, found: Fields) -> None:
    if len(found) >= MAX_PROBLEMS:
        return
    try:
        msgspec.convert(value, of, str_keys=True)
    except msgspec.ValidationError as error:
        before = len(found)
        _descend(value, of, path, found)
        if len(found) == before:
            reason = str(error)
            at = _AT.search(reason)
            below = at["path"] if at else ""
            where = path + (below if below.startswith("[") or not path else f".{below}" if below else "")
            found[where or "body"] = (reason[: at.start()] if at else reason)[:300]


def _descend(value: Any, of: Any, path: str, found: Fields) -> None:
    """Looks for the causes below; finds none where the value itself is of the wrong kind."""
    struct = _struct(of)
    if struct is not None and isinstance(value, dict):
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        strict = struct.__struct_config__.forbid_unknown_fields
        for name in value:
            if name not in fields:
                if strict and len(found) < MAX_PROBLEMS:
                    found[join(path, name)] = "unknown field"
            else:
                _collect(value[name], fields[name].type, join(path, name), found)
        for name, field in fields.items():
            if field.required and name not in value and len(found) < MAX_PROBLEMS:
                found[join(path, name)] = "required"
        return
    item = _item_type(of)
    if item is not None and isinstance(value, list):
        for index, element in enumerate(value):
            _collect(element, item, f"{path}[{index}]", found)


def _struct(of: Any) -> type[msgspec.Struct] | None:
    """The one Struct behind `Struct`, `Struct | None` and annotations of them."""
    info = _bare(inspect.type_info(of))
    return info.cls if isinstance(info, inspect.StructType) and info.tag is None else None


def _item_type(of: Any) -> Any:
    for candidate in (of, *getattr(of, "__args__", ())):
        if getattr(candidate, "__origin__", None) is list:
            return candidate.__args__[0]
    return None


def _bare(info: inspect.Type) -> inspect.Type:
    if isinstance(info, inspect.Metadata):
        return _bare(info.type)
    if isinstance(info, inspect.UnionType):
        choices = [choice for choice in info.types if not isinstance(choice, inspect.NoneType)]
        return _bare(choices[0]) if len(choices) == 1 else info
    return info
