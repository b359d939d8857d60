"""ControllerRevisions: the history that `rollout undo` of StatefulSets and DaemonSets goes back through.

After pkg/controller/history/controller_history.go.
"""

from opsapi.playground.controllers.pods import owner_reference, template_hash
from opsapi.playground.registry import Obj, Registry

RESOURCE = "controllerrevisions.apps"
_HASH = {"StatefulSet": "controller.kubernetes.io/hash", "DaemonSet": "controller-revision-hash"}
"""The label with a revision's hash, by the owner's kind."""


def revisions_of(registry: Registry, owner: Obj) -> list[Obj]:
    """Oldest first."""
    return sorted(registry.by_owner(owner["metadata"]["uid"], RESOURCE), key=lambda item: int(item["revision"]))


def ensure(registry: Registry, owner: Obj) -> Obj:
    """The revision of the owner's present template, made or moved to the end where it is an old one again."""
    template = owner["spec"]["template"]
    data = {"spec": {"template": {**template, "$patch": "replace"}}}
    known = revisions_of(registry, owner)
    last = int(known[-1]["revision"]) if known else 0
    for item in known:
        if item["data"] != data:
            continue
        if int(item["revision"]) == last:
            return item
        meta = item["metadata"]
        return registry.update(RESOURCE, meta["namespace"], meta["name"], {**item, "revision": last + 1})
    digest = template_hash(template)
    labels = (template.get("metadata") or {}).get("labels") or {}
    revision: Obj = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{owner['metadata']['name']}-{digest}",
            "namespace": owner["metadata"]["namespace"],
            "labels": {**labels, _HASH[owner["kind"]]: digest},
            "ownerReferences": [owner_reference(owner)],
        },
        "data": data,
        "revision": last + 1,
    }
    return registry.create(RESOURCE, owner["metadata"]["namespace"], revision)


def template_of(revision: Obj) -> Obj:
    return {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}


def prune(registry: Registry, owner: Obj, in_use: set[str]) -> None:
    """Deletes the oldest beyond revisionHistoryLimit; those `in_use` (names) do not count and stay."""
    limit = int(owner["spec"].get("revisionHistoryLimit", 10))
    idle = [item for item in revisions_of(registry, owner) if item["metadata"]["name"] not in in_use]
    for item in idle[: max(0, len(idle) - limit)]:
        registry.delete(RESOURCE, item["metadata"]["namespace"], item["metadata"]["name"])
