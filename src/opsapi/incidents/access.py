"""Who may see and act on an incident: what holds in its workspace, whatever the path says."""

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.incidents.errors import IncidentNotFound
from opsapi.incidents.model import Incident
from opsapi.incidents.ports import IncidentStore
from opsapi.kit.caller import Call
from opsapi.kit.permissions import Permission
from opsapi.workspaces.errors import WorkspaceNotFound

_LONGEST_ID = 80


async def visible(store: IncidentStore, call: Call, incident_id: str) -> Incident:
    """Raises IncidentNotFound, also for what the account may not see."""
    incident = await store.get(incident_id) if len(incident_id) <= _LONGEST_ID else None
    if incident is None or not call.caller.grants.allows(Permission.INCIDENT_READ, incident.workspace_id):
        raise IncidentNotFound(incident_id)
    call.audit.workspace_id = incident.workspace_id
    return incident


async def writable(store: IncidentStore, call: Call, incident_id: str) -> Incident:
    """Raises IncidentNotFound, InsufficientInternalPermissions."""
    incident = await visible(store, call, incident_id)
    require(call, Permission.INCIDENT_WRITE, incident.workspace_id)
    return incident


def require(call: Call, permission: Permission, workspace_id: str) -> None:
    """Raises InsufficientInternalPermissions; of a workspace that the account may not see at all, WorkspaceNotFound."""
    grants = call.caller.grants
    if not grants.sees(workspace_id):
        raise WorkspaceNotFound(workspace_id)
    if not grants.allows(permission, workspace_id):
        raise InsufficientInternalPermissions(permission, grants)
