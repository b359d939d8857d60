"""Pod Security Standards: which kinds of volumes the restricted level allows."""

from collections.abc import Iterable

from opsapi.playbooks.scanning.controls import Control, Violation, violations
from opsapi.playbooks.scanning.model import Level, Severity
from opsapi.playbooks.scanning.pods import PlacedPod

ALLOWED_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)


def _kinds(pod: PlacedPod) -> Iterable[Violation]:
    fields = {}
    for place, volume in enumerate(pod.spec.volumes):
        for kind in sorted(volume.keys() - ALLOWED_VOLUMES - {"name"}):
            # hostPath is named like the baseline's control names it, so that it is not told twice.
            field = f"volumes[{place}].hostPath.path" if kind == "hostPath" else f"volumes[{place}].{kind}"
            fields[pod.at(field)] = volume.get("name")
    return violations(None, fields)


VOLUME_CONTROLS = (
    Control(
        "restrictedVolumes",
        "Volume Types",
        Level.RESTRICTED,
        Severity.LOW,
        "Use only " + ", ".join(sorted(ALLOWED_VOLUMES)) + " volumes.",
        _kinds,
    ),
)
