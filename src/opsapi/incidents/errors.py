"""What callers are told about incidents."""

from opsapi.incidents.model import OPEN, Incident, State
from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails


class IncidentNotFound(ResourceNotFound):
    """Also for one in a workspace that the caller may not see."""

    def __init__(self, incident_id: str) -> None:
        super().__init__("incident", incident_id)


def not_allowed(incident: Incident, message: str, allowed_from: frozenset[State] = OPEN) -> InvalidState:
    allowed = [state.value for state in State if state in allowed_from]
    return InvalidState(
        message, StateDetails(resource_id=incident.id, state=incident.state.value, allowed_from=allowed)
    )
