"""The finalizers by which snapshots hold each other, their contents and their claims."""

from opsapi.playground.registry import Obj, Registry

AS_SOURCE = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
CONTENT_BOUND = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
CLAIM_AS_SOURCE = "snapshot.storage.kubernetes.io/pvc-as-source-protection"


def add_finalizers(registry: Registry, resource: str, obj: Obj, *names: str) -> Obj:
    held = obj["metadata"].get("finalizers") or []
    missing = [name for name in names if name not in held]
    return _with(registry, resource, obj, [*held, *missing]) if missing else obj


def drop_finalizers(registry: Registry, resource: str, obj: Obj, *names: str) -> None:
    held = obj["metadata"].get("finalizers") or []
    kept = [name for name in held if name not in names]
    if kept != held:
        _with(registry, resource, obj, kept)


def _with(registry: Registry, resource: str, obj: Obj, finalizers: list[str]) -> Obj:
    meta = obj["metadata"]
    current = registry.get(resource, meta.get("namespace", ""), meta["name"])
    changed = {**current, "metadata": {**current["metadata"], "finalizers": finalizers}}
    return registry.update(resource, meta.get("namespace", ""), meta["name"], changed)
