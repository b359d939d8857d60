"""What a caller can be told went wrong: one class a code, typed details, the sentence made from them.

HTTP, tools and the CLI all show the same code, message and details. A class below is for what any domain may meet;
a domain's own errors stand in its `errors.py` and derive from `OpsError`.
"""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of `error.details`; a field that is None is left out."""


class OpsError(Exception):
    """Base. `code` is the wire's code, `status` its HTTP status, `details_type` what `details` holds (for OpenAPI).

    A fresh instance is made per failure; `retry_after` is whole seconds, sent as `Retry-After`.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    summary: ClassVar[str]
    details_type: ClassVar[type[Details]] = Details

    def __init__(self, message: str, details: Details | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details if details is not None else Details()
        self.retry_after = retry_after


class FieldsDetails(Details, frozen=True, kw_only=True):
    fields: dict[str, str]


class ValidationFailed(OpsError):
    code = "VALIDATION_ERROR"
    status = 400
    summary = (
        "A field is missing, unknown, of the wrong type or out of range; `details.fields` maps its path to the reason."
    )
    details_type = FieldsDetails

    def __init__(self, fields: dict[str, str]) -> None:
        named = "; ".join(f"{path}: {reason}" for path, reason in list(fields.items())[:3])
        super().__init__(f"The request is not valid: {named}", FieldsDetails(fields=fields))


class ResourceDetails(Details, frozen=True, kw_only=True):
    resource_type: str
    resource_id: str
    alternatives: list[str] | None = None


class ResourceNotFound(OpsError):
    """Also for what exists but the caller may not see, in the same words."""

    code = "RESOURCE_NOT_FOUND"
    status = 404
    summary = "There is no such resource, or the caller may not see it."
    details_type = ResourceDetails

    def __init__(self, resource_type: str, resource_id: str) -> None:
        shown = resource_id[:253]
        super().__init__(
            f"No {resource_type} {shown!r} that this account may see",
            ResourceDetails(resource_type=resource_type, resource_id=shown),
        )


class CandidatesDetails(Details, frozen=True, kw_only=True):
    resource_type: str
    resource_id: str
    candidates: list[str]
    choose_by: str


class AmbiguousResource(OpsError):
    code = "AMBIGUOUS_RESOURCE"
    status = 409
    summary = (
        "The name or id fits several resources; `details.candidates` lists them, `details.choose_by` how to choose."
    )
    details_type = CandidatesDetails

    def __init__(self, resource_type: str, resource_id: str, candidates: list[str], choose_by: str) -> None:
        super().__init__(
            f"{resource_type} {resource_id!r} is ambiguous: {', '.join(candidates[:5])}. Choose by {choose_by}",
            CandidatesDetails(
                resource_type=resource_type, resource_id=resource_id, candidates=candidates, choose_by=choose_by
            ),
        )


class DependencyDetails(Details, frozen=True, kw_only=True):
    component: str
    reason: str
    workspace_id: str | None = None


class DependencyUnavailable(OpsError):
    code = "DEPENDENCY_UNAVAILABLE"
    status = 503
    summary = (
        "A component that the answer needs cannot be reached or has not been read yet; `details.component` names it."
    )
    details_type = DependencyDetails

    def __init__(self, component: str, reason: str, *, workspace_id: str | None = None, retry_after: int = 5) -> None:
        where = f" of workspace {workspace_id}" if workspace_id else ""
        super().__init__(
            f"{component}{where} is unavailable: {reason}",
            DependencyDetails(component=component, reason=reason, workspace_id=workspace_id),
            retry_after=retry_after,
        )


class PolicyRule(StrEnum):
    """The rules a refusal can name."""

    WORKSPACE_OBSERVES = "workspace_mode_observe"
    WORKSPACE_PROPOSES = "workspace_mode_propose"
    PAUSED = "paused"
    ACTION_DENIED = "action_denied"
    ACCOUNT_BUDGET = "account_budget"
    WORKSPACE_BUDGET = "workspace_budget"
    COOLDOWN = "cooldown"
    SAME_ACTION = "same_action"
    FAILURE_BLOCK = "failure_block"
    PENDING_APPROVALS = "pending_approvals"
    BLAST_RADIUS = "blast_radius"
    MAX_DELETIONS = "max_deletions"
    PARAMETER_RANGE = "parameter_range"
    APPROVAL_REQUIRED = "approval_required"
    CALLER_ASKED = "caller_asked_for_approval"
    DELETION = "deletion"
    RESTORE = "restore"
    RESIZE = "resize"
    SEVERAL_APPLICATIONS = "several_applications"
    MAX_REPLICAS = "max_replicas"
    SCALE_TO_ZERO = "scale_to_zero"
    GROWTH = "growth"
    SHRINK = "shrink"
    PROTECTED_LABEL = "protected_label"
    MANAGED_EXTERNALLY = "managed_externally"
    RESOURCE_QUOTA = "resource_quota"
    CAPACITY = "capacity"


class PolicyDetails(Details, frozen=True, kw_only=True):
    """`limit` and `asked` are whole numbers of what the rule counts; a quota's figures are quantities as written."""

    rule: str
    alternatives: list[str] | None = None
    next_allowed_at: datetime | None = None
    limit: int | None = None
    asked: int | None = None
    quota: str | None = None
    resource: str | None = None
    hard: str | None = None
    used: str | None = None
    needed: str | None = None


class PolicyDenied(OpsError):
    code = "POLICY_DENIED"
    status = 403
    summary = (
        "A guardrail refuses the change; `details.rule` names it, `details.alternatives` what may be done instead."
    )
    details_type = PolicyDetails

    def __init__(self, message: str, details: PolicyDetails) -> None:
        super().__init__(message, details)


class StateDetails(Details, frozen=True, kw_only=True):
    resource_id: str
    state: str
    allowed_from: list[str] | None = None


class InvalidState(OpsError):
    code = "INVALID_STATE"
    status = 409
    summary = "The resource is in a state that does not allow this."
    details_type = StateDetails

    def __init__(self, message: str, details: StateDetails) -> None:
        super().__init__(message, details)


class InternalError(OpsError):
    code = "INTERNAL_ERROR"
    status = 500
    summary = "The service failed; the request id leads to its log entry. No vendor text is shown."

    def __init__(self) -> None:
        super().__init__("The service failed to answer; quote the request id to its operators")
