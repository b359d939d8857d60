"""Carries one claimed operation through its steps, and back where a step failed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec

from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable, OpsError
from opsapi.operations.errors import LeaseLost, OperationStopped, StepFailed, StepPostponed
from opsapi.operations.model import (
    Claim,
    Failure,
    Operation,
    Outcome,
    State,
    Step,
    StepState,
    Undo,
    UndoState,
)
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedure, Procedures, StepDone, StepProcedure
from opsapi.operations.proposal import plan_hash, stale
from opsapi.operations.settings import EngineSettings
from opsapi.operations.work import Gate, OpenGate, StepWork

_UNDO_SECONDS = 60.0
_UNDO_TRIES = 3
"""Times as many as a step has: what kills every worker that undoes it must not come back for ever."""
_DONE = (StepState.COMPLETED, StepState.SKIPPED)
_log = logging.getLogger(__name__)


class _Postponed(Exception):
    """The claim was given back; someone goes on later."""


class Execution:
    """Stateless between operations: all that matters is in the ledger, so that any process can go on from there."""

    def __init__(
        self,
        ledger: Ledger,
        procedures: Procedures,
        clock: Clock,
        settings: EngineSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        gate: Gate | None = None,
    ) -> None:
        self._ledger = ledger
        self._procedures = procedures
        self._clock = clock
        self._settings = settings
        self._sleep = sleep
        self._gate = gate or OpenGate()

    async def run(self, claim: Claim, stop: asyncio.Event | None = None) -> None:
        """Until the operation has ended or has to wait; `stop` is set once somebody asked it to stop. Raises LeaseLost,
        and DependencyUnavailable where the ledger itself is away; in both cases whoever claims it next goes on."""
        stop = stop or asyncio.Event()
        operation = claim.operation
        procedure = self._procedures.find(operation.action, operation.version)
        if procedure is None:
            raise LookupError(f"no procedure {operation.action} version {operation.version}")
        try:
            await self._leave_to_others(claim)
            backward = operation.error is not None or operation.rollback_requested_at is not None
            if operation.approved_by is not None and not backward and not operation.touched:
                await self._check_fresh(claim, procedure)
            if backward or not await self._forward(claim, procedure, stop):
                await self._backward(claim, procedure, stop)
        except OperationStopped as stopped:
            await self._stop(claim, procedure, stopped.failure)
        except _Postponed:
            return

    async def _leave_to_others(self, claim: Claim) -> None:
        """What a replica does not serve (yet) is for those that do; where nobody does for long, the gate ends it."""
        operation = claim.operation
        if self._gate.serves(operation) or not self._has_time(operation, operation.attempts):
            return
        failure = Failure(
            code="DEPENDENCY_UNAVAILABLE", message=f"Workspace {operation.workspace_id} is not served here"
        )
        position = next((step.position for step in operation.steps if step.state not in _DONE), 0)
        await self._postpone(claim, position, failure, operation.attempts)

    async def _check_fresh(self, claim: Claim, procedure: Procedure) -> None:
        """What a person approved is what is done: planned again at the last moment, by whoever comes to do it. Raises
        OperationStopped."""
        operation = claim.operation
        if procedure.replan is None:
            return
        try:
            proposal = await procedure.replan(operation)
        except OpsError as error:
            if _is_ledger(error):
                raise
            failure, passing = _judge(error)
            if passing and self._has_time(operation, operation.attempts):
                await self._postpone(claim, 0, failure, operation.attempts)
            raise OperationStopped(failure) from error
        fresh = plan_hash(proposal, operation.requested_by)
        if fresh != operation.plan_hash:
            raise OperationStopped(stale(proposal, fresh))

    def _has_time(self, operation: Operation, attempts: int) -> bool:
        """Whether another try would come before the deadline: where not, it ends with what is wrong, now."""
        if attempts >= self._settings.step_attempts:
            return False
        next_try = self._clock.now() + self._pause(attempts)
        return operation.deadline_at is None or next_try < operation.deadline_at

    def _pause(self, attempts: int) -> timedelta:
        doubled = self._settings.backoff_seconds * 2 ** (attempts - 1)
        return timedelta(seconds=min(self._settings.backoff_max_seconds, doubled))

    async def _forward(self, claim: Claim, procedure: Procedure, stop: asyncio.Event) -> bool:
        """Whether every step succeeded; then the operation is completed."""
        operation = claim.operation
        left = [step.position for step in operation.steps if step.state not in _DONE]
        if not left:
            await self._finish(claim, procedure, State.COMPLETED)
            return True
        if not claim.step_started:
            operation = await self._ledger.start_step(claim, left[0])
        following: list[int | State] = [*left[1:], State.COMPLETED]
        for position, then in zip(left, following, strict=True):
            if operation.cancel_requested_at is not None or stop.is_set():
                raise OperationStopped
            done = await self._try(claim, procedure, self._work(claim, operation, position, stop))
            if done is None:
                return False
            ended = then is State.COMPLETED
            operation = await self._ledger.complete_step(
                claim,
                position,
                done.message,
                result=done.result,
                outcome=done.outcome,
                skipped=done.skipped,
                then=then,
                announcements=procedure.announce(_as_ended(operation, done), State.COMPLETED) if ended else (),
            )
        return True

    async def _finish(
        self,
        claim: Claim,
        procedure: Procedure,
        state: State,
        *,
        outcome: Outcome | None = None,
        result: dict[str, Any] | None = None,
        error: Failure | None = None,
    ) -> None:
        operation = await self._ledger.get(claim.operation.id) or claim.operation
        announcements = procedure.announce(operation, state)
        await self._ledger.finish(
            claim, state, outcome=outcome, result=result, error=error, announcements=announcements
        )

    async def _try(self, claim: Claim, procedure: Procedure, work: StepWork) -> StepDone | None:
        """One try of a step that is started; None once it has failed for good."""
        step = work.step
        attempts = work.step.attempts
        try:
            known = procedure.step(step.name)
            if known is None:
                raise StepFailed("UNKNOWN_STEP", f"{procedure.action} version {procedure.version} has no {step.name}")
            if attempts > self._settings.step_attempts:
                raise StepFailed("ATTEMPTS_EXHAUSTED", f"The step was tried {attempts - 1} times")
            if work.remaining <= 0:
                raise StepFailed("DEADLINE_EXCEEDED", "The operation's deadline passed before this step")
            async with asyncio.timeout(work.remaining):
                return await known.run(work)
        except (LeaseLost, OperationStopped):
            raise
        except Exception as error:
            if _is_ledger(error):
                raise
            failure, passing = _judge(error)
            if passing and self._has_time(work.operation, attempts):
                await self._postpone(claim, step.position, failure, attempts)
            await self._ledger.fail_step(claim, step.position, failure)
            return None

    async def _postpone(self, claim: Claim, position: int, failure: Failure, attempts: int) -> None:
        await self._ledger.postpone(claim, position, failure, self._clock.now() + self._pause(attempts))
        raise _Postponed

    def _work(self, claim: Claim, operation: Operation, position: int, stop: asyncio.Event) -> StepWork:
        return StepWork(
            ledger=self._ledger,
            claim=claim,
            operation=operation,
            step=operation.steps[position],
            clock=self._clock,
            pause=self._sleep,
            gate=self._gate,
            stop=stop,
        )

    async def _backward(self, claim: Claim, procedure: Procedure, stop: asyncio.Event) -> None:
        """Undoes what has or may have had an effect, the last first, then ends the operation."""
        operation = await self._ledger.get(claim.operation.id)
        if operation is None:
            raise LeaseLost
        undos: list[tuple[str, Undo]] = []
        for step in reversed(operation.steps):
            if not step.touched:
                continue
            undo = step.undo
            if undo is None or undo.state is UndoState.INTENDED:
                undo = await self._undo(claim, procedure.step(step.name), step, stop)
                await self._ledger.note_undo(claim, step.position, undo)
            undos.append((step.name, undo))
        skipped = [{"step": name, "reason": undo.reason} for name, undo in undos if undo.state is UndoState.SKIPPED]
        undone = [name for name, undo in undos if undo.state is UndoState.UNDONE]
        if undone and not skipped:
            await self._finish(claim, procedure, State.ROLLED_BACK, result={"undone": undone})
            return
        outcome = Outcome.PARTIAL if skipped else None
        result = {"undo_skipped": skipped} if skipped else None
        await self._finish(claim, procedure, State.FAILED, outcome=outcome, result=result)

    async def _undo(self, claim: Claim, known: StepProcedure | None, step: Step, stop: asyncio.Event) -> Undo:
        if known is None or known.undo is None:
            return Undo(state=UndoState.SKIPPED, reason="this step cannot be undone")
        work = self._work(claim, await self._ledger.start_step(claim, step.position), step.position, stop)
        attempts = work.step.attempts
        if attempts > _UNDO_TRIES * self._settings.step_attempts:
            return Undo(state=UndoState.SKIPPED, reason=f"the step and its undo were tried {attempts - 1} times")
        try:
            async with asyncio.timeout(_UNDO_SECONDS):
                return await known.undo(work)
        except (LeaseLost, OperationStopped):
            raise
        except Exception as error:
            if _is_ledger(error):
                raise
            failure, passing = _judge(error)
            if passing and attempts < 2 * self._settings.step_attempts:
                await self._postpone(claim, step.position, failure, attempts)
            return Undo(state=UndoState.SKIPPED, reason=f"{failure.code}: {failure.message}")

    async def _stop(self, claim: Claim, procedure: Procedure, failure: Failure | None) -> None:
        operation = await self._ledger.get(claim.operation.id)
        if operation is None:
            raise LeaseLost
        if failure is None and operation.error is None:
            failure = await self._why_stopped(operation)
        outcome = Outcome.PARTIAL if operation.touched else None
        await self._finish(claim, procedure, State.CANCELLED, outcome=outcome, error=failure)

    async def _why_stopped(self, operation: Operation) -> Failure:
        """What stands against it by now (a pause also asks what runs to stop), else that somebody cancelled it."""
        refusal = await self._gate.refusal(operation, undo=True)
        by = operation.cancel_requested_by
        return refusal or Failure(code="CANCELLED", message=f"Cancelled by {by}" if by else "Cancelled")


def _as_ended(operation: Operation, done: StepDone) -> Operation:
    """The operation as it will stand once its last step is complete."""
    result = (operation.result or {}) | (done.result or {})
    return msgspec.structs.replace(operation, result=result or None, outcome=done.outcome or operation.outcome)


def _is_ledger(error: Exception) -> bool:
    return isinstance(error, DependencyUnavailable) and getattr(error.details, "component", "") == "database"


def _judge(error: Exception) -> tuple[Failure, bool]:
    """What to write down, and whether trying again may help."""
    match error:
        case StepPostponed():
            return Failure(code=error.code, message=error.message), True
        case StepFailed():
            return Failure(code=error.code, message=error.message, details=error.details), False
        case OpsError():
            failure = Failure(code=error.code, message=error.message, details=msgspec.to_builtins(error.details))
            return failure, isinstance(error, DependencyUnavailable)
        case TimeoutError():
            return Failure(code="DEADLINE_EXCEEDED", message="The step did not end in time"), False
        case _:
            _log.error("a step failed for a reason that it does not know", exc_info=error)
            return Failure(code="INTERNAL_ERROR", message="The service failed in this step; see its log"), True
