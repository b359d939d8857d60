"""What is told of incidents to webhooks and channels."""

from datetime import datetime

import msgspec

from opsapi.incidents.model import Announced, Incident
from opsapi.kit.ids import new_id
from opsapi.webhooks.model import Event
from opsapi.webhooks.schemas import IncidentData


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
