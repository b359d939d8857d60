"""Field ownership: metadata.managedFields for plain writes and for server-side apply.

Sets of fields are kept in the form in which FieldsV1 writes them: `{"f:spec": {"f:replicas": {}}}`. A node is a member
of the set when it is empty or has the key ".". Terms as in kubernetes-sigs/structured-merge-diff.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from opsapi.playground.machinery.normal import zero
from opsapi.playground.machinery.pod_defaults import Memo
from opsapi.playground.machinery.schema import RAW, Field, Struct, Type
from opsapi.playground.registry import Obj, User

Set = dict[str, Any]
_MEMBER: Set = {}
_encode = msgspec.json.Encoder(order="sorted").encode
_STRIPPED = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    }
)
_INTERNED: dict[bytes, Set] = {}
_INTERN_LIMIT = 4096
_MANAGERS = {"system:kube-controller-manager": "kube-controller-manager", "system:kube-scheduler": "kube-scheduler"}


@dataclass(frozen=True, slots=True)
class Writer:
    manager: str
    api_version: str
    time: str
    subresource: str = ""


def manager_of(user: User) -> str:
    """Who a write counts as when it names no field manager."""
    if user.name.startswith("system:node:"):
        return "kubelet"
    return _MANAGERS.get(user.name, user.name.removeprefix("system:")) or "unknown"


def with_entries(obj: Obj, entries: list[Obj]) -> Obj:
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    if entries:
        meta["managedFields"] = entries
    return {**obj, "metadata": meta}


def record_update(
    struct: Struct | None, old: Obj | None, new: Obj, writer: Writer, spec_memo: Memo | None = None
) -> Obj:
    """`new` with the ownership that a plain write (create, PUT, PATCH) by `writer` leaves behind.

    `spec_memo` remembers the sets of specs that many objects share; only for creates.
    """
    if spec_memo is None:
        touched, removed = changes(struct, old, new)
    else:
        touched, removed = _created(struct, new, spec_memo), {}
    entries = list(new["metadata"].get("managedFields") or [])
    if not touched and not removed:
        return new
    kept: list[Obj] = []
    mine: Obj | None = None
    for entry in entries:
        if _is(entry, writer, "Update"):
            mine = entry
            continue
        fields = entry.get("fieldsV1") or {}
        left = difference(difference(fields, touched), removed)
        if left:
            kept.append(entry if left == fields else {**entry, "fieldsV1": intern(left)})
    before: Set = {} if mine is None else mine.get("fieldsV1") or {}
    owned = union(difference(before, removed), touched)
    if owned:
        kept.append(_entry(writer, "Update", owned, None if mine is None or owned != before else mine.get("time")))
    return with_entries(new, sort_entries(kept))


def _created(struct: Struct | None, new: Obj, spec_memo: Memo) -> Set:
    node = spec_memo.get(new.get("spec"))
    if node is None:
        touched, _ = changes(struct, None, new)
        spec_memo.put(new["spec"], touched.get("f:spec", {}))
        return touched
    touched, _ = changes(struct, None, {**new, "spec": zero(struct.fields["spec"])} if struct else new)
    return {**touched, "f:spec": node}


def _is(entry: Obj, writer: Writer, operation: str) -> bool:
    return (
        entry.get("manager") == writer.manager
        and entry.get("operation") == operation
        and entry.get("apiVersion") == writer.api_version
        and entry.get("subresource", "") == writer.subresource
    )


def _entry(writer: Writer, operation: str, fields: Set, time: str | None) -> Obj:
    made: Obj = {
        "manager": writer.manager,
        "operation": operation,
        "apiVersion": writer.api_version,
        "time": time or writer.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": intern(fields),
    }
    if writer.subresource:
        made["subresource"] = writer.subresource
        if writer.subresource == "scale":
            del made["time"]
    return made


def sort_entries(entries: list[Obj]) -> list[Obj]:
    return sorted(
        entries,
        key=lambda one: (
            one.get("operation", ""),
            one.get("time") or "",
            one.get("manager", ""),
            one.get("apiVersion", ""),
            one.get("subresource", ""),
        ),
    )


def intern(fields: Set) -> Set:
    """`fields` with what thousands of objects have alike shared between them.

    A pod's address is its own, and must not keep the rest of its status from being shared.
    """
    if "f:podIPs" not in fields.get("f:status", _MEMBER):
        return _shared(fields)
    return {key: _shared(node) if key != "f:status" else _parts_shared(node) for key, node in fields.items()}


def _parts_shared(node: Set) -> Set:
    return {name: one if name == "f:podIPs" else _shared(one) for name, one in node.items()}


def _shared(node: Set) -> Set:
    if not node:
        return _MEMBER
    key = _encode(node)
    known = _INTERNED.get(key)
    if known is None:
        if len(_INTERNED) >= _INTERN_LIMIT:
            _INTERNED.clear()
        known = _INTERNED[key] = msgspec.json.decode(key)
    return known


# Sets


def is_member(node: Set) -> bool:
    return not node or "." in node


def union(left: Set, right: Set) -> Set:
    """Of two roots or of two children dicts."""
    if not left or left == right:
        return right
    if not right:
        return left
    made = dict(left)
    for key, node in right.items():
        mine = made.get(key)
        made[key] = node if mine is None else _union_nodes(mine, node)
    return made


def _union_nodes(left: Set, right: Set) -> Set:
    if left == right:
        return left
    member = is_member(left) or is_member(right)
    children = union({k: v for k, v in left.items() if k != "."}, {k: v for k, v in right.items() if k != "."})
    return {".": {}, **children} if member and children else children


def difference(left: Set, right: Set) -> Set:
    """The members of `left` that are not members of `right`."""
    if not right or not left:
        return left
    made: Set = {}
    changed = False
    for key, node in left.items():
        other = right.get(key)
        if other is None or key == ".":
            made[key] = node
            continue
        rest = _difference_nodes(node, other)
        changed = changed or rest is not node
        if rest is not None:
            made[key] = rest
    return made if changed else left


def _difference_nodes(left: Set, right: Set) -> Set | None:
    member = is_member(left) and not is_member(right)
    mine = {k: v for k, v in left.items() if k != "."}
    children = difference(mine, {k: v for k, v in right.items() if k != "."})
    if member:
        return left if children == mine else ({".": {}, **children} if children else {})
    return children or None


def intersection(left: Set, right: Set) -> Set:
    made: Set = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None or key == ".":
            continue
        member = is_member(node) and is_member(other)
        children = intersection(node, other)
        if member:
            made[key] = {".": {}, **children} if children else {}
        elif children:
            made[key] = children
    return made


def members(fields: Set, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every member as a path of FieldsV1 keys."""
    found: list[tuple[str, ...]] = []
    for key, node in fields.items():
        if key == ".":
            continue
        if is_member(node):
            found.append((*prefix, key))
        found.extend(members(node, (*prefix, key)))
    return found


