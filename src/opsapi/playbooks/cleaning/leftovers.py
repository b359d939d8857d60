"""What may go, by what the cluster's objects say of themselves. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from opsapi.kit.duration import parse_duration
from opsapi.playbooks.cleaning.model import (
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    EXPIRING,
    JOBS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    VOLUMES,
    Category,
    Leftover,
    Limits,
)
from opsapi.playbooks.cleaning.references import kept, mentioned, references
from opsapi.workspaces.writing import JsonObject, Resource

TTL = "janitor/ttl"
EXPIRES = "janitor/expires"
_REVISION = "deployment.kubernetes.io/revision"
_REPLACING = frozenset({"ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"})
"""Controllers that have long replaced a pod of theirs that has ended."""
_MANAGED = ("argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/")


class World(msgspec.Struct, frozen=True):
    """Everything that was read; a kind that could not be is absent. `referrers`: whether all kinds that may refer to
    ConfigMaps and Secrets are among it."""

    objects: Mapping[Resource, Sequence[JsonObject]]
    now: datetime
    referrers: bool

    def of(self, resource: Resource) -> Sequence[JsonObject]:
        return self.objects.get(resource, ())


def leftovers(world: World, limits: Limits) -> list[Leftover]:
    """Each object once, the oldest first; what Git owns, or a finalizer or a person protects, is not among it."""
    found = [
        *_jobs(world, limits),
        *_pods(world, limits),
        *_replica_sets(world, limits),
        *_unreferenced(world, limits),
        *_volumes(world),
    ]
    expired = _expired(world)
    gone = {one.uid for one in expired}
    every = [*expired, *(one for one in found if one.uid not in gone)]
    return sorted(every, key=lambda one: (-one.age_seconds, one.place))


def _jobs(world: World, limits: Limits) -> Iterable[Leftover]:
    for held in world.of(JOBS):
        if _untouchable(held) or held["metadata"].get("ownerReferences"):
            continue  # a CronJob keeps as many of its Jobs as it is told to
        ended, word = _job_end(held)
        if ended is not None and _age(world, ended) >= limits.job_age_seconds:
            yield _leftover(world, Category.COMPLETED_JOB, held, ended, f"the Job {word} at {_text(ended)}")


def _job_end(held: JsonObject) -> tuple[datetime | None, str]:
    status = held.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            word = "completed" if condition["type"] == "Complete" else "failed"
            return moment(status.get("completionTime") or condition.get("lastTransitionTime")), word
    return None, ""


def _pods(world: World, limits: Limits) -> Iterable[Leftover]:
    for held in world.of(PODS):
        status = held.get("status") or {}
        if status.get("phase") not in ("Succeeded", "Failed") or _untouchable(held):
            continue
        owner = next((one for one in held["metadata"].get("ownerReferences") or () if one.get("controller")), None)
        if owner is not None and owner.get("kind") not in _REPLACING:
            continue  # a Job's pods go with their Job, others' as their controllers decide
        ended = _pod_end(held)
        if ended is not None and _age(world, ended) >= limits.pod_age_seconds:
            word = status.get("reason") or status["phase"]
            yield _leftover(world, Category.COMPLETED_POD, held, ended, f"the Pod has ended ({word}) at {_text(ended)}")


def _pod_end(held: JsonObject) -> datetime | None:
    """When its last container ended; where no status tells, when it began."""
    status = held.get("status") or {}
    ends = [
        moment(((one.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for one in status.get("containerStatuses") or ()
    ]
    known = [end for end in ends if end is not None]
    return max(known) if known else moment(status.get("startTime") or held["metadata"].get("creationTimestamp"))


def _replica_sets(world: World, limits: Limits) -> Iterable[Leftover]:
    """Those of a Deployment beyond its history limit (or a lower one that was asked for), that hold no pod."""
    deployments = {held["metadata"]["uid"]: held for held in world.of(DEPLOYMENTS)}
    by_owner: dict[str, list[JsonObject]] = {}
    for held in world.of(REPLICA_SETS):
        owner = next((one for one in held["metadata"].get("ownerReferences") or () if one.get("controller")), None)
        if owner is not None and owner.get("uid") in deployments:
            by_owner.setdefault(owner["uid"], []).append(held)
    for uid, sets in by_owner.items():
        own = deployments[uid]["spec"].get("revisionHistoryLimit", 10)
        keep = own if limits.revision_history_limit is None else min(own, limits.revision_history_limit)
        ordered = sorted(sets, key=_revision)
        # The newest revision is the Deployment's present; its history is what came before.
        past = [held for held in ordered[:-1] if _empty(held)]
        for held in past[: max(0, len(past) - keep)]:
            made = moment(held["metadata"].get("creationTimestamp"))
            if made is not None and not _untouchable(held):
                name = deployments[uid]["metadata"]["name"]
                why = f"revision {_revision(held)} of {name} is beyond the {keep} that are kept"
                yield _leftover(world, Category.OLD_REPLICA_SET, held, made, why)


def _revision(held: JsonObject) -> int:
    number = (held["metadata"].get("annotations") or {}).get(_REVISION, "0")
    return int(number) if number.isdecimal() else 0


def _empty(held: JsonObject) -> bool:
    return not (held.get("spec") or {}).get("replicas") and not (held.get("status") or {}).get("replicas")


def _unreferenced(world: World, limits: Limits) -> Iterable[Leftover]:
    if not world.referrers:
        return
    every = [held for listed in world.objects.values() for held in listed]
    referred, words = references(every), mentioned(every)
    for resource in (CONFIG_MAPS, SECRETS):
        for held in world.of(resource):
            meta = held["metadata"]
            made = moment(meta.get("creationTimestamp"))
            named = (resource.kind, meta["namespace"], meta["name"]) in referred
            if named or (meta["namespace"], meta["name"]) in words or kept(held) or _untouchable(held) or made is None:
                continue
            if _age(world, made) < limits.unreferenced_age_seconds:
                continue
            place = f"{resource.kind}/{meta['namespace']}/{meta['name']}"
            asked = place in limits.delete
            why = "nothing refers to it" + ("" if asked else "; it is deleted only when it is named, and approved")
            yield _leftover(world, Category.UNREFERENCED, held, made, why, deletes=asked)


def _volumes(world: World) -> Iterable[Leftover]:
    """Reported, never deleted: they hold data."""
    for held in world.of(VOLUMES):
        phase = (held.get("status") or {}).get("phase")
        made = moment(held["metadata"].get("creationTimestamp"))
        if phase in ("Released", "Available", "Failed") and made is not None:
            why = f"the PersistentVolume is {phase}; volumes are never deleted"
            yield _leftover(world, Category.UNUSED_VOLUME, held, made, why, deletes=False)
    mounted = {
        (pod["metadata"].get("namespace", ""), (volume.get("persistentVolumeClaim") or {}).get("claimName", ""))
        for pod in world.of(PODS)
        for volume in (pod.get("spec") or {}).get("volumes") or ()
    }
    for held in world.of(CLAIMS) if PODS in world.objects else ():
        meta = held["metadata"]
        made = moment(meta.get("creationTimestamp"))
        if (meta["namespace"], meta["name"]) not in mounted and made is not None:
            why = "no pod mounts the PersistentVolumeClaim; claims are never deleted"
            yield _leftover(world, Category.UNUSED_VOLUME, held, made, why, deletes=False)


def _expired(world: World) -> list[Leftover]:
    """Past what they say of themselves, as kube-janitor reads it (https://codeberg.org/hjacobs/kube-janitor). What a
    controller owns would come again, and is its owner's."""
    found = []
    for resource in EXPIRING:
        for held in world.of(resource):
            at, why = expiry(held)
            if at is None or at > world.now or _untouchable(held) or held["metadata"].get("ownerReferences"):
                continue
            found.append(_leftover(world, Category.EXPIRED, held, at, why))
    return found


def expiry(held: JsonObject) -> tuple[datetime | None, str]:
    """When the object says that it is to go, and in which words; (None, "") where it does not say, or not readably."""
    annotations = held["metadata"].get("annotations") or {}
    expires = moment(annotations.get(EXPIRES))
    if expires is not None:
        return expires, f"{EXPIRES} is {annotations[EXPIRES][:40]}"
    made = moment(held["metadata"].get("creationTimestamp"))
    ttl = annotations.get(TTL, "")
    if made is None or not ttl or ttl == "forever":
        return None, ""
    try:
        return made + parse_duration(ttl), f"{TTL} is {ttl[:40]}, counted from its creation"
    except ValueError:
        return None, ""


def moment(text: object) -> datetime | None:
    """RFC 3339, or a date with or without minutes as kube-janitor allows; UTC where no offset is given."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _untouchable(held: JsonObject) -> bool:
    """On its way out already, held by a finalizer, or kept as it is in Git."""
    meta = held["metadata"]
    if meta.get("deletionTimestamp") or meta.get("finalizers"):
        return True
    marks = [*(meta.get("labels") or {}), *(meta.get("annotations") or {})]
    return any(mark.startswith(_MANAGED) for mark in marks)


def _leftover(
    world: World, category: Category, held: JsonObject, since: datetime, why: str, *, deletes: bool = True
) -> Leftover:
    meta = held["metadata"]
    return Leftover(
        category=category,
        kind=held["kind"],
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        uid=meta["uid"],
        why=why,
        age_seconds=_age(world, since),
        deletes=deletes,
    )


def _age(world: World, since: datetime) -> float:
    return (world.now - since).total_seconds()


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
