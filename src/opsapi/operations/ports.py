"""What operations needs: one durable ledger. All moments are UTC; every method is one transaction."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from opsapi.kit.caller import Call
from opsapi.operations.model import Claim, Depth, Failure, NewOperation, Operation, Outcome, State, Undo


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

    async def begin(self, new: NewOperation, call: Call, *, locks: Collection[str]) -> Operation:
        """Writes operation, steps, locks and the call's audit entry, and sets `call.audit.committed`.

        `locks` are keys of `lock_key`. Raises OperationInProgress where another operation holds one of them; then
        nothing is written.
        """
        ...

    async def holder(self, lock: str) -> Operation | None:
        """The operation that holds the lock."""
        ...

    async def claim(self, holder: str, lease: timedelta, runnable: Collection[tuple[str, int]]) -> Claim | None:
        """The longest-waiting operation that is queued, or whose worker's lease ran out; None when there is none.

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
    ) -> Operation:
        """Writes the end (`outcome` None keeps what the steps said), frees the locks, audits the end."""
        ...

    async def get(self, operation_id: str) -> Operation | None: ...

    async def find(self, wanted: OperationFilter) -> list[Operation]:
        """The newest first."""
        ...

    async def step_durations(self, action: str, limit: int) -> dict[str, Sequence[float]]:
        """By step name, the seconds that its last `limit` completed runs of the action took."""
        ...

    async def depth(self) -> Depth: ...
