"""Who wrote a field, from the object's managedFields. Pure.

Format: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET

from opsapi.workspaces.objects import ManagedField

_NEVER = datetime.min.replace(tzinfo=UTC)
REPLICAS = ("f:spec", "f:replicas")


def writer_of(managed: Sequence[ManagedField], path: Sequence[str]) -> ManagedField | None:
    """The newest entry that owns the field at `path` (`("f:spec", "f:replicas")`) or something below or right above
    it; None where nobody does, or managedFields are not kept."""
    owners = [entry for entry in managed if _owns(entry, path)]
    return max(owners, key=lambda entry: entry.time or _NEVER) if owners else None


def _owns(entry: ManagedField, path: Sequence[str]) -> bool:
    if entry.fields_v1 is UNSET:
        return False
    try:
        fields: Any = msgspec.json.decode(entry.fields_v1)
    except msgspec.DecodeError:
        return False
    for key in path:
        if not isinstance(fields, dict):
            return False
        if key not in fields:
            return fields == {}  # an empty set below a key stands for the whole value
        fields = fields[key]
    return True


def container_path(name: str, *fields: str) -> tuple[str, ...]:
    """Of a field of one container of a pod template."""
    key = "k:" + msgspec.json.encode({"name": name}).decode()
    return ("f:spec", "f:template", "f:spec", "f:containers", key, *fields)
