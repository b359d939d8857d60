"""What an operation is. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec


class State(StrEnum):
    PENDING_APPROVAL = "pending_approval"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.ROLLED_BACK})


class Outcome(StrEnum):
    CHANGED = "changed"
    NOTHING_TO_DO = "nothing_to_do"
    PROPOSED = "proposed"
    PARTIAL = "partial"


class StepState(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class UndoState(StrEnum):
    INTENDED = "intended"
    """Written before the undoing write is tried."""
    UNDONE = "undone"
    NEEDLESS = "needless"
    """Nothing of ours was there to undo."""
    SKIPPED = "skipped"
    """What we wrote was no longer as we wrote it, or could not be written back; `reason` says which."""


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    state: UndoState
    reason: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a step or an operation failed: `code` as in error answers, `details` typed by it."""

    code: str
    message: str
    details: dict[str, Any] = {}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """`intent` is what was about to be done, written before it was tried; `effect` what was then seen done."""

    position: int
    name: str
    state: StepState = StepState.PENDING
    estimated_seconds: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    intent: dict[str, Any] | None = None
    intent_at: datetime | None = None
    effect: dict[str, Any] | None = None
    effect_at: datetime | None = None
    undo: Undo | None = None
    message: str | None = None
    error: Failure | None = None

    @property
    def unsettled(self) -> bool:
        """An effect was tried and nobody saw how it ended: look before trying again."""
        return self.intent is not None and self.effect is None

    @property
    def duration(self) -> timedelta | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work and who asked for it. `resource_id` is what it locks and names in conflicts."""

    id: str
    action: str
    version: int
    """Of the procedure that it was begun under, and is finished under."""
    state: State
    outcome: Outcome | None = None
    workspace_id: str
    application_id: str | None = None
    resource_id: str
    resource_uid: str | None = None
    parameters: dict[str, Any]
    plan: dict[str, Any] | None = None
    plan_hash: str | None = None
    result: dict[str, Any] | None = None
    error: Failure | None = None
    requested_by: str
    requested_by_kind: str
    on_behalf_of: str | None = None
    agent_run: str | None = None
    request_id: str
    reason: str | None = None
    approved_by: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    estimated_completion: datetime | None = None
    deadline_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    attempts: int = 0
    steps: tuple[Step, ...] = ()

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


def lock_key(workspace_id: str, resource_id: str = "") -> str:
    """What a lock is taken on: ids of applications come from tenants' labels, so they only hold in their workspace."""
    return f"{workspace_id}/{resource_id}" if resource_id else workspace_id


class NewStep(msgspec.Struct, frozen=True):
    name: str
    estimated_seconds: float


class NewOperation(msgspec.Struct, frozen=True, kw_only=True):
    """What `begin` needs beside the caller."""

    id: str
    action: str
    version: int
    workspace_id: str
    application_id: str | None
    resource_id: str
    resource_uid: str | None
    parameters: dict[str, Any]
    plan: dict[str, Any] | None
    plan_hash: str | None
    reason: str | None
    steps: tuple[NewStep, ...]
    estimated_completion: datetime
    deadline_at: datetime


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to work on an operation. Every write states `token`; a later claim makes it worthless."""

    operation: Operation
    holder: str
    token: int
    taken_over: bool
    """Somebody began this before: what has an intent and no effect must be looked at, not repeated."""


class Depth(msgspec.Struct, frozen=True):
    """How much waits. `oldest_queued_at` is None when nothing does."""

    queued: int
    running: int
    oldest_queued_at: datetime | None