# Comparing


def changes(struct: Struct | None, old: Obj | None, new: Obj) -> tuple[Set, Set]:
    """(added or modified, removed), without the metadata that nobody owns. `old` None is an empty object."""
    walk = _Compare()
    top = struct.fields if struct is not None else {}
    before = old if old is not None else _zero_object(struct)
    for name in dict.fromkeys((*new, *before)):
        if name in ("kind", "apiVersion"):
            continue
        known = top.get(name)
        if name == "metadata":
            walk.metadata(before.get(name) or {}, new.get(name) or {}, known)
            continue
        kind = RAW if known is None else known.type
        walk.pair(kind, before.get(name), new.get(name), (f"f:{name}",), name in before, name in new)
    return walk.touched.build(), walk.removed.build()


def _zero_object(struct: Struct | None) -> Obj:
    if struct is None or struct.sorted_fields:
        return {}
    return {one.name: zero(one) for one in struct.emitted}


class _SetBuilder:
    def __init__(self) -> None:
        self._root: Set = {}

    def add(self, path: tuple[str, ...]) -> None:
        node = self._root
        for key in path:
            node = node.setdefault(key, {})
        node[""] = _MEMBER

    def build(self) -> Set:
        return _sealed_children(self._root)


def _sealed_children(node: Set) -> Set:
    return {key: _sealed(node[key]) for key in sorted(node) if key}


def _sealed(node: Set) -> Set:
    children = _sealed_children(node)
    return {".": {}, **children} if "" in node and children else children


