"""Small operations on objects' metadata. Everything returns new dicts and shares what did not change."""

from opsapi.playground.registry import Obj

_CLIENT_METADATA = ("name", "generateName", "namespace", "labels", "annotations", "ownerReferences", "finalizers")
_ORDER = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
)


def ordered(meta: Obj) -> Obj:
    return {name: meta[name] for name in _ORDER if name in meta and meta[name] not in (None, "", {}, [])}


def fresh_metadata(sent: Obj, namespace: str, now: str) -> Obj:
    """What a create keeps of the metadata that a client sent."""
    meta = {name: sent[name] for name in _CLIENT_METADATA if sent.get(name)}
    meta.pop("namespace", None)
    if namespace:
        meta["namespace"] = namespace
    meta["creationTimestamp"] = now
    return meta


def carried_metadata(sent: Obj, old: Obj) -> Obj:
    """What an update keeps: the client's labels and the like, the server's identity and deletion marks."""
    meta = {name: sent[name] for name in _CLIENT_METADATA if sent.get(name)}
    for name in (
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ):
        if name in old:
            meta[name] = old[name]
        else:
            meta.pop(name, None)
    for name in ("labels", "annotations", "ownerReferences", "finalizers"):
        if name in meta and meta[name] == old.get(name):
            meta[name] = old[name]
    entries = [entry for entry in sent.get("managedFields") or [] if entry]
    if "managedFields" in sent and all(_is_ownership(entry.get("fieldsV1", {})) for entry in entries):
        meta["managedFields"] = entries
    elif "managedFields" in old:
        meta["managedFields"] = old["managedFields"]
    return ordered(meta)


def _is_ownership(fields: object) -> bool:
    """Whether somebody's FieldsV1 is a tree of fields at all; what is not is ignored, as real servers do."""
    return isinstance(fields, dict) and all(_is_ownership(inner) for inner in fields.values())


def stamp_identity(obj: Obj, uid: str, generation: int | None) -> None:
    meta = obj["metadata"]
    meta.setdefault("uid", uid)
    if generation:
        meta["generation"] = generation
    obj["metadata"] = ordered(meta)


def with_version(obj: Obj, version: str) -> Obj:
    return {**obj, "metadata": ordered({**obj["metadata"], "resourceVersion": version})}


def same_but_for_version(new: Obj, old: Obj) -> bool:
    """Whether a write would change nothing; field ownership's times alone are no change."""
    if new.keys() != old.keys():
        return False
    for key, value in new.items():
        if key == "metadata":
            ours = {k: v for k, v in value.items() if k not in ("resourceVersion", "managedFields")}
            theirs = {k: v for k, v in old["metadata"].items() if k not in ("resourceVersion", "managedFields")}
            if ours != theirs or not _same_ownership(value, old["metadata"]):
                return False
        elif value is not old[key] and value != old[key]:
            return False
    return True


def _same_ownership(new: Obj, old: Obj) -> bool:
    ours, theirs = new.get("managedFields"), old.get("managedFields")
    if ours is theirs or ours == theirs:
        return True
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    return all(
        {k: v for k, v in a.items() if k != "time"} == {k: v for k, v in b.items() if k != "time"}
        for a, b in zip(ours, theirs, strict=True)
    )


def same_workload(new: Obj, old: Obj) -> bool:
    """Whether a pod's containers and volumes are the stored ones, which have their defaults."""
    if new["kind"] != "Pod":
        return False
    ours, theirs = new.get("spec") or {}, old.get("spec") or {}
    return all(ours.get(name) is theirs.get(name) for name in ("containers", "initContainers", "volumes"))


def share(new: Obj, old: Obj) -> None:
    """Lets `new` refer to the parts of `old` that it repeats, so that versions of one object share their memory."""
    for name, value in new.items():
        before = old.get(name)
        if value is before or name == "metadata":
            continue
        if value == before:
            new[name] = before
        elif name == "spec" and isinstance(value, dict) and isinstance(before, dict):
            new[name] = {
                key: before[key] if key in before and one == before[key] else one for key, one in value.items()
            }


def ready_to_go(new: Obj, old: Obj) -> bool:
    """A terminating object whose last finalizer this update takes away, with no grace period left to wait for."""
    meta = new["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    if new["kind"] == "Namespace" and new["apiVersion"] == "v1":
        return not (new.get("spec") or {}).get("finalizers")
    return bool(old["metadata"].get("finalizers"))
