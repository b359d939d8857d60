"""How a write to a cluster can fail, and what applications refuse."""

from opsapi.kit.errors import Details, OpsError, PolicyDenied, PolicyDetails, PolicyRule, ResourceNotFound
from opsapi.workspaces.writing import OutcomeUnknown, TargetGone, WriteConflict, WriteRefused

__all__ = ["OutcomeUnknown", "TargetGone", "WriteConflict", "WriteRefused"]


class ApplicationNotFound(ResourceNotFound):
    def __init__(self, application_id: str) -> None:
        super().__init__("application", application_id)


class AutoscalerDetails(Details, frozen=True, kw_only=True):
    resource_id: str
    autoscaler_kind: str
    autoscaler: str
    min_replicas: int | None = None
    max_replicas: int | None = None
    alternatives: list[str] | None = None


class AutoscalerConflict(OpsError):
    code = "AUTOSCALER_CONFLICT"
    status = 409
    summary = "An autoscaler owns the replicas; `details.alternatives` says what may be changed instead."
    details_type = AutoscalerDetails

    def __init__(self, details: AutoscalerDetails) -> None:
        super().__init__(
            f"{details.autoscaler_kind} {details.autoscaler} owns the replicas of {details.resource_id}", details
        )


class ManagerDetails(Details, frozen=True, kw_only=True):
    resource_id: str
    manager: str
    source: str | None = None
    patch: str | None = None


class ManagedExternally(OpsError):
    code = "MANAGED_EXTERNALLY"
    status = 409
    summary = "Argo CD or Flux would revert the change; `details.patch` is what to commit at its source instead."
    details_type = ManagerDetails

    def __init__(self, details: ManagerDetails) -> None:
        super().__init__(
            f"{details.resource_id} is managed by {details.manager}, which would revert the change", details
        )


class NamespaceDetails(Details, frozen=True, kw_only=True):
    namespace: str


class ProtectedNamespace(OpsError):
    code = "PROTECTED_NAMESPACE"
    status = 403
    summary = "System namespaces are read, never operated on."
    details_type = NamespaceDetails

    def __init__(self, namespace: str) -> None:
        super().__init__(
            f"{namespace} is a protected namespace: it is read, never operated on",
            NamespaceDetails(namespace=namespace),
        )


class QuotaExceeded(PolicyDenied):
    """The cluster would refuse the pods one by one; so the change is refused whole."""

    def __init__(self, *, quota: str, resource: str, hard: str, used: str, needed: str) -> None:
        super().__init__(
            f"ResourceQuota {quota} allows {hard} of {resource}: {used} are used and the change needs {needed} more",
            PolicyDetails(
                rule=PolicyRule.RESOURCE_QUOTA,
                alternatives=["ask for fewer replicas", "lower the requests", "have the quota raised"],
                quota=quota,
                resource=resource,
                hard=hard,
                used=used,
                needed=needed,
            ),
        )
