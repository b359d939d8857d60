"""Carries a remediation out: healing's own steps, and scaling's own for each application, in one operation."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec

from opsapi.applications.scaling_model import ScaleOrder
from opsapi.applications.scaling_steps import ScalingSteps
from opsapi.incidents.announcing import data_of
from opsapi.incidents.remediation_model import ACTION, RESTART_FAILED, SCALE_HEALTHY, RemediationOrder, ScaleTarget
from opsapi.operations.model import Announcement, Item, Operation, Outcome, State, Step, Undo, UndoState
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure, StepRunner
from opsapi.operations.work import ItemWork, StepWork
from opsapi.playbooks.healing.model import IDENTIFY, RAISE, RESTART, ROLL_BACK, VERIFY
from opsapi.webhooks.model import EventType

_MEASURED = "traffic_before"
_SETTLED = (UndoState.UNDONE, UndoState.NEEDLESS, UndoState.SKIPPED)


@dataclass(slots=True)
class OnePart(StepWork):
    """One application's part of a step, for a step that knows of one application alone: its order is the operation's,
    its intents, effects and undo are the item's."""

    item_work: ItemWork = field(kw_only=True)

    async def intend(self, intent: dict[str, Any]) -> None:
        await self.item_work.intend(intent)
        self._look()

    async def withdraw(self) -> None:
        await self.item_work.withdraw()
        self._look()

    async def record(self, effect: dict[str, Any], *, found: bool = False) -> None:
        await self.item_work.record(effect, f"Set {effect['replicas']} replicas", found=found)
        self._look()

    async def intend_undo(self) -> None:
        await self.item_work.intend_undo()
        self._look()

    def _look(self) -> None:
        self.step = _as_step(self.step, self.item_work.held)


def part_of(work: StepWork, key: str, parameters: dict[str, Any]) -> OnePart:
    item = work.item(key)
    return OnePart(
        ledger=work.ledger,
        claim=work.claim,
        operation=msgspec.structs.replace(work.operation, parameters=parameters),
        step=_as_step(work.step, item.held),
        clock=work.clock,
        pause=work.pause,
        gate=work.gate,
        stop=work.stop,
        item_work=item,
    )


def _as_step(step: Step, item: Item) -> Step:
    return msgspec.structs.replace(step, intent=item.intent, effect=item.effect, undo=item.undo, items={})


class RemediationSteps:
    def __init__(self, healing: Procedure, scaling: ScalingSteps) -> None:
        """`healing` is auto_heal's procedure, whose steps are taken as they are."""
        self._healing = healing
        self._scaling = scaling

    def procedure(self, replan: Replanner | None = None) -> Procedure:
        """The published estimates are the specification's."""
        seconds = timedelta(seconds=30)
        steps = (
            self._taken(IDENTIFY),
            replace(self._measured(RESTART), name=RESTART_FAILED, estimate=seconds),
            self._measured(ROLL_BACK),
            self._measured(RAISE),
            StepProcedure(SCALE_HEALTHY, self._before(self.scale), timedelta(minutes=2), self.undo_scale),
            replace(self._taken(VERIFY), estimate=timedelta(minutes=1)),
        )
        deadline = self._healing.deadline + self._scaling.deadline
        return Procedure(ACTION, steps, deadline, replan=replan, announce=announce)

    def _taken(self, name: str) -> StepProcedure:
        found = self._healing.step(name)
        if found is None:
            raise LookupError(f"healing has no step {name}")
        return found

    def _measured(self, name: str) -> StepProcedure:
        taken = self._taken(name)
        return replace(taken, run=self._before(taken.run))

    def _before(self, run: StepRunner) -> StepRunner:
        """Healing's look at what is there, and at what users see of it, goes before the first effect."""
        identify = self._taken(IDENTIFY).run

        async def measured(work: StepWork) -> StepDone:
            if _MEASURED in (work.operation.result or {}) or work.step.touched or work.step.position > 0:
                return await run(work)
            before = await identify(work)
            done = await run(work)
            return msgspec.structs.replace(done, result=(before.result or {}) | (done.result or {}))

        return measured

    async def scale(self, work: StepWork) -> StepDone:
        """Each application by scaling's own step. Raises StepFailed at the first that cannot be scaled: what was done
        is undone then."""
        order = _order(work)
        told, changed = [], False
        for target in order.scales:
            item = work.item(target.order.uid)
            if not item.settled:
                part = _part(work, target)
                done = await self._scaling.set_replicas(part)
                if not item.settled:
                    await item.skip(done.message)
            held = item.held
            changed = changed or held.effect is not None
            told.append({"application_id": target.application_id, "replicas": target.order.replicas})
        names = "; ".join(
            f"{target.place}: {work.step.items[target.order.uid].message or ''}" for target in order.scales
        )
        return StepDone(names[:1000], result={"scaled": told}, outcome=Outcome.CHANGED if changed else None)

    async def undo_scale(self, work: StepWork) -> Undo:
        """Only where the replicas still are what we wrote."""
        undos: list[tuple[str, Undo]] = []
        for target in reversed(_order(work).scales):
            item = work.item(target.order.uid)
            if not item.held.touched:
                continue
            undo = item.held.undo
            if undo is None or undo.state not in _SETTLED:
                undo = await self._scaling.undo_replicas(_part(work, target))
                await item.note_undo(undo)
            undos.append((target.place, undo))
        skipped = [f"{place}: {undo.reason}" for place, undo in undos if undo.state is UndoState.SKIPPED]
        if skipped:
            return Undo(state=UndoState.SKIPPED, reason="; ".join(skipped)[:1000])
        undone = any(undo.state is UndoState.UNDONE for _, undo in undos)
        return Undo(state=UndoState.UNDONE if undone else UndoState.NEEDLESS)


def announce(operation: Operation, state: State) -> Sequence[Announcement]:
    """What remedied by itself is told of with the end of the operation; a failed one escalates the incident."""
    if state is not State.COMPLETED or operation.outcome is not Outcome.CHANGED:
        return ()
    order = msgspec.convert(operation.parameters, RemediationOrder)
    data = data_of(order, operation)
    return (Announcement(type=EventType.INCIDENT_AUTO_REMEDIATED, data=data),)


def _order(work: StepWork) -> RemediationOrder:
    return msgspec.convert(work.operation.parameters, RemediationOrder)


def _part(work: StepWork, target: ScaleTarget) -> OnePart:
    order: ScaleOrder = target.order
    return part_of(work, order.uid, msgspec.to_builtins(order))
