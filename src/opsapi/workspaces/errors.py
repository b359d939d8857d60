"""What can be wrong with a workspace, as its callers are told."""

from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails, ValidationFailed


class WorkspaceNotFound(ResourceNotFound):
    """Also for a workspace that the caller may not see."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__("workspace", workspace_id)


class UnusableKubeconfig(ValidationFailed):
    """An uploaded kubeconfig that breaks the rules; `fields` maps each offending key to the rule, never to a value."""


class WorkspaceExists(InvalidState):
    def __init__(self, workspace_id: str) -> None:
        super().__init__(
            f"Workspace {workspace_id!r} is already registered; choose another id or remove it first",
            StateDetails(resource_id=workspace_id, state="registered"),
        )


class RegisteredInConfig(InvalidState):
    def __init__(self, workspace_id: str) -> None:
        super().__init__(
            f"Workspace {workspace_id!r} is registered in the service's configuration file, under `workspaces`; "
            "remove it there and restart the service",
            StateDetails(resource_id=workspace_id, state="registered_in_config"),
        )


class UnreadableCredentials(Exception):
    """Stored credentials that no configured key opens: the key was lost or the row was altered."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__(f"no configured key opens the credentials of workspace {workspace_id!r}")
        self.workspace_id = workspace_id
