"""What can be wrong with a workspace, as its callers are told."""

from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails, ValidationFailed


class WorkspaceNotFound(ResourceNotFound):
    """Also for a workspace that the caller may not see."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__("workspace", workspace_id)


class UnusableKubeconfig(ValidationFailed):
    """An uploaded kubeconfig that breaks the rules; `fields` maps each offending key's path, which begins with
    `kubeconfig` or is `context`, to the rule, never to a value."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields)
        self.fields = fields

    def of_acting(self) -> "UnusableKubeconfig":
        """The same about the acting credentials: `kubeconfig…` and `context` are `acting_kubeconfig…` there."""
        return UnusableKubeconfig({f"acting_{path}": why for path, why in self.fields.items()})


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
