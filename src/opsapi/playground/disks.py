"""The storage system behind the playground's CSI driver: what volumes and snapshots hold, as a checksum and a count.

Nothing is stored but the proof: two volumes with the same checksum have seen the same writes in the same order.
"""

import hashlib
from dataclasses import dataclass

DRIVER = "csi.playground.opsapi.dev"


@dataclass(frozen=True, slots=True)
class Contents:
    """`checksum` is SHA-256 (hex) over all writes in their order; `revision` counts them."""

    revision: int = 0
    checksum: str = hashlib.sha256(b"").hexdigest()

    def after(self, text: str) -> "Contents":
        digest = hashlib.sha256(f"{self.checksum}\n{text}".encode()).hexdigest()
        return Contents(self.revision + 1, digest)


EMPTY = Contents()


@dataclass(frozen=True, slots=True)
class DiskSnapshot:
    """What a volume held at one moment; `size` in bytes."""

    source: str
    contents: Contents
    size: int
    taken_at: float


class Disks:
    """By volume handle and by snapshot handle. A volume that was never written to is empty, not unknown."""

    def __init__(self) -> None:
        self._volumes: dict[str, Contents] = {}
        self._snapshots: dict[str, DiskSnapshot] = {}

    def contents(self, handle: str) -> Contents:
        return self._volumes.get(handle, EMPTY)

    def write(self, handle: str, text: str) -> Contents:
        made = self._volumes[handle] = self.contents(handle).after(text)
        return made

    def fill(self, handle: str, contents: Contents) -> None:
        """A new volume that begins with the contents of a snapshot or of another volume."""
        self._volumes[handle] = contents

    def delete(self, handle: str) -> None:
        self._volumes.pop(handle, None)

    def take(self, snapshot: str, source: str, size: int, now: float) -> DiskSnapshot:
        """The snapshot of that handle: taken now, or the one that has been taken before (as CSI's call repeats)."""
        found = self._snapshots.get(snapshot)
        if found is None:
            found = self._snapshots[snapshot] = DiskSnapshot(source, self.contents(source), size, now)
        return found

    def snapshot(self, handle: str) -> DiskSnapshot | None:
        return self._snapshots.get(handle)

    def delete_snapshot(self, handle: str) -> None:
        self._snapshots.pop(handle, None)

    def snapshots(self) -> dict[str, DiskSnapshot]:
        return dict(self._snapshots)
