"""How each action is carried out: named steps with the coroutines that wiring registers."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from opsapi.operations.model import Announcement, Operation, Outcome, State, Undo
from opsapi.operations.proposal import Proposal
from opsapi.operations.work import StepWork


class StepDone(msgspec.Struct, frozen=True):
    """`message` for people; `result` is merged into the operation's; `outcome` of the last step that names one wins."""

    message: str
    result: dict[str, Any] | None = None
    outcome: Outcome | None = None
    skipped: bool = False


StepRunner = Callable[[StepWork], Awaitable[StepDone]]
UndoRunner = Callable[[StepWork], Awaitable[Undo]]
Replanner = Callable[[Operation], Awaitable[Proposal]]
Announcer = Callable[[Operation, State], Sequence[Announcement]]


def _silent(_operation: Operation, _state: State) -> Sequence[Announcement]:
    return ()


@dataclass(frozen=True, slots=True)
class StepProcedure:
    """`estimate` is the published default until there is history. `undo` takes the step's recorded effect back."""

    name: str
    run: StepRunner
    estimate: timedelta
    undo: UndoRunner | None = None


@dataclass(frozen=True, slots=True)
class Procedure:
    """The steps that an action may have (an operation lists those that it has). `deadline` counts from the begin.

    `replan` plans it again from its parameters, as of now, for whoever approves it. `announce` are its own events at
    its end, besides those of every operation.
    """

    action: str
    steps: tuple[StepProcedure, ...]
    deadline: timedelta
    version: int = 1
    replan: Replanner | None = None
    announce: Announcer = _silent

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

    def newest(self, action: str) -> Procedure:
        """What new operations are begun under. Raises LookupError."""
        versions = [version for known, version in self._known if known == action]
        if not versions:
            raise LookupError(f"no procedure {action}")
        return self._known[action, max(versions)]

    def runnable(self) -> frozenset[tuple[str, int]]:
        return frozenset(self._known)
