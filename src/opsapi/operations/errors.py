"""What callers are told, and what stops a worker."""

from datetime import datetime
from typing import Any

from opsapi.kit.errors import Details, OpsError, ResourceNotFound
from opsapi.operations.model import Failure, Operation, locked_resource


class InProgressDetails(Details, frozen=True, kw_only=True):
    resource_id: str
    current_operation: str
    estimated_completion: datetime | None = None
    current_operation_id: str | None = None

    @classmethod
    def of(cls, key: str, holder: Operation) -> "InProgressDetails":
        """What holds the lock `key`."""
        estimated = holder.estimated_completion
        return cls(
            resource_id=locked_resource(key),
            current_operation=holder.action,
            estimated_completion=None if estimated is None else estimated.replace(microsecond=0),
            current_operation_id=holder.id,
        )


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


class StalePlanDetails(Details, frozen=True, kw_only=True):
    """`fresh_plan` and its hash are what the same call would do now."""

    plan_hash: str
    fresh_plan_hash: str | None = None
    fresh_plan: dict[str, Any] | None = None


class StalePlan(OpsError):
    code = "STALE_PLAN"
    status = 409
    summary = (
        "The plan is not what would be done now, is not this account's, or has expired; `details` has a fresh one."
    )
    details_type = StalePlanDetails

    def __init__(self, details: StalePlanDetails, message: str = "") -> None:
        stale = "The plan was not issued to this account, has expired, or is not what would be done now"
        super().__init__(message or stale, details)


class ApprovalRefusedDetails(Details, frozen=True, kw_only=True):
    operation_id: str
    rule: str


class ApprovalRefused(OpsError):
    """Who may not decide: an agent or service, the asker, who made the asker's account, or whom the asker acts for."""

    code = "APPROVAL_NOT_ALLOWED"
    status = 403
    summary = "This account may not decide the request; `details.rule` says why."
    details_type = ApprovalRefusedDetails

    def __init__(self, operation_id: str, rule: str, message: str) -> None:
        super().__init__(message, ApprovalRefusedDetails(operation_id=operation_id, rule=rule))


class LeaseLost(Exception):
    """Another worker holds the operation by now, or it has ended: stop, and write nothing more."""


class OperationStopped(Exception):
    """Somebody asked the operation to stop, or it may not act any more (`failure` says why); raised before an effect,
    never in one."""

    def __init__(self, failure: Failure | None = None) -> None:
        super().__init__("" if failure is None else failure.message)
        self.failure = failure


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
