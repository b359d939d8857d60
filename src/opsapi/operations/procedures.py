"""How each action is carried out: named steps with the coroutines that wiring registers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from opsapi.kit.clock import Clock
from opsapi.operations.model import Claim, Operation, Outcome, Step, Undo, UndoState
from opsapi.operations.ports import Ledger


class StepDone(msgspec.Struct, frozen=True):
    """`message` for people; `result` is merged into the operation's; `outcome` of the last step that names one wins."""

    message: str
    result: dict[str, Any] | None = None
    outcome: Outcome | None = None
    skipped: bool = False


@dataclass(slots=True)
class StepWork:
    """What a step's coroutine holds while it runs: the operation as claimed, and the ledger behind the claim."""

    ledger: Ledger
    claim: Claim
    operation: Operation
    step: Step
    clock: Clock
    sleep: Callable[[float], Awaitable[None]]

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

    async def intend(self, intent: dict[str, Any]) -> None:
        """Before every effect. Raises LeaseLost and OperationStopped, and then the effect must not be tried."""
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
        await self.ledger.note_undo(self.claim, self.step.position, Undo(state=UndoState.INTENDED))


StepRunner = Callable[[StepWork], Awaitable[StepDone]]
UndoRunner = Callable[[StepWork], Awaitable[Undo]]


@dataclass(frozen=True, slots=True)
class StepProcedure:
    """`estimate` is the published default until there is history. `undo` takes the step's recorded effect back."""

    name: str
    run: StepRunner
    estimate: timedelta
    undo: UndoRunner | None = None


@dataclass(frozen=True, slots=True)
class Procedure:
    """The steps that an action may have (an operation lists those that it has). `deadline` counts from the begin."""

    action: str
    steps: tuple[StepProcedure, ...]
    deadline: timedelta
    version: int = 1

    def step(self, name: str) -> StepProcedure | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(slots=True)
class Procedures:
    """Every version of every procedure that this process can carry out."""

    _known: dict[tuple[str, int], Procedure] = field(default_factory=dict)

    def register(self, procedure: Procedure) -> None:
        key = (procedure.action, procedure.version)
        if key in self._known:
            raise ValueError(f"procedure {procedure.action} version {procedure.version} is registered twice")
        self._known[key] = procedure

    def find(self, action: str, version: int) -> Procedure | None:
        return self._known.get((action, version))

    def runnable(self) -> frozenset[tuple[str, int]]:
        return frozenset(self._known)
