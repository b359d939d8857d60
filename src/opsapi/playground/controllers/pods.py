"""What controllers ask of pods: whether they count, in which order they go, and how one is made from a template.

After k8s.io/kubernetes/pkg/controller/controller_utils.go.
"""

import json
import random
from datetime import datetime
from functools import lru_cache
from typing import Any

from opsapi.kit.clock import parse_rfc3339
from opsapi.playground.registry import Obj

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""k8s.io/apimachinery/pkg/util/rand: no vowels and no look-alikes, so that no word comes out by chance."""


@lru_cache(maxsize=65536)
def parse_time(stamp: str) -> datetime:
    return parse_rfc3339(stamp)


def suffix(rng: random.Random) -> str:
    """Five characters, as generateName appends them."""
    return "".join(_SAFE[rng.randrange(len(_SAFE))] for _ in range(5))


def template_hash(template: Obj, collision_count: int = 0) -> str:
    """FNV-1a (32 bits) of the canonical template, in Kubernetes' safe alphabet.

    The real one hashes Go's dump of the struct, so the values differ; equal templates give equal hashes in both.
    """
    data = json.dumps(template, sort_keys=True, separators=(",", ":")).encode()
    if collision_count:
        data += collision_count.to_bytes(4, "little")
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(value))


def owner_reference(owner: Obj) -> Obj:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Obj) -> Obj | None:
    """The ownerReference with controller=true."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def from_template(template: Obj, owner: Obj, name: str, generate_name: str = "", **labels: str) -> Obj:
    """A pod that `owner` controls; its spec is the template's own dict, shared and never to be mutated."""
    source: Obj = template.get("metadata") or {}
    meta: Obj = {"name": name, "namespace": owner["metadata"]["namespace"]}
    if generate_name:
        meta["generateName"] = generate_name
    meta["labels"] = {**(source.get("labels") or {}), **labels}
    if source.get("annotations"):
        meta["annotations"] = source["annotations"]
    if source.get("finalizers"):
        meta["finalizers"] = source["finalizers"]
    meta["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


def phase(pod: Obj) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def condition(obj: Obj, kind: str) -> Obj | None:
    for item in obj.get("status", {}).get("conditions") or []:
        if item["type"] == kind:
            return dict(item)
    return None


def is_ready(pod: Obj) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def is_terminating(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_finished(pod: Obj) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    return not is_finished(pod) and not is_terminating(pod)


def available_in(pod: Obj, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the pod counts as available: 0 where it does, None where it is not ready."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return None
    if min_ready_seconds == 0:
        return 0.0
    since = (now - parse_time(found["lastTransitionTime"])).total_seconds()
    return max(0.0, min_ready_seconds - since)


def restarts(pod: Obj) -> int:
    statuses: list[Any] = pod.get("status", {}).get("containerStatuses") or []
    return max((int(status.get("restartCount", 0)) for status in statuses), default=0)


_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


def deletion_rank(pod: Obj, peers_on_node: int) -> tuple[Any, ...]:
    """Sorts what a ReplicaSet deletes first to the front (ActivePodsWithRanks)."""
    ready = condition(pod, "Ready")
    ready_since = ready["lastTransitionTime"] if ready is not None and ready["status"] == "True" else ""
    cost = int((pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0"))
    return (
        bool(pod["spec"].get("nodeName")),
        _PHASE_RANK.get(phase(pod), 0),
        bool(ready_since),
        cost,
        -peers_on_node,
        _newest_first(ready_since),
        -restarts(pod),
        _newest_first(pod["metadata"].get("creationTimestamp", "")),
        pod["metadata"]["name"],
    )


def _newest_first(stamp: str) -> float:
    return -parse_time(stamp).timestamp() if stamp else 0.0
