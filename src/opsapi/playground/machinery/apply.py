"""Server-side apply: merging a configuration, field by field, with who owns what.

The algorithm of kubernetes-sigs/structured-merge-diff: merge, take away what the applier no longer lists and nobody
else owns, refuse what changes fields of others unless forced.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from opsapi.playground.machinery import managed
from opsapi.playground.machinery.managed import Set, Writer, child_type, item_key
from opsapi.playground.machinery.schema import RAW, Struct, Type
from opsapi.playground.machinery.status import failure
from opsapi.playground.registry import Obj

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Applied:
    obj: Obj
    entries: list[Obj]


def merge(struct: Struct | None, live: Obj, config: Obj) -> Obj:
    """`live` with every field that `config` sets."""
    made = dict(live)
    for name, value in config.items():
        if name in ("kind", "apiVersion"):
            continue
        if name == "metadata":
            kind = struct.fields["metadata"].type if struct is not None else RAW
            sent = {key: one for key, one in (value or {}).items() if key not in ("managedFields",)}
            made[name] = _merge(kind, live.get(name) or {}, sent)
            continue
        known = None if struct is None else struct.fields.get(name)
        made[name] = _merge(RAW if known is None else known.type, live.get(name), value)
    return made


def _merge(kind: Type, live: Any, config: Any) -> Any:
    if kind.atomic or config is None:
        return config
    if isinstance(config, dict):
        made = dict(live) if isinstance(live, dict) else {}
        for name, value in config.items():
            made[name] = _merge(child_type(kind, name), made.get(name), value)
        return made
    if isinstance(config, list) and kind.is_set:
        present = live if isinstance(live, list) else []
        return [*present, *(one for one in config if one not in present)]
    if isinstance(config, list) and kind.keys:
        return _merge_keyed(kind, live if isinstance(live, list) else [], config)
    return config


def _merge_keyed(kind: Type, live: list[Obj], config: list[Obj]) -> list[Obj]:
    """The configuration's order for its items; live items stay behind the one they followed."""
    wanted = {item_key(kind, one): one for one in config}
    present = {item_key(kind, one): one for one in live}
    element = kind.element or RAW
    merged = {key: _merge(element, present.get(key), one) for key, one in wanted.items()}
    made: list[Obj] = []
    done: set[str] = set()
    order = list(wanted)
    for key, one in present.items():
        if key not in wanted:
            made.append(one)
            continue
        while order and key not in done:
            first = order.pop(0)
            made.append(merged[first])
            done.add(first)
    made.extend(merged[key] for key in order)
    return made


def apply(struct: Struct | None, live: Obj | None, config: Obj, writer: Writer, *, force: bool) -> Applied:
    """The object and its managedFields after `writer` applies `config`. Raises ApiError (409) on conflicts."""
    base: Obj = (
        live if live is not None else {"kind": config["kind"], "apiVersion": config["apiVersion"], "metadata": {}}
    )
    entries = list(base["metadata"].get("managedFields") or [])
    mine = next((one for one in entries if _is_mine(one, writer)), None)
    others = [one for one in entries if one is not mine]
    fields = managed.fields_of(struct, config)
    merged = merge(struct, base, config)
    owned = fields
    for other in others:
        owned = managed.union(owned, other.get("fieldsV1") or {})
    gone = managed.difference((mine or {}).get("fieldsV1") or {}, owned)
    if gone:
        merged = _pruned(struct, merged, gone, owned)
    touched, removed = managed.changes(struct, live, merged)
    kept = _others(others, touched, removed, force=force)
    time = mine.get("time") if mine is not None and mine.get("fieldsV1") == fields else None
    entry = {
        "manager": writer.manager,
        "operation": "Apply",
        "apiVersion": writer.api_version,
        "time": time or writer.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": managed.intern(fields),
    }
    if writer.subresource:
        entry["subresource"] = writer.subresource
    if writer.manager == "kubectl":
        merged = _with_last_applied(merged, config)
    return Applied(merged, managed.sort_entries([*kept, entry] if fields else kept))


