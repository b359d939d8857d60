"""Strategic merge patch: merging by the API types' merge keys, with its directives.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from typing import Any

from opsapi.playground.machinery.schema import Field, Struct
from opsapi.playground.machinery.status import bad_request
from opsapi.playground.registry import Obj

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def apply(struct: Struct | None, target: Obj, patch: Obj) -> Obj:
    """`target` patched; raises ApiError (400) for directives that make no sense."""
    made = _mapping(struct, target, patch)
    return made if made is not None else {}


def _mapping(struct: Struct | None, target: Obj, patch: Obj) -> Obj | None:
    """None when the patch deletes the whole mapping."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return None
    if directive not in (None, "merge"):
        raise bad_request(f'unable to find api field in struct {_name(struct)} for the json field "{_PATCH}"')
    made = dict(target)
    if isinstance(patch.get(_RETAIN), list):
        made = {key: value for key, value in made.items() if key in patch[_RETAIN]}
    for key, value in patch.items():
        if key.startswith(_DELETE_PRIMITIVES):
            name = key.removeprefix(_DELETE_PRIMITIVES)
            if isinstance(made.get(name), list) and isinstance(value, list):
                made[name] = [one for one in made[name] if one not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            made.pop(key, None)
        else:
            _field(struct, made, key, value, patch.get(f"{_ORDER}{key}"))
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and isinstance(made.get(name), list):
            made[name] = _ordered(_field_of(struct, name), made[name], order)
    return made


def _field(struct: Struct | None, made: Obj, key: str, value: Any, order: Any) -> None:
    known = _field_of(struct, key)
    current = made.get(key)
    if isinstance(value, dict):
        inner = None if known is None or known.type.form != "struct" else known.type.struct
        if known is not None and known.patch == "replace" and known.type.form == "struct":
            made[key] = value
            return
        merged = _mapping(inner, current if isinstance(current, dict) else {}, value)
        if merged is None:
            made.pop(key, None)
        else:
            made[key] = merged
    elif isinstance(value, list):
        made[key] = _listing(known, current if isinstance(current, list) else [], value, order)
    else:
        made[key] = value


def _listing(known: Field | None, current: list[Any], patch: list[Any], order: Any) -> list[Any]:
    if any(isinstance(one, dict) and one.get(_PATCH) == "replace" for one in patch):
        return [one for one in patch if not (isinstance(one, dict) and _PATCH in one and len(one) == 1)]
    if known is None or "merge" not in known.patch:
        return _without_directives(patch)
    if not known.merge_key:
        added = [one for one in patch if one not in current]
        made = [*current, *added]
        return made if not isinstance(order, list) else _ordered(known, made, order)
    return _keyed(known, current, patch, order)


def _keyed(known: Field, current: list[Obj], patch: list[Obj], order: Any) -> list[Any]:
    key = known.merge_key
    inner = known.type.element.struct if known.type.element is not None else None
    made = list(current)
    patched: list[Any] = []
    for one in patch:
        if not isinstance(one, dict) or key not in one:
            raise bad_request(f"map: {_go_map(one)} does not contain declared merge key: {key}")
        at = next((index for index, item in enumerate(made) if item.get(key) == one[key]), None)
        merged = _mapping(inner, {} if at is None else made[at], one)
        if merged is None:
            made = [item for item in made if item.get(key) != one[key]]
            continue
        patched.append(one[key])
        if at is None:
            made.append(merged)
        else:
            made[at] = merged
    if isinstance(order, list):
        return _ordered(known, made, order)
    return _patch_first(made, key, patched, current)


def _patch_first(made: list[Obj], key: str, patched: list[Any], current: list[Obj]) -> list[Obj]:
    """Without an explicit order, new items come before those that were there, in the patch's order."""
    before = [item.get(key) for item in current]
    new = [item for item in made if item.get(key) not in before]
    rest = [item for item in made if item.get(key) in before]
    new.sort(key=lambda item: patched.index(item.get(key)) if item.get(key) in patched else len(patched))
    return [*new, *rest]


def _ordered(known: Field | None, items: list[Any], order: list[Any]) -> list[Any]:
    """Items as $setElementOrder lists them; those it does not name keep their place behind their predecessor."""
    key = known.merge_key if known is not None else ""

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [identity(one) for one in order]
    listed = [item for item in items if identity(item) in wanted]
    listed.sort(key=lambda item: wanted.index(identity(item)))
    made: list[Any] = []
    pending = iter(listed)
    for item in items:
        if identity(item) in wanted:
            made.append(next(pending))
        else:
            made.append(item)
    return made


def _without_directives(items: list[Any]) -> list[Any]:
    return [one for one in items if not (isinstance(one, dict) and one.get(_PATCH) == "delete")]


def _field_of(struct: Struct | None, name: str) -> Field | None:
    return None if struct is None else struct.fields.get(name)


def _name(struct: Struct | None) -> str:
    return "" if struct is None else struct.name.rpartition("/")[2]


def go_map(value: Any) -> str:
    """A value as Go's %v prints it: `map[a:1 b:[x y]]`, keys sorted."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_map(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_map(one) for one in value) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_go_map = go_map