class _Compare:
    def __init__(self) -> None:
        self.touched = _SetBuilder()
        self.removed = _SetBuilder()

    def metadata(self, old: Obj, new: Obj, known: Field | None) -> None:
        fields = known.type.struct.fields if known is not None and known.type.struct is not None else {}
        for name in dict.fromkeys((*new, *old)):
            if name in _STRIPPED:
                continue
            field = fields.get(name)
            kind = RAW if field is None else field.type
            self.pair(kind, old.get(name), new.get(name), ("f:metadata", f"f:{name}"), name in old, name in new)

    def pair(self, kind: Type, old: Any, new: Any, path: tuple[str, ...], had: bool, has: bool) -> None:
        if old is new and had == has:
            return
        mapping = isinstance(new if has and new is not None else old, dict)
        listing = isinstance(new if has and new is not None else old, list)
        atomic = kind.atomic or (kind.form in ("list", "raw") and listing and not kind.keys and not kind.is_set)
        if atomic or not (mapping or listing) or (not old and not new):
            self._leaf(old, new, path, had, has)
            return
        if mapping:
            self._mapping(kind, old or {}, new or {}, path)
        else:
            self._listing(kind, old or [], new or [], path)
        if not had:
            self.touched.add(path)
        elif not has:
            self.removed.add(path)

    def _leaf(self, old: Any, new: Any, path: tuple[str, ...], had: bool, has: bool) -> None:
        if not has:
            self.removed.add(path)
        elif not had or old != new:
            self.touched.add(path)

    def _mapping(self, kind: Type, old: Any, new: Any, path: tuple[str, ...]) -> None:
        if not isinstance(old, dict) or not isinstance(new, dict):
            self._leaf(old, new, path, True, True)
            return
        for name in dict.fromkeys((*new, *old)):
            inner = child_type(kind, name)
            self.pair(inner, old.get(name), new.get(name), (*path, f"f:{name}"), name in old, name in new)

    def _listing(self, kind: Type, old: Any, new: Any, path: tuple[str, ...]) -> None:
        if not isinstance(old, list) or not isinstance(new, list):
            self._leaf(old, new, path, True, True)
            return
        before, after = keyed(kind, old), keyed(kind, new)
        inner = kind.element or RAW
        for key in dict.fromkeys((*after, *before)):
            self.pair(inner, before.get(key), after.get(key), (*path, key), key in before, key in after)


def child_type(kind: Type, name: str) -> Type:
    if kind.form == "struct" and kind.struct is not None:
        known = kind.struct.fields.get(name)
        return RAW if known is None else known.type
    if kind.form == "map":
        return kind.element or RAW
    return RAW


def keyed(kind: Type, items: list[Any]) -> dict[str, Any]:
    """A map-list's items by `k:{…}`, a set's by `v:…`."""
    if kind.is_set:
        return {f"v:{_text(one)}": one for one in items}
    return {item_key(kind, one): one for one in items}


def item_key(kind: Type, item: Obj) -> str:
    struct = kind.element.struct if kind.element is not None else None
    parts: Obj = {}
    for name in sorted(kind.keys):
        value = item.get(name)
        if value is None and struct is not None and name in struct.fields:
            value = struct.fields[name].default
        if value is not None:
            parts[name] = value
    return f"k:{_text(parts)}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def fields_of(struct: Struct | None, config: Obj) -> Set:
    """The fields that an applied configuration sets: its leaves, and the items of its keyed lists."""
    builder = _SetBuilder()
    top = struct.fields if struct is not None else {}
    for name, value in config.items():
        if name in ("kind", "apiVersion"):
            continue
        known = top.get(name)
        if name == "metadata":
            inner = known.type.struct.fields if known is not None and known.type.struct is not None else {}
            for key, held in (value or {}).items():
                if key not in _STRIPPED:
                    field = inner.get(key)
                    _collect(builder, RAW if field is None else field.type, held, ("f:metadata", f"f:{key}"))
            continue
        _collect(builder, RAW if known is None else known.type, value, (f"f:{name}",))
    return builder.build()


def _collect(builder: _SetBuilder, kind: Type, value: Any, path: tuple[str, ...]) -> None:
    keyed_list = kind.form == "list" and (kind.keys or kind.is_set)
    if kind.atomic or not value or not isinstance(value, dict | list) or (isinstance(value, list) and not keyed_list):
        builder.add(path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _collect(builder, child_type(kind, name), inner, (*path, f"f:{name}"))
    else:
        for key, item in keyed(kind, value).items():
            builder.add((*path, key))
            if isinstance(item, dict):
                _collect(builder, kind.element or RAW, item, (*path, key))
