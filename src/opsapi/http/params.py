"""Path and query strings -> a declaration's Params Struct: repeated, unknown and malformed ones are refused."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import inspect

from opsapi.http.problems import Fields, problems
from opsapi.kit.endpoint import Params
from opsapi.kit.errors import ValidationFailed

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
MAX_PARAMETERS = 50
MAX_SEGMENT = 512

Reader = Callable[[str], Any]
"""Turns one string into the JSON value that msgspec then validates; raises ValueError with what is wanted."""


def percent_decoded(raw: bytes, *, plus_is_space: bool = False) -> str:
    """Decodes once. Raises ValueError on a broken escape, on what is not UTF-8, and on control characters."""
    if plus_is_space:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise ValueError("a percent sign must be followed by two hexadecimal digits")
        raw = unquote_to_bytes(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8") from None
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def segment(raw: bytes) -> str:
    """One path parameter's value. Raises ValueError on anything that could climb out of its place."""
    text = percent_decoded(raw)
    if text in ("", ".", "..") or "/" in text or "\\" in text:
        raise ValueError("must be one non-empty path segment")
    if len(text) > MAX_SEGMENT:
        raise ValueError(f"must be at most {MAX_SEGMENT} characters")
    return text


def parse_query(raw: bytes) -> dict[str, str]:
    """Raises ValidationFailed, naming every repeated or malformed parameter."""
    found: dict[str, str] = {}
    faults: Fields = {}
    pairs = raw.split(b"&")
    if len(pairs) > MAX_PARAMETERS:
        raise ValidationFailed({"query": f"at most {MAX_PARAMETERS} parameters"})
    for pair in pairs:
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition(b"=")
        try:
            name = percent_decoded(raw_name, plus_is_space=True)
        except ValueError as error:
            faults["query"] = f"a parameter's name {error}"
            continue
        if name in found:
            faults[name] = "given more than once"
            continue
        found[name] = ""
        try:
            found[name] = percent_decoded(raw_value, plus_is_space=True)
        except ValueError as error:
            faults[name] = str(error)
    if faults:
        raise ValidationFailed({name[:100]: reason for name, reason in faults.items()})
    return found


def _text(text: str) -> str:
    return text


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a decimal number")
    return float(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _list_of(read: Reader) -> Reader:
    def listed(text: str) -> list[Any]:
        return [read(item) for item in text.split(",")] if text else []

    return listed


_READERS: dict[type[inspect.Type], Reader] = {
    inspect.StrType: _text,
    inspect.IntType: _integer,
    inspect.FloatType: _number,
    inspect.BoolType: _flag,
    inspect.DateTimeType: _text,
    inspect.EnumType: _text,
    inspect.LiteralType: _text,
}


def reader(of: inspect.Type, where: str) -> Reader:
    """How a string becomes a value of this type. Raises TypeError for types that a query string cannot carry."""
    if isinstance(of, inspect.Metadata):
        return reader(of.type, where)
    if isinstance(of, inspect.UnionType):
        choices = [choice for choice in of.types if not isinstance(choice, inspect.NoneType)]
        if len(choices) == 1:
            return reader(choices[0], where)
    if isinstance(of, inspect.ListType):
        return _list_of(reader(of.item_type, where))
    found = _READERS.get(type(of))
    if found is None:
        raise TypeError(f"{where}: a query or path parameter cannot be of this type")
    return found


class ParamsDecoder:
    """Compiled once for each declaration; `fields` is taken out of the query before (see projection)."""

    def __init__(self, params: type[Params], path_names: tuple[str, ...], where: str) -> None:
        info = inspect.type_info(params)
        assert isinstance(info, inspect.StructType)
        self._type = params
        self._readers = {field.encode_name: reader(field.type, f"{where}: {field.name}") for field in info.fields}
        missing = [name for name in path_names if name not in self._readers]
        if missing:
            raise TypeError(f"{where}: the Params lack the path's {', '.join(missing)}")
        self._path_names = frozenset(path_names)
        self._empty = None if any(field.required for field in info.fields) else params()

    def decode(self, path: Mapping[str, str], query: Mapping[str, str]) -> Params:
        if not path and not query and self._empty is not None:
            return self._empty
        values: dict[str, Any] = {}
        faults: Fields = {}
        for name, text in query.items():
            if name not in self._readers or name in self._path_names:
                faults[name[:100]] = "unknown parameter"
            else:
                self._read(name, text, values, faults)
        for name, text in path.items():
            self._read(name, text, values, faults)
        try:
            if not faults:
                return msgspec.convert(values, self._type)
        except msgspec.ValidationError:
            pass
        given = {name: reason for name, reason in problems(values, self._type).items() if name not in faults}
        raise ValidationFailed(faults | {n: r for n, r in given.items() if n not in query or n in values})

    def _read(self, name: str, text: str, values: dict[str, Any], faults: Fields) -> None:
        try:
            values[name] = self._readers[name](text)
        except ValueError as error:
            faults[name] = str(error)
