"""Every endpoint of the service, without instances: for OpenAPI and the generated pages of docs/."""

from opsapi.accounts.endpoints import AccountEndpoints
from opsapi.applications.autoscaling_endpoint import AutoscaleEndpoints
from opsapi.applications.changes_endpoint import ChangesEndpoints
from opsapi.applications.reads import ApplicationReadEndpoints
from opsapi.applications.scale_endpoint import ScaleEndpoints
from opsapi.audit.endpoints import AuditEndpoints
from opsapi.backups.backup_endpoint import BackupEndpoints
from opsapi.backups.backups_endpoint import BackupReadEndpoints
from opsapi.backups.restore_endpoint import RestoreEndpoints
from opsapi.health.endpoints import HealthEndpoints
from opsapi.incidents.alerts_endpoint import AlertEndpoints
from opsapi.incidents.endpoints import IncidentEndpoints
from opsapi.incidents.manage_endpoint import ManageIncidentEndpoints
from opsapi.kit.endpoint import declarations
from opsapi.operations.control_endpoints import OperationControlEndpoints
from opsapi.operations.endpoints import OperationEndpoints
from opsapi.operations.guardrail_endpoints import GuardrailEndpoints
from opsapi.playbooks.endpoints import PlaybookEndpoints
from opsapi.playbooks.scanning.endpoint import FindingEndpoints
from opsapi.playbooks.schedules.endpoints import ScheduleEndpoints
from opsapi.webhooks.delivery_endpoints import DeliveryEndpoints
from opsapi.webhooks.endpoints import WebhookEndpoints
from opsapi.workspaces.endpoints import WorkspaceEndpoints

ENDPOINT_CLASSES = (
    HealthEndpoints,
    WorkspaceEndpoints,
    ApplicationReadEndpoints,
    ChangesEndpoints,
    ScaleEndpoints,
    AutoscaleEndpoints,
    BackupEndpoints,
    BackupReadEndpoints,
    RestoreEndpoints,
    FindingEndpoints,
    ScheduleEndpoints,
    PlaybookEndpoints,
    IncidentEndpoints,
    ManageIncidentEndpoints,
    AlertEndpoints,
    OperationEndpoints,
    OperationControlEndpoints,
    GuardrailEndpoints,
    AccountEndpoints,
    AuditEndpoints,
    WebhookEndpoints,
    DeliveryEndpoints,
)
DECLARATIONS = declarations(*ENDPOINT_CLASSES)
