"""Which of a pod's containers is the application's own."""

from collections.abc import Sequence

from opsapi.workspaces.objects import Container


def main_container(application: str, containers: Sequence[Container]) -> Container | None:
    """The one named like the application, else the first (as kubectl does); None without any."""
    return next((c for c in containers if c.name == application), containers[0] if containers else None)
