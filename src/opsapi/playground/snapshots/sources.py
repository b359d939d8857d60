"""What a claim's data source gives its new volume. After kubernetes-csi/external-provisioner."""

from opsapi.kit.quantity import whole
from opsapi.playground.disks import EMPTY, Contents, Disks
from opsapi.playground.registry import Obj, Registry

_SNAPSHOTS = "volumesnapshots.snapshot.storage.k8s.io"
_CONTENTS = "volumesnapshotcontents.snapshot.storage.k8s.io"


class SourceError(Exception):
    """The volume cannot be provisioned yet; the text is the provisioner's."""


def contents_of_source(registry: Registry, disks: Disks, claim: Obj) -> Contents:
    """What the claim's volume begins with. Raises SourceError."""
    source = claim["spec"].get("dataSource")
    if not source:
        return EMPTY
    if source["kind"] == "VolumeSnapshot":
        return _of_snapshot(registry, disks, claim, source["name"])
    return _of_claim(registry, disks, claim, source["name"])


def _of_snapshot(registry: Registry, disks: Disks, claim: Obj, name: str) -> Contents:
    head = f"error getting handle for DataSource Type VolumeSnapshot by Name {name}: "
    found = registry.find(_SNAPSHOTS, claim["metadata"]["namespace"], name)
    if found is None:
        why = f"error getting snapshot {name} from api server: "
        raise SourceError(head + why + f'volumesnapshots.snapshot.storage.k8s.io "{name}" not found')
    status = found.get("status") or {}
    if not status.get("readyToUse"):
        raise SourceError(f"{head}snapshot {name} is not Ready")
    content = registry.find(_CONTENTS, "", status.get("boundVolumeSnapshotContentName", ""))
    taken = disks.snapshot(((content or {}).get("status") or {}).get("snapshotHandle", ""))
    if taken is None:
        raise SourceError(f"{head}snapshot {name} not bound")
    wanted = whole(str(claim["spec"]["resources"]["requests"]["storage"]))
    if wanted < taken.size:
        why = f"requested volume size {wanted} is less than the size {taken.size} for the source snapshot {name}"
        raise SourceError(head + why)
    return taken.contents


def _of_claim(registry: Registry, disks: Disks, claim: Obj, name: str) -> Contents:
    head = f"error getting handle for DataSource Type PersistentVolumeClaim by Name {name}: "
    found = registry.find("persistentvolumeclaims", claim["metadata"]["namespace"], name)
    if found is None:
        raise SourceError(f'{head}error getting PVC {name} from api server: persistentvolumeclaims "{name}" not found')
    volume = registry.find("persistentvolumes", "", found["spec"].get("volumeName", ""))
    if volume is None or "csi" not in volume["spec"]:
        raise SourceError(f"{head}claim in dataSource not bound or invalid")
    return disks.contents(volume["spec"]["csi"]["volumeHandle"])