def _with_last_applied(merged: Obj, config: Obj) -> Obj:
    """kubectl's client-side annotation, where an object has it, follows what kubectl applies on the server."""
    annotations = merged["metadata"].get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return merged
    text = msgspec.json.Encoder(order="sorted").encode(config).decode() + "\n"
    return {**merged, "metadata": {**merged["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}}


def _is_mine(entry: Obj, writer: Writer) -> bool:
    return (
        entry.get("manager") == writer.manager
        and entry.get("operation") == "Apply"
        and entry.get("subresource", "") == writer.subresource
    )


def _others(others: list[Obj], touched: Set, removed: Set, *, force: bool) -> list[Obj]:
    conflicts: list[tuple[Obj, Set]] = []
    kept: list[Obj] = []
    for other in others:
        fields = other.get("fieldsV1") or {}
        contested = managed.intersection(fields, touched)
        if contested:
            conflicts.append((other, contested))
        left = managed.difference(managed.difference(fields, contested), removed)
        if left:
            kept.append(other if left == fields else {**other, "fieldsV1": managed.intern(left)})
    if conflicts and not force:
        raise _conflict(conflicts)
    return kept


def _conflict(conflicts: list[tuple[Obj, Set]]) -> Exception:
    causes: list[Obj] = []
    lines: list[tuple[str, str]] = []
    for entry, fields in conflicts:
        who = f'conflict with "{entry.get("manager", "")}"'
        if entry.get("subresource"):
            who += f" with subresource {json_text(entry['subresource'])}"
        if entry.get("operation") == "Update":
            who += f" using {entry.get('apiVersion', '')}"
            if entry.get("time"):
                who += f" at {entry['time']}"
        for path in managed.members(fields):
            lines.append((who, field_path(path)))
            causes.append({"reason": "FieldManagerConflict", "message": who, "field": field_path(path)})
    count = len(lines)
    if count == 1:
        told = f"Apply failed with 1 conflict: {lines[0][0]}: {lines[0][1]}"
    else:
        told = f"Apply failed with {count} conflicts: "
        grouped: dict[str, list[str]] = {}
        for who, path_text in lines:
            grouped.setdefault(who, []).append(path_text)
        parts = [
            f"{'conflicts' if len(paths) > 1 else 'conflict'} {who.removeprefix('conflict ')}:"
            + (" " + paths[0] if len(paths) == 1 else "".join(f"\n- {one}" for one in paths))
            for who, paths in grouped.items()
        ]
        told += "\n".join(parts)
    return failure(409, "Conflict", told, {"causes": causes})


def json_text(value: str) -> str:
    return msgspec.json.encode(value).decode()


def field_path(path: tuple[str, ...]) -> str:
    """`.spec.containers[name="a"].image`"""
    text = ""
    for key in path:
        kind, _, rest = key.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = msgspec.json.decode(rest)
            text += (
                "["
                + ",".join(
                    f"{name}={json_text(value) if isinstance(value, str) else value}" for name, value in keys.items()
                )
                + "]"
            )
        elif kind == "v":
            text += f"[={rest}]"
    return text


def _pruned(struct: Struct | None, obj: Obj, gone: Set, owned: Set) -> Obj:
    """`obj` without the fields in `gone`; what holds an owned field stays."""
    made = dict(obj)
    for key, node in gone.items():
        name = key.removeprefix("f:")
        known = None if struct is None else struct.fields.get(name)
        if name in made:
            _prune_into(made, name, RAW if known is None else known.type, node, owned.get(key))
    return made


def _prune_into(made: Obj, name: str, kind: Type, node: Set, owned: Set | None) -> None:
    if not _children(node):
        if owned is None:
            del made[name]
        return
    value = _prune(kind, made[name], node, owned or {})
    if value in ({}, []) and owned is None:
        del made[name]
    else:
        made[name] = value


def _children(node: Set) -> Set:
    return {key: value for key, value in node.items() if key != "."}


def _prune(kind: Type, value: Any, node: Set, owned: Set) -> Any:
    if isinstance(value, dict):
        made = dict(value)
        for key, child in _children(node).items():
            name = key.removeprefix("f:")
            if key.startswith("f:") and name in made:
                _prune_into(made, name, child_type(kind, name), child, owned.get(key))
        return made
    if isinstance(value, list) and (kind.keys or kind.is_set):
        items = managed.keyed(kind, value)
        element = kind.element or RAW
        for key, child in _children(node).items():
            if key not in items:
                continue
            if managed.is_member(child) and key not in owned:
                del items[key]
            elif _children(child):
                items[key] = _prune(element, items[key], child, owned.get(key, {}))
        return list(items.values())
    return value
