"""What callers are told, and what stops a worker."""

from datetime import datetime

from opsapi.kit.errors import Details, OpsError, ResourceNotFound


class InProgressDetails(Details, frozen=True, kw_only=True):
    resource_id: str
    current_operation: str
    estimated_completion: datetime | None = None
    current_operation_id: str | None = None


class OperationInProgress(OpsError):
    code = "OPERATION_IN_PROGRESS"
    status = 409
    summary = "Another operation holds the resource; `details` names it and when it is expected to end."
    details_type = InProgressDetails

    def __init__(self, details: InProgressDetails) -> None:
        super().__init__("Another operation is currently in progress for this resource", details)


class OperationNotFound(ResourceNotFound):
    def __init__(self, operation_id: str) -> None:
        super().__init__("operation", operation_id)


class LeaseLost(Exception):
    """Another worker holds the operation by now, or it has ended: stop, and write nothing more."""


class OperationStopped(Exception):
    """Somebody asked the operation to stop; raised before an effect, never in one."""


class StepFailed(Exception):
    """The step cannot succeed. `code` and `details` as in error answers."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class StepPostponed(Exception):
    """The step may succeed later: the engine tries it again after a growing pause, until its attempts are used up."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
