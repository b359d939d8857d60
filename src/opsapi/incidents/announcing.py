"""What is told of incidents to webhooks and channels."""

from datetime import datetime
from typing import Any

import msgspec

from opsapi.incidents.model import Announced, Incident
from opsapi.incidents.remediation_model import RemediationOrder
from opsapi.kit.ids import new_id
from opsapi.operations.model import Operation
from opsapi.webhooks.model import Event
from opsapi.webhooks.schemas import IncidentData


def data_of(order: RemediationOrder, operation: Operation) -> dict[str, Any]:
    """Of a remediation that has ended, with the incident as it was when it was planned."""
    incident = order.incident
    data: dict[str, Any] = msgspec.to_builtins(
        IncidentData(
            workspace_id=order.workspace_id,
            incident_id=incident.id,
            type=incident.type,
            severity=incident.severity,
            status=incident.state,
            title=incident.title,
            affected_applications=list(order.applications),
            action=operation.action,
            operation_id=operation.id,
        )
    )
    return data


def event_of(incident: Incident, told: Announced, at: datetime) -> Event:
    data = IncidentData(
        workspace_id=incident.workspace_id,
        incident_id=incident.id,
        type=incident.type,
        severity=incident.severity.value,
        status=incident.state.value,
        title=incident.title,
        affected_applications=list(incident.affected_applications),
        action=told.action,
        operation_id=told.operation_id,
    )
    return Event(
        id=new_id("evt"),
        type=told.type,
        workspace_id=incident.workspace_id,
        occurred_at=at,
        data=msgspec.to_builtins(data),
        channels=told.channels,
    )
