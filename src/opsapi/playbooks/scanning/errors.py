"""What can be wrong when findings are asked for."""

from opsapi.kit.errors import ResourceDetails, ResourceNotFound


class NoScan(ResourceNotFound):
    """Nothing was looked at yet, which is not the same as nothing found."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__("security scan", workspace_id)
        self.message = f"No security scan of workspace {workspace_id!r} that covers what it is now has ended yet"
        self.details = ResourceDetails(
            resource_type="security scan",
            resource_id=workspace_id,
            alternatives=[f"POST /internal/v1/workspaces/{workspace_id}/operations with operation security_scan"],
        )
