"""Which pods are a workload's, told from their names alone: measurements outlive the objects that owned them."""

import re
from functools import lru_cache

from opsapi.telemetry.model import WorkloadSelector

_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
"""What Kubernetes draws names from (k8s.io/apimachinery/pkg/util/rand: no vowels, nothing that looks alike)."""
_RANDOM = 5
_LONGEST = 63 - _RANDOM
"""Longer bases of generated names are cut (apiserver/pkg/storage/names)."""


def pod_pattern(kind: str, name: str) -> str:
    """A regular expression in the syntax that RE2 and Python share; it has to match the whole name.

    A ReplicaSet's pods are `NAME-RANDOM`, a Deployment's `NAME-HASH-RANDOM`, a CronJob's `NAME-MINUTES-RANDOM`, a
    StatefulSet's `NAME-ORDINAL`.
    """
    literal = re.escape(name)
    match kind:
        case "Pod":
            return literal
        case "StatefulSet":
            return rf"{literal}-[0-9]+"
        case "Deployment":
            return _generated(name, rf"-{_SAFE}{{1,10}}-", 12)
        case "CronJob":
            return _generated(name, r"-[0-9]{1,10}-", 12)
        case _:
            return _generated(name, "-", 1)


def _generated(name: str, between: str, longest: int) -> str:
    """Where the base may be cut, what is left of it is any text of the alphabet."""
    random = f"{_SAFE}{{{_RANDOM}}}"
    if len(name) + longest <= _LONGEST:
        return re.escape(name) + between + random
    kept = name[:_LONGEST]
    return f"{re.escape(kept)}[a-z0-9-]{{0,{_LONGEST - len(kept)}}}{random}"


def pods_pattern(workload: WorkloadSelector) -> str:
    """The names given, or any that the workload's controller makes."""
    return "|".join([*map(re.escape, workload.pods), pod_pattern(workload.kind, workload.name)])


@lru_cache(maxsize=1024)
def _compiled(workload: WorkloadSelector) -> re.Pattern[str]:
    return re.compile(pods_pattern(workload))


def is_pod_of(workload: WorkloadSelector, pod: str) -> bool:
    return _compiled(workload).fullmatch(pod) is not None
