"""What can be wrong with a workspace, as its callers are told."""

from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails, ValidationFailed


class WorkspaceNotFound(ResourceNotFound):
    """Also for a workspace that the caller may not see."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__("workspace", workspace_id)


class UnusableKubeconfig(ValidationFailed):
    """An uploaded kubeconfig that breaks the rules; `fields` maps each offending key to the rule, never to a value."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields)
        self.fields = fields

    def under(self, field: str) -> "UnusableKubeconfig":
        """The same, with the keys' paths below the request's field."""
        return UnusableKubeconfig(
            {path if path == field else f"{field}.{path}": why for path, why in self.fields.items()}
        )


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


class NoEncryptionKey(InvalidState):
    def __init__(self, workspace_id: str) -> None:
        super().__init__(
            "Workspaces can only be registered in the configuration file until `keys.encryption` is set: without a key "
            "their credentials could not be stored",
            StateDetails(resource_id=workspace_id, state="no_encryption_key"),
        )
