"""Small valid values of a type, for the document's examples where a declaration brings none of its own."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import inspect

_NAMED = {
    "resource_id": "ws-123",
    "resource_type": "deployment",
    "workspace_id": "ws-123",
    "application_id": "app-456",
    "operation_id": "op-7k2m9q4x1v8c5b3n",
    "service_account_id": "sa-deployer",
}


class CannotSample(Exception):
    """A constraint, such as a pattern, that no value can be made up for."""


def sample(of: Any) -> Any:
    """Required fields only, the first of each choice. Raises CannotSample."""
    return _sample(inspect.type_info(of), "")


def _sample(info: inspect.Type, name: str) -> Any:
    if isinstance(info, inspect.Metadata):
        return _sample(info.type, name)
    if isinstance(info, inspect.UnionType):
        return _sample(next(t for t in info.types if not isinstance(t, inspect.NoneType)), name)
    if isinstance(info, inspect.StructType):
        tag = {} if info.tag_field is None else {info.tag_field: info.tag}
        return tag | {field.encode_name: _sample(field.type, field.name) for field in info.fields if field.required}
    if isinstance(info, inspect.EnumType):
        return next(iter(info.cls)).value
    if isinstance(info, inspect.LiteralType):
        return info.values[0]
    if isinstance(info, inspect.DictType):
        return {}
    if isinstance(info, inspect.CollectionType):
        return [_sample(info.item_type, name)] * max(1, info.min_length or 1)
    return _scalar(info, name)


def _scalar(info: inspect.Type, name: str) -> Any:
    if isinstance(info, inspect.StrType):
        if info.pattern is not None:
            raise CannotSample(name)
        return _NAMED.get(name, name or "text").ljust(info.min_length or 0, "x")[: info.max_length]
    if isinstance(info, inspect.DateTimeType):
        return msgspec.to_builtins(datetime(2024, 1, 20, 15, 35, tzinfo=UTC))
    if isinstance(info, inspect.BoolType):
        return True
    if isinstance(info, inspect.IntType):
        return _within(info, 3)
    if isinstance(info, inspect.FloatType):
        return float(_within(info, 3))
    if isinstance(info, inspect.AnyType):
        return None
    raise CannotSample(name)


def _within(info: inspect.IntType | inspect.FloatType, wish: int) -> int:
    low = info.ge if info.ge is not None else info.gt + 1 if info.gt is not None else None
    high = info.le if info.le is not None else info.lt - 1 if info.lt is not None else None
    wish = wish if low is None else max(wish, int(low))
    return wish if high is None else min(wish, int(high))
