"""Deployments: one ReplicaSet per template, rolled over. After pkg/controller/deployment/deployment_controller.go."""

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController
from opsapi.playground.controllers.deployment_status import is_complete, overdue_in, status_of, with_progress
from opsapi.playground.controllers.rollout import (
    DESIRED,
    MAX,
    REVISION,
    REVISION_HISTORY,
    Slice,
    fenceposts,
    proportions,
    scale_down_old,
    scale_up_to,
)
from opsapi.playground.registry import ApiError, Change, ChangeType, Obj

_SETS = "replicasets.apps"
_HASH = "pod-template-hash"
_NOT_COPIED = frozenset({"kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAX})


def _replicas(obj: Obj) -> int:
    return int(obj["spec"].get("replicas", 1))


def _revision(rs: Obj) -> int:
    text = (rs["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _slice(rs: Obj) -> Slice:
    return Slice(_replicas(rs), int(rs.get("status", {}).get("availableReplicas", 0)))


def _without_hash(template: Obj) -> Obj:
    meta = template.get("metadata") or {}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != _HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


class DeploymentController(ObjectController):
    name = "deployment"
    resource = "deployments.apps"
    kind = "Deployment"
    component = "deployment-controller"
    owned = (_SETS,)

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.registry.subscribe("pods", self._pod_gone)

    def _pod_gone(self, change: Change) -> None:
        """Recreate waits for the last old pod: only a deletion can end that wait."""
        if change.type is not ChangeType.DELETED:
            return
        owner = pods.controller_of(change.new)
        if owner is None or owner["kind"] != "ReplicaSet":
            return
        rs = self.registry.find(_SETS, change.new["metadata"]["namespace"], owner["name"])
        parent = pods.controller_of(rs) if rs is not None else None
        if parent is not None:
            self.queue.add(f"{change.new['metadata']['namespace']}/{parent['name']}")

    def sync(self, namespace: str, name: str) -> None:
        deployment = self.registry.find(self.resource, namespace, name)
        if deployment is None:
            return
        if pods.is_terminating(deployment):
            self._write_status(deployment)
            return
        deployment = self._note_pause(deployment)
        if deployment["spec"].get("paused") or self._is_resize(deployment):
            self._resize(deployment)
        elif (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            self._recreate(deployment)
        else:
            self._roll(deployment)
        self._write_status(self.registry.get(self.resource, namespace, name))

    def _sets(self, deployment: Obj) -> list[Obj]:
        """Its ReplicaSets, oldest first."""
        found = self.registry.by_owner(deployment["metadata"]["uid"], _SETS)
        return sorted(
            found, key=lambda rs: (rs["metadata"]["creationTimestamp"], _revision(rs), rs["metadata"]["name"])
        )

    def _split(self, deployment: Obj) -> tuple[Obj | None, list[Obj]]:
        """(the ReplicaSet of the present template, all others)."""
        template = _without_hash(deployment["spec"]["template"])
        sets = self._sets(deployment)
        new = next((rs for rs in sets if _without_hash(rs["spec"]["template"]) == template), None)
        return new, [rs for rs in sets if rs is not new]

    def _is_resize(self, deployment: Obj) -> bool:
        wanted = str(_replicas(deployment))
        return any(
            _replicas(rs) > 0 and (rs["metadata"].get("annotations") or {}).get(DESIRED, wanted) != wanted
            for rs in self._sets(deployment)
        )

    def _roll(self, deployment: Obj) -> None:
        new = self._ensure_new(deployment)
        old = [rs for rs in self._split(deployment)[1] if _replicas(rs) > 0]
        surge, unavailable = fenceposts(deployment)
        total = _replicas(new) + sum(_replicas(rs) for rs in old)
        size = scale_up_to(_replicas(deployment), surge, _slice(new), total)
        if size != _replicas(new):
            self._scale(deployment, new, size)
            return
        sizes = scale_down_old(_replicas(deployment), unavailable, _slice(new), [_slice(rs) for rs in old])
        for rs, wanted in zip(old, sizes, strict=True):
            self._scale(deployment, rs, wanted)
        self._clean_up(deployment)

    def _recreate(self, deployment: Obj) -> None:
        old = self._split(deployment)[1]
        for rs in old:
            self._scale(deployment, rs, 0)
        for rs in old:
            if any(not pods.is_finished(pod) for pod in self.registry.by_owner(rs["metadata"]["uid"], "pods")):
                return
        new = self._ensure_new(deployment)
        self._scale(deployment, new, _replicas(deployment))
        self._clean_up(deployment)

    def _resize(self, deployment: Obj) -> None:
        """A change of replicas alone, or any while paused: sizes change, no new template rolls out."""
        new, old = self._split(deployment)
        active = [rs for rs in [*old, *([new] if new else [])] if _replicas(rs) > 0]
        wanted = _replicas(deployment)
        if len(active) <= 1:
            target = active[0] if active else new or (old[-1] if old else None)
            if target is not None:
                self._scale(deployment, target, wanted)
            return
        if new is not None and _replicas(new) == wanted and _slice(new).available == wanted:
            for rs in old:
                self._scale(deployment, rs, 0)
            return
        surge, _ = fenceposts(deployment)
        allowed = wanted + surge if wanted else 0
        maxima = [int((rs["metadata"].get("annotations") or {}).get(MAX, _replicas(rs))) for rs in active]
        sizes = proportions([_replicas(rs) for rs in active], maxima, allowed)
        for rs, size in zip(active, sizes, strict=True):
            self._scale(deployment, rs, size)

    def _ensure_new(self, deployment: Obj) -> Obj:
        new, old = self._split(deployment)
        revision = max((_revision(rs) for rs in old), default=0) + 1
        if new is None:
            new = self._create(deployment, revision)
        else:
            revision = max(revision, _revision(new))
            new = self._annotate(deployment, new, revision)
        self._set_revision(deployment, _revision(new))
        return new

    def _create(self, deployment: Obj, revision: int) -> Obj:
        spec, meta = deployment["spec"], deployment["metadata"]
        collisions = int(deployment.get("status", {}).get("collisionCount", 0))
        digest = pods.template_hash(spec["template"], collisions)
        template_meta = spec["template"].get("metadata") or {}
        labels = {**(template_meta.get("labels") or {}), _HASH: digest}
        match = {**(spec["selector"].get("matchLabels") or {}), _HASH: digest}
        size = 0
        if (spec.get("strategy") or {}).get("type") != "Recreate":
            total = sum(_replicas(rs) for rs in self._sets(deployment))
            size = scale_up_to(_replicas(deployment), fenceposts(deployment)[0], Slice(0, 0), total)
        rs: Obj = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": self._annotations(deployment, {}, revision),
                "ownerReferences": [pods.owner_reference(deployment)],
            },
            "spec": {
                "replicas": size,
                "selector": {**spec["selector"], "matchLabels": match},
                "template": {**spec["template"], "metadata": {**template_meta, "labels": labels}},
            },
        }
        if spec.get("minReadySeconds"):
            rs["spec"]["minReadySeconds"] = spec["minReadySeconds"]
        created = self._post(deployment, rs)
        name = created["metadata"]["name"]
        if size:
            self.normal(deployment, "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
        self._note(deployment, "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        return created

    def _post(self, deployment: Obj, rs: Obj) -> Obj:
        meta = deployment["metadata"]
        try:
            return self.registry.create(_SETS, meta["namespace"], rs)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                status = {**deployment.get("status", {})}
                status["collisionCount"] = int(status.get("collisionCount", 0)) + 1
                self.registry.patch_status(self.resource, meta["namespace"], meta["name"], status)
            else:
                name = rs["metadata"]["name"]
                message = f'Failed to create new replica set "{name}": {error}'
                self._note(deployment, "False", "ReplicaSetCreateError", message)
                self.warning(deployment, "ReplicaSetCreateError", message)
            raise

    def _annotations(self, deployment: Obj, old: dict[str, str], revision: int) -> dict[str, str]:
        surge, _ = fenceposts(deployment)
        source = deployment["metadata"].get("annotations") or {}
        result = {**old, **{key: value for key, value in source.items() if key not in _NOT_COPIED}}
        former = old.get(REVISION, "")
        if former and former != str(revision):
            history = [item for item in old.get(REVISION_HISTORY, "").split(",") if item]
            result[REVISION_HISTORY] = ",".join([*history, former])
        result[DESIRED] = str(_replicas(deployment))
        result[MAX] = str(_replicas(deployment) + surge)
        result[REVISION] = str(revision)
        return result

    def _annotate(self, deployment: Obj, rs: Obj, revision: int) -> Obj:
        old = rs["metadata"].get("annotations") or {}
        annotations = self._annotations(deployment, old, revision)
        minimum = deployment["spec"].get("minReadySeconds", 0)
        if annotations == old and rs["spec"].get("minReadySeconds", 0) == minimum:
            return rs
        changed = {**rs, "metadata": {**rs["metadata"], "annotations": annotations}}
        if minimum or "minReadySeconds" in rs["spec"]:
            changed["spec"] = {**rs["spec"], "minReadySeconds": minimum}
        return self.registry.update(_SETS, rs["metadata"]["namespace"], rs["metadata"]["name"], changed)

    def _set_revision(self, deployment: Obj, revision: int) -> None:
        meta = self.registry.get(self.resource, deployment["metadata"]["namespace"], deployment["metadata"]["name"])
        annotations = meta["metadata"].get("annotations") or {}
        if annotations.get(REVISION) == str(revision):
            return
        changed = {**meta, "metadata": {**meta["metadata"], "annotations": {**annotations, REVISION: str(revision)}}}
        self.registry.update(self.resource, meta["metadata"]["namespace"], meta["metadata"]["name"], changed)

    def _scale(self, deployment: Obj, rs: Obj, size: int) -> None:
        """Sets a ReplicaSet's size and keeps its record of what the Deployment wanted."""
        old = _replicas(rs)
        annotations = rs["metadata"].get("annotations") or {}
        surge, _ = fenceposts(deployment)
        marks = {DESIRED: str(_replicas(deployment)), MAX: str(_replicas(deployment) + surge)}
        stale = any(annotations.get(key) != value for key, value in marks.items())
        if old == size and not (stale and size > 0):
            return
        meta = {**rs["metadata"], "annotations": {**annotations, **marks}}
        changed = {**rs, "metadata": meta, "spec": {**rs["spec"], "replicas": size}}
        self.registry.update(_SETS, meta["namespace"], meta["name"], changed)
        if old != size:
            direction = "up" if size > old else "down"
            message = f"Scaled {direction} replica set {meta['name']} from {old} to {size}"
            self.normal(deployment, "ScalingReplicaSet", message)

    def _clean_up(self, deployment: Obj) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit")
        if limit is None or not is_complete(deployment, deployment.get("status", {})):
            return
        idle = [
            rs
            for rs in self._split(deployment)[1]
            if _replicas(rs) == 0 and not rs.get("status", {}).get("replicas") and not pods.is_terminating(rs)
        ]
        idle.sort(key=_revision)
        for rs in idle[: max(0, len(idle) - int(limit))]:
            self.registry.delete(_SETS, rs["metadata"]["namespace"], rs["metadata"]["name"])

    def _note(self, deployment: Obj, status: str, reason: str, message: str) -> None:
        """Writes a Progressing condition at once."""
        meta = deployment["metadata"]
        current = self.registry.get(self.resource, meta["namespace"], meta["name"])
        new = {"type": "Progressing", "status": status, "reason": reason, "message": message}
        conditions = with_progress(current.get("status", {}).get("conditions") or [], new, self.cluster.stamp())
        self.registry.patch_status(
            self.resource, meta["namespace"], meta["name"], {**current.get("status", {}), "conditions": conditions}
        )

    def _note_pause(self, deployment: Obj) -> Obj:
        current = pods.condition(deployment, "Progressing")
        paused, reason = bool(deployment["spec"].get("paused")), (current or {}).get("reason")
        if paused == (reason == "DeploymentPaused") or reason == "ProgressDeadlineExceeded":
            return deployment
        if paused:
            self._note(deployment, "Unknown", "DeploymentPaused", "Deployment is paused")
        else:
            self._note(deployment, "Unknown", "DeploymentResumed", "Deployment is resumed")
        return self.registry.get(self.resource, deployment["metadata"]["namespace"], deployment["metadata"]["name"])

    def _write_status(self, deployment: Obj) -> None:
        meta = deployment["metadata"]
        new, old = self._split(deployment)
        every = [*old, *([new] if new else [])]
        status = status_of(deployment, new, every, self.clock.now(), self.cluster.stamp())
        self.registry.patch_status(self.resource, meta["namespace"], meta["name"], status)
        progressing = next((c for c in status["conditions"] if c["type"] == "Progressing"), None)
        wait = overdue_in(deployment, progressing, self.clock.now())
        if wait:
            self.queue.add_after(f"{meta['namespace']}/{meta['name']}", wait)
