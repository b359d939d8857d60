"""What an operation is. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from opsapi.webhooks.model import EventType


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


class ItemState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One object of a step that acts on many: its own intent, effect and undo, so that each is done once."""

    state: ItemState = ItemState.PENDING
    intent: dict[str, Any] | None = None
    effect: dict[str, Any] | None = None
    undo: Undo | None = None
    message: str | None = None
    error: Failure | None = None

    @property
    def unsettled(self) -> bool:
        """An effect was tried and nobody saw how it ended: look before trying again."""
        return self.intent is not None and self.effect is None and self.state is ItemState.PENDING

    @property
    def touched(self) -> bool:
        """It has, or may have, had an effect."""
        return self.effect is not None or self.intent is not None


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
    items: dict[str, Item] = {}
    message: str | None = None
    error: Failure | None = None

    @property
    def unsettled(self) -> bool:
        """An effect was tried and nobody saw how it ended: look before trying again."""
        return self.intent is not None and self.effect is None

    @property
    def touched(self) -> bool:
        """It has, or may have, had an effect."""
        return self.effect is not None or self.intent is not None or any(item.touched for item in self.items.values())

    @property
    def duration(self) -> timedelta | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What a person has to decide: the rules that ask for it, and the hash of the plan that was shown."""

    rules: tuple[str, ...]
    messages: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work and who asked for it. `resource_id` is what it locks and names in conflicts. `locks` are what
    it takes once it is queued; `permission` is what its account must hold while it runs, `counted` whether it changes
    a cluster."""

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
    permission: str | None = None
    counted: bool = False
    locks: tuple[str, ...] = ()
    approval: Approval | None = None
    approval_expires_at: datetime | None = None
    approved_by: str | None = None
    approved_at: datetime | None = None
    rollback_requested_at: datetime | None = None
    rollback_requested_by: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    estimated_completion: datetime | None = None
    deadline_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    cancel_requested_by: str | None = None
    attempts: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def touched(self) -> bool:
        return any(step.touched for step in self.steps)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


def lock_key(workspace_id: str, resource_id: str = "") -> str:
    """What a lock is taken on: ids of applications come from tenants' labels, so they only hold in their workspace."""
    return f"{workspace_id}/{resource_id}" if resource_id else workspace_id


def workspace_lock(workspace_id: str, kind: str) -> str:
    """What one kind of work on a whole workspace excludes itself by; applications' ids hold no slash."""
    return f"{workspace_id}//{kind}"


def locked_resource(key: str) -> str:
    """The resource that a lock key names to callers: an application, else its workspace."""
    workspace_id, _, resource_id = key.partition("/")
    return workspace_id if not resource_id or resource_id.startswith("/") else resource_id


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
    permission: str | None = None
    counted: bool = False
    targets: tuple[str, ...] = ()
    """Lock keys of what it changes, for cooldowns and failure blocks."""
    targets_at: datetime | None = None
    """The cluster's time at which it began to change them."""
    approval: Approval | None = None
    """Set: it waits for a decision, and takes its locks once it is approved."""
    approval_expires_at: datetime | None = None


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a domain's own, written with the end of a step or an operation."""

    type: EventType
    data: dict[str, Any]
    channels: tuple[str, ...] = ()


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to work on an operation. Every write states `token`; a later claim makes it worthless."""

    operation: Operation
    holder: str
    token: int
    taken_over: bool
    """Somebody began this before: what has an intent and no effect must be looked at, not repeated."""
    step_started: bool = False
    """The claim has started its first step in the same transaction."""


class Depth(msgspec.Struct, frozen=True):
    """How much waits. `oldest_queued_at` is None when nothing does."""

    queued: int
    running: int
    oldest_queued_at: datetime | None
