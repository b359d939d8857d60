"""Autoscaling is carried out by scaling's own steps; what is its own is the event at its end."""

from collections.abc import Sequence

import msgspec

from opsapi.applications.autoscaling_model import AutoscaleOrder, ScalingAction
from opsapi.applications.autoscaling_planning import ACTION
from opsapi.applications.scaling_steps import ScalingSteps
from opsapi.operations.model import Announcement, Operation, Outcome, State
from opsapi.operations.procedures import Procedure, Replanner
from opsapi.webhooks.model import EventType
from opsapi.webhooks.schemas import AutoscaleData


def autoscale_procedure(scaling: ScalingSteps, replan: Replanner) -> Procedure:
    return Procedure(ACTION, scaling.replica_steps(), scaling.deadline, replan=replan, announce=announce)


def announce(operation: Operation, state: State) -> Sequence[Announcement]:
    """Once the replicas are set and verified."""
    order = msgspec.convert(operation.parameters, AutoscaleOrder)
    if state is not State.COMPLETED or operation.outcome is not Outcome.CHANGED or order.action is ScalingAction.NONE:
        return ()
    data = AutoscaleData(
        workspace_id=operation.workspace_id,
        application_id=operation.resource_id,
        operation_id=operation.id,
        scaling_action=order.action.value,
        previous_replicas=order.previous,
        new_replicas=order.replicas,
        reason=order.decided,
        requested_by=operation.requested_by,
    )
    return (Announcement(type=EventType.AUTOSCALE_TRIGGERED, data=msgspec.to_builtins(data)),)
