"""`?fields=a,b.c`: parts of an answer's `data`, for callers with small contexts."""

from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

from opsapi.kit.endpoint import Partial
from opsapi.kit.errors import ValidationFailed

MAX_FIELDS = 50
Selection = dict[str, "Selection"]
"""What to keep below each name; an empty selection keeps all."""


class Projection:
    """Compiled once for each declaration with `fields=True`; lists are looked through, maps take any key."""

    def __init__(self, answer: Any) -> None:
        self._info = inspect.type_info(answer)

    def parse(self, text: str) -> Selection:
        """Raises ValidationFailed, naming the nearest field for each that the answer does not have."""
        paths = [path.strip() for path in text.split(",")]
        if not text or len(paths) > MAX_FIELDS:
            raise ValidationFailed({"fields": f"name between 1 and {MAX_FIELDS} fields, separated by commas"})
        selection: Selection = {}
        for path in paths:
            self._check(path)
            _add(selection, path.split("."))
        return selection

    def _check(self, path: str) -> None:
        infos = [self._info]
        for name in path.split("."):
            known, any_key, below = _names(infos)
            if name in known:
                infos = known[name]
            elif any_key and name:
                infos = below
            else:
                shown = path[:100]
                nearest = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = (
                    f"did you mean {nearest[0]!r}?" if nearest else f"there are: {', '.join(list(known)[:30]) or '-'}"
                )
                raise ValidationFailed({"fields": f"the answer has no field {shown!r}; {hint}"})


def _names(infos: list[inspect.Type]) -> tuple[dict[str, list[inspect.Type]], bool, list[inspect.Type]]:
    """The fields of every Struct among `infos`; whether any key may follow, and what lies below it."""
    known: dict[str, list[inspect.Type]] = {}
    below: list[inspect.Type] = []
    any_key = False
    todo = list(infos)
    while todo:
        info = todo.pop()
        if isinstance(info, inspect.Metadata):
            todo.append(info.type)
        elif isinstance(info, inspect.UnionType):
            todo.extend(info.types)
        elif isinstance(info, inspect.CollectionType):
            todo.append(info.item_type)
        elif isinstance(info, inspect.StructType):
            for field in info.fields:
                known.setdefault(field.encode_name, []).append(field.type)
        elif isinstance(info, inspect.DictType):
            any_key = True
            below.append(info.value_type)
        elif isinstance(info, inspect.AnyType):
            any_key = True
            below.append(info)
    return known, any_key, below


def _add(selection: Selection, names: list[str]) -> None:
    """A field that is selected whole stays whole, whatever else is named below it."""
    for index, name in enumerate(names):
        last = index == len(names) - 1
        if name in selection and not selection[name]:
            return
        if last:
            selection[name] = {}
        selection = selection.setdefault(name, {})


def project(data: Any, selection: Selection) -> Any:
    """`data` as plain values with only the selected fields."""
    return _keep(msgspec.to_builtins(data, str_keys=True), selection)


def _keep(value: Any, selection: Selection) -> Any:
    if not selection:
        return value
    if isinstance(value, list):
        return [_keep(item, selection) for item in value]
    if isinstance(value, dict):
        return {name: _keep(value[name], below) for name, below in selection.items() if name in value}
    return value


def kept_partial(partial: list[Partial], selection: Selection) -> list[Partial]:
    return [entry for entry in partial if _selected(entry.field.replace("[]", "").split("."), selection)]


def kept_pointers(pointers: list[str], selection: Selection) -> list[str]:
    """JSON Pointers into `data` that still lead somewhere; list indices are looked through."""
    return [
        pointer
        for pointer in pointers
        if _selected([name for name in pointer.split("/")[1:] if not name.isdigit()], selection)
    ]


def _selected(names: list[str], selection: Selection) -> bool:
    for name in filter(None, names):
        if not selection:
            return True
        if name not in selection:
            return False
        selection = selection[name]
    return True
