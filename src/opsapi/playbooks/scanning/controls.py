"""What a control of the Pod Security Standards is. Ids are those of Kubernetes' own checks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from opsapi.playbooks.scanning.model import Level, Severity
from opsapi.playbooks.scanning.pods import PlacedPod


@dataclass(frozen=True, slots=True)
class Violation:
    """Of one container, or with `container` None of the pod itself: the failing fields by JSONPath."""

    container: str | None
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Control:
    """`level` is the level that asks for it, `name` its heading in the Kubernetes documentation."""

    id: str
    name: str
    level: Level
    severity: Severity
    remediation: str
    check: Callable[[PlacedPod], Iterable[Violation]]


def violations(container: str | None, fields: Mapping[str, object]) -> Iterable[Violation]:
    """None for no failing field."""
    if fields:
        yield Violation(container, fields)
