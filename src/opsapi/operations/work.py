"""What a step's coroutine holds while it runs: the operation as claimed, and the ledger behind the claim."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from opsapi.kit.clock import Clock
from opsapi.operations.errors import OperationStopped, StepFailed
from opsapi.operations.model import Claim, Failure, Item, ItemState, Operation, Step, Undo, UndoState
from opsapi.operations.ports import Ledger


class Gate(Protocol):
    """Asked before every effect: whether the operation may still act."""

    def serves(self, operation: Operation) -> bool:
        """Whether this process serves the operation's workspace: one that was registered at another replica it serves
        a few seconds later."""
        ...

    async def refusal(self, operation: Operation, *, undo: bool) -> Failure | None:
        """Why not (the account is revoked or lacks the permission by now, the workspace is paused, gone, or not in act
        mode any more), or None. An undo is the service's own duty: the account does not count for it."""
        ...


class OpenGate:
    """For tests and installations that have nothing to ask."""

    def serves(self, operation: Operation) -> bool:  # noqa: ARG002  the port's names
        return True

    async def refusal(self, operation: Operation, *, undo: bool) -> Failure | None:  # noqa: ARG002  the port's names
        return None


@dataclass(slots=True)
class StepWork:
    """`stop` is set once somebody asked the operation to stop; `sleep` notices it."""

    ledger: Ledger
    claim: Claim
    operation: Operation
    step: Step
    clock: Clock
    pause: Callable[[float], Awaitable[None]]
    gate: Gate = field(default_factory=OpenGate)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def interrupted(self) -> dict[str, Any] | None:
        """What an earlier try was about to do, when nobody saw whether it was done: look, then go on."""
        return self.step.intent if self.step.unsettled else None

    @property
    def deadline_at(self) -> datetime:
        return self.operation.deadline_at or self.operation.created_at + timedelta(minutes=10)

    @property
    def remaining(self) -> float:
        """Seconds until the operation's deadline; negative beyond it."""
        return (self.deadline_at - self.clock.now()).total_seconds()

    async def sleep(self, seconds: float) -> None:
        """Raises OperationStopped where somebody asked the operation to stop."""
        if self.stop.is_set():
            raise OperationStopped
        await self.pause(seconds)
        if self.stop.is_set():
            raise OperationStopped

    async def intend(self, intent: dict[str, Any]) -> None:
        """Before every effect. Raises LeaseLost and OperationStopped, and then the effect must not be tried."""
        await self.pass_gate()
        await self.ledger.intend(self.claim, self.step.position, intent)
        self.step = msgspec.structs.replace(self.step, intent=intent, effect=None)

    async def withdraw(self) -> None:
        """Where the effect was certainly refused, so that nobody looks for it or undoes it."""
        await self.ledger.withdraw(self.claim, self.step.position)
        self.step = msgspec.structs.replace(self.step, intent=None, effect=None)

    async def record(self, effect: dict[str, Any], *, found: bool = False) -> None:
        """After every effect: what was seen done; `found` where an earlier try had done it and died."""
        await self.ledger.record(self.claim, self.step.position, effect, found=found)
        self.step = msgspec.structs.replace(self.step, effect=effect)

    async def intend_undo(self) -> None:
        """Raises StepFailed where nothing may be written by now."""
        await self.pass_undo_gate()
        await self.ledger.note_undo(self.claim, self.step.position, Undo(state=UndoState.INTENDED))

    async def pass_gate(self) -> None:
        """Raises OperationStopped."""
        if self.stop.is_set():
            raise OperationStopped
        failure = await self.gate.refusal(self.operation, undo=False)
        if failure is not None:
            raise OperationStopped(failure)

    async def pass_undo_gate(self) -> None:
        failure = await self.gate.refusal(self.operation, undo=True)
        if failure is not None:
            raise StepFailed(failure.code, failure.message, **failure.details)

    def item(self, key: str) -> "ItemWork":
        """One object of a step that acts on many. `key` is stable over tries: a uid, or a kind with namespace and
        name."""
        return ItemWork(self, key)

    async def lock(self, *keys: str) -> None:
        """For the time that the operation works on a part of its workspace. Raises OperationInProgress."""
        await self.ledger.acquire(self.claim, keys)

    async def unlock(self, *keys: str) -> None:
        await self.ledger.release(self.claim, keys)


class ItemWork:
    """The same duties for one item: an intent before its effect, a record after it. An item that is `settled` is not
    touched again."""

    def __init__(self, work: StepWork, key: str) -> None:
        self._work = work
        self.key = key

    @property
    def held(self) -> Item:
        return self._work.step.items.get(self.key, Item())

    @property
    def settled(self) -> bool:
        return self.held.state is not ItemState.PENDING

    @property
    def interrupted(self) -> dict[str, Any] | None:
        return self.held.intent if self.held.unsettled else None

    async def intend(self, intent: dict[str, Any]) -> None:
        await self._work.pass_gate()
        await self._put(msgspec.structs.replace(self.held, intent=intent, effect=None), intends=True)

    async def withdraw(self) -> None:
        await self._put(msgspec.structs.replace(self.held, intent=None, effect=None))

    async def record(self, effect: dict[str, Any], message: str, *, found: bool = False) -> None:
        """The item is done."""
        held = msgspec.structs.replace(self.held, state=ItemState.DONE, effect=effect, message=message, error=None)
        await self._put(held, found=found)

    async def skip(self, message: str) -> None:
        await self._put(msgspec.structs.replace(self.held, state=ItemState.SKIPPED, intent=None, message=message))

    async def fail(self, failure: Failure) -> None:
        """The item failed for good; the others go on."""
        held = msgspec.structs.replace(self.held, state=ItemState.FAILED, message=failure.message, error=failure)
        await self._put(held)

    async def intend_undo(self) -> None:
        await self._work.pass_undo_gate()
        await self.note_undo(Undo(state=UndoState.INTENDED))

    async def note_undo(self, undo: Undo) -> None:
        await self._put(msgspec.structs.replace(self.held, undo=undo))

    async def _put(self, item: Item, *, intends: bool = False, found: bool = False) -> None:
        work = self._work
        await work.ledger.put_item(work.claim, work.step.position, self.key, item, intends=intends, found=found)
        work.step = msgspec.structs.replace(work.step, items=work.step.items | {self.key: item})
