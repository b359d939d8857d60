"""What operations needs: one durable ledger. All moments are UTC; every method is one transaction."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from opsapi.kit.caller import Call, System
from opsapi.operations.model import (
    Announcement,
    Claim,
    Depth,
    Failure,
    Item,
    NewOperation,
    Operation,
    Outcome,
    State,
    Undo,
)
from opsapi.policy.admission import Admission
from opsapi.policy.model import History, Pause


class OperationFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`workspaces` None means all; `before` continues a list after (created_at, id) of its last entry."""

    workspaces: frozenset[str] | None
    application_id: str | None = None
    action: str | None = None
    states: frozenset[State] | None = None
    before: tuple[datetime, str] | None = None
    limit: int = 50


class Ledger(Protocol):
    """Writers on a claim raise LeaseLost once its token is no longer the operation's. All may raise
    DependencyUnavailable when the database is away."""

    async def begin(
        self, new: NewOperation, call: Call, *, locks: Collection[str], admission: Admission | None = None
    ) -> Operation:
        """Writes operation, steps, targets, locks and the call's audit entry, and sets `call.audit.committed`.

        `locks` are keys of `lock_key`. One that waits for approval takes none yet. An operation that the same call
        (account, method, path, Idempotency-Key) began within a day is answered in its place.

        Raises OperationInProgress where another operation holds one of the locks, PolicyDenied where `admission` finds
        a refusal in the history that this very transaction reads; then nothing is written.
        """
        ...

    async def earlier(self, call: Call) -> Operation | None:
        """What a call with the same Idempotency-Key began within a day, whose answer was lost."""
        ...

    async def approve(
        self, operation_id: str, by: Call | System, *, admission: Admission, until: datetime
    ) -> Operation:
        """Queues what waits for a decision, with its locks, and the deadline `until`. Raises as `begin` does, and
        InvalidState where it waits no longer."""
        ...

    async def reject(self, operation_id: str, by: Call | System, failure: Failure) -> Operation:
        """Ends what waits for a decision. Raises InvalidState."""
        ...

    async def expire(self, now: datetime) -> int:
        """Ends what nobody decided in time; how many."""
        ...

    async def cancel(self, operation_id: str, by: Call | System) -> Operation:
        """Ends what has not begun; asks what runs to stop before its next effect. Raises InvalidState where it has
        ended."""
        ...

    async def reopen(self, operation_id: str, by: Call | System, *, admission: Admission, until: datetime) -> Operation:
        """Queues an ended operation again to be undone, with its locks. Raises as `begin` does, and InvalidState where
        it has not ended or had no effect that is not undone."""
        ...

    async def history(self, admission: Admission) -> History:
        """What `begin` would judge the admission by, as of now."""
        ...

    async def pause(self, scope: str, by: Call | System, reason: str | None) -> Pause:
        """Pauses a workspace, or everything (`*`): what is queued or waits for a decision there is cancelled, what
        runs is asked to stop. Repeating it changes nothing."""
        ...

    async def resume(self, scope: str, by: Call | System) -> bool:
        """False where it was not paused."""
        ...

    async def pauses(self) -> list[Pause]: ...

    async def issue_plan(self, account_id: str, plan_hash: str, expires_at: datetime) -> None: ...

    async def plan_issued(self, account_id: str, plan_hash: str) -> bool:
        """Whether the account was shown this plan and it has not expired."""
        ...

    async def purge(self, before: datetime, limit: int = 500) -> int:
        """Deletes operations that ended before; how many. Call again while it deletes `limit`."""
        ...

    async def holder(self, lock: str) -> Operation | None:
        """The operation that holds the lock."""
        ...

    async def claim(self, holder: str, lease: timedelta, runnable: Collection[tuple[str, int]]) -> Claim | None:
        """The longest-waiting operation that is queued, or whose worker's lease ran out; None when there is none.
        Its first claim starts its first step and announces it.

        `runnable` are the (action, version) that the caller can carry out; others are left to other releases.
        """
        ...

    async def renew(self, claim: Claim, lease: timedelta) -> bool:
        """Prolongs the lease; true when somebody asked the operation to stop."""
        ...

    async def start_step(self, claim: Claim, position: int) -> Operation:
        """Marks the step in progress, counts the attempt, and returns the operation as it then stands."""
        ...

    async def intend(self, claim: Claim, position: int, intent: Mapping[str, Any]) -> None:
        """Must be durable before it returns. Raises OperationStopped where somebody asked the operation to stop."""
        ...

    async def withdraw(self, claim: Claim, position: int) -> None:
        """Takes the intent back: the effect was certainly refused."""
        ...

    async def record(self, claim: Claim, position: int, effect: Mapping[str, Any], *, found: bool = False) -> None:
        """`found`: it was there already, from a try whose end nobody saw; that is audited."""
        ...

    async def put_item(
        self, claim: Claim, position: int, key: str, item: Item, *, intends: bool = False, found: bool = False
    ) -> None:
        """Keeps one item of a step that acts on many; durable before it returns. `intends`: an effect comes next, so
        raises OperationStopped as `intend` does; `found` as in `record`."""
        ...

    async def acquire(self, claim: Claim, keys: Collection[str]) -> None:
        """Further locks for a running operation. Raises OperationInProgress where another holds one."""
        ...

    async def release(self, claim: Claim, keys: Collection[str]) -> None: ...

    async def complete_step(
        self,
        claim: Claim,
        position: int,
        message: str,
        *,
        result: Mapping[str, Any] | None = None,
        outcome: Outcome | None = None,
        skipped: bool = False,
        then: int | State | None = None,
        announcements: Sequence[Announcement] = (),
    ) -> Operation:
        """Also merges `result` into the operation's and keeps `outcome` for its end.

        `then`: what happens in the same transaction, the start of the step at that position (as `start_step`) or the
        operation's end (as `finish`). Returns the operation as it then stands.
        """
        ...

    async def fail_step(self, claim: Claim, position: int, failure: Failure) -> None:
        """Marks the step and, from then on, the operation as failing: what is left to do is to undo."""
        ...

    async def postpone(self, claim: Claim, position: int, failure: Failure, until: datetime) -> None:
        """Gives the claim back; nobody takes it before `until`."""
        ...

    async def note_undo(self, claim: Claim, position: int, undo: Undo) -> None: ...

    async def hand_over(self, claim: Claim) -> None:
        """Gives the claim back, to be taken at once."""
        ...

    async def finish(
        self,
        claim: Claim,
        state: State,
        *,
        outcome: Outcome | None = None,
        result: Mapping[str, Any] | None = None,
        error: Failure | None = None,
        announcements: Sequence[Announcement] = (),
    ) -> Operation:
        """Writes the end (`outcome` None keeps what the steps said, as does `error`), frees the locks, audits and
        announces the end."""
        ...

    async def get(self, operation_id: str) -> Operation | None: ...

    async def find(self, wanted: OperationFilter) -> list[Operation]:
        """The newest first."""
        ...

    async def step_durations(self, action: str, limit: int) -> dict[str, Sequence[float]]:
        """By step name, the seconds that its last `limit` completed runs of the action took."""
        ...

    async def depth(self) -> Depth: ...
