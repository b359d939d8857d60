"""What callers send to have a workspace operation carried out."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from opsapi.kit.endpoint import Body, Params
from opsapi.operations.desk import PlanHash, PlannedStep, PlanRefusal
from opsapi.operations.view import OperationView

Text = Annotated[str, Meta(max_length=500)]
Name = Annotated[str, Meta(min_length=1, max_length=253)]


class PlaybookParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every playbook's parameters: unknown ones are refused.

    `target_component`: an application's id or name. `confirmation: false` asks for a person's decision; true, or its
    absence, lifts nothing.
    """

    target_component: Name | None = None
    confirmation: bool = True


class Context(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why it is asked for, in the caller's words: recorded, never trusted."""

    triggered_by: Text | None = None
    incident_id: Text | None = None
    severity: Text | None = None


class OperationParams(Params, frozen=True, kw_only=True):
    workspace_id: str


class OperationBody(Body, frozen=True, kw_only=True):
    """`parameters` are those of `operation`. `plan_hash` is of a dry run: exactly that plan is carried out, or
    `STALE_PLAN` answered."""

    operation: Name
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    context: Context = Context()
    reason: Text | None = None
    dry_run: bool = False
    plan_hash: PlanHash | None = None


class PlannedOperation(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed` is false where `refusals` is not empty; `needs_approval` names the rules for which a person decides
    first. `details` are the playbook's own: what it found, and what it would change. `plan_hash` may be sent with the
    call until `plan_expires_at`."""

    allowed: bool
    refusals: list[PlanRefusal]
    needs_approval: list[str]
    steps: list[PlannedStep]
    details: dict[str, Any]
    plan_hash: str
    plan_expires_at: datetime


class OperationAnswer(OperationView, frozen=True, kw_only=True):
    """The operation as it was begun. Of a dry run `operation_id` is null, `status` is `planned`, and `plan` says what
    would be done."""

    operation_id: str | None  # type: ignore[assignment]  # the view's always has one; Structs are frozen
    plan: PlannedOperation | UnsetType = UNSET
