"""Which level of the Pod Security Standards a pod template satisfies, and by which fields it misses the others.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ as of Kubernetes 1.34; control ids are those of
Kubernetes' Pod Security admission.
"""

from dataclasses import dataclass

from opsapi.playbooks.scanning.controls import Control, Violation
from opsapi.playbooks.scanning.controls_host import HOST_CONTROLS
from opsapi.playbooks.scanning.controls_kernel import KERNEL_CONTROLS
from opsapi.playbooks.scanning.controls_privileges import PRIVILEGE_CONTROLS
from opsapi.playbooks.scanning.controls_volumes import VOLUME_CONTROLS
from opsapi.playbooks.scanning.model import (
    Category,
    Evidence,
    Finding,
    Level,
    Source,
    Where,
    finding_id,
    shown,
)
from opsapi.playbooks.scanning.pods import PlacedPod

CONTROLS = (*HOST_CONTROLS, *PRIVILEGE_CONTROLS, *KERNEL_CONTROLS, *VOLUME_CONTROLS)
_BASELINE = tuple(control for control in CONTROLS if control.level is Level.BASELINE)
_RESTRICTED = tuple(control for control in CONTROLS if control.level is Level.RESTRICTED)


@dataclass(frozen=True, slots=True)
class Assessment:
    level: Level
    violated: tuple[tuple[Control, Violation], ...]


def assess(pod: PlacedPod) -> Assessment:
    """A field that a baseline control names already is not named again by a restricted one."""
    baseline = [(control, found) for control in _BASELINE for found in control.check(pod)]
    restricted = [(control, found) for control in _RESTRICTED for found in control.check(pod)]
    level = Level.PRIVILEGED if baseline else Level.BASELINE if restricted else Level.RESTRICTED
    named = {field for _, found in baseline for field in found.fields}
    more = []
    for control, found in restricted:
        fields = {field: value for field, value in found.fields.items() if field not in named}
        if fields:
            more.append((control, Violation(found.container, fields)))
    return Assessment(level, (*baseline, *more))


def pod_findings(workspace_id: str, where: Where, assessment: Assessment) -> list[Finding]:
    """One a control and container (or the pod itself)."""
    found: dict[str, Finding] = {}
    for control, violation in assessment.violated:
        place = Where(kind=where.kind, namespace=where.namespace, name=where.name, container=violation.container)
        identity = finding_id(workspace_id, Category.POD_SECURITY, control.id, place)
        evidence = tuple(Evidence(field, shown(value)) for field, value in violation.fields.items())
        earlier = found.get(identity)
        found[identity] = Finding(
            id=identity,
            check=control.id,
            category=Category.POD_SECURITY,
            severity=control.severity,
            source=Source.OPSAPI,
            resource=place,
            title=f"{control.name}: not allowed at level {control.level}",
            evidence=evidence if earlier is None else (*earlier.evidence, *evidence),
            remediation=control.remediation,
            level=control.level,
        )
    return list(found.values())
