"""The procedure of auto_heal: identify, act by one remedy an application, verify."""

from datetime import timedelta
from typing import Any

import msgspec

from opsapi.applications.ports import Workloads
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Outcome
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure
from opsapi.operations.work import StepWork
from opsapi.playbooks.healing.evicting import Evicting
from opsapi.playbooks.healing.ground import Ground, TargetFailed, order_of
from opsapi.playbooks.healing.model import (
    ACTION,
    IDENTIFY,
    RAISE,
    RESTART,
    ROLL_BACK,
    VERIFY,
    HealingSettings,
    HealOrder,
)
from opsapi.playbooks.healing.templates import Templates
from opsapi.playbooks.healing.verifying import Verifying
from opsapi.policy.book import PolicyBook
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import Objects


class HealingSteps:
    def __init__(
        self,
        clusters: Clusters,
        objects: Objects,
        workloads: Workloads,
        policy: PolicyBook,
        settings: HealingSettings,
        metrics: Metrics | None = None,
    ) -> None:
        self._ground = Ground(clusters, objects, workloads, policy, settings)
        self._evicting = Evicting(self._ground)
        self._templates = Templates(self._ground, self._evicting)
        self._verifying = Verifying(self._ground, metrics)
        self._settings = settings

    def procedure(self, replan: Replanner | None = None) -> Procedure:
        templates = self._templates
        steps = (
            StepProcedure(IDENTIFY, self.identify, timedelta(seconds=5)),
            StepProcedure(RESTART, self._evicting.restart, timedelta(seconds=30), self._evicting.undo),
            StepProcedure(ROLL_BACK, templates.roll_back, timedelta(seconds=5), templates.undo_rollback),
            StepProcedure(RAISE, templates.raise_memory, timedelta(seconds=5), templates.undo_memory),
            StepProcedure(VERIFY, self._verifying.verify, timedelta(seconds=60), self._verifying.undo),
        )
        deadline = timedelta(seconds=self._settings.verify_seconds + 10 * self._settings.replacement_seconds + 60)
        return Procedure(ACTION, steps, deadline, replan=replan)

    async def identify(self, work: StepWork) -> StepDone:
        """Says what was found, and looks once more whether what is to be acted on is still there."""
        order = order_of(work)
        pods = f"{order.unhealthy} unhealthy pod" + ("" if order.unhealthy == 1 else "s")
        message = f"Found {pods}"
        if not order.targets:
            outcome = Outcome.PROPOSED if order.unhealthy else Outcome.NOTHING_TO_DO
            return StepDone(message + _why_nothing(order), result={"findings": _findings(order)}, outcome=outcome)
        before: dict[str, Any] = {}
        failures = []
        for target in order.targets:
            try:
                await self._ground.workload(order, target)
                before[target.place] = await self._verifying.traffic(order, target)
            except TargetFailed as failed:
                failures.append(failed.failure)
        if len(failures) == len(order.targets):
            raise StepFailed(failures[0].code, failures[0].message)
        return StepDone(message, result={"findings": _findings(order), "traffic_before": before})


def _findings(order: HealOrder) -> list[Any]:
    found: list[Any] = msgspec.to_builtins(order.found)
    return found


def _why_nothing(order: HealOrder) -> str:
    reasons = list(dict.fromkeys(f"{one.application}: {one.why}" for one in order.found))
    return f"; nothing was done: {'; '.join(reasons[:3])}"[:900] if reasons else ""
