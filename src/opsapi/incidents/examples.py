"""What the API's pages show."""

from typing import Any

CREATING = {
    "workspace_id": "ws-123",
    "type": "application_failure",
    "severity": "high",
    "title": "The shop answers with errors",
    "description": "Since the release of 14:20, one request in ten fails.",
    "affected_applications": ["app-123"],
    "symptoms": ["high_error_rate", "pod_crashes"],
    "key": "shop-errors",
}
_ROW: dict[str, Any] = {
    "incident_id": "inc-456",
    "workspace_id": "ws-123",
    "type": "application_failure",
    "severity": "high",
    "state": "firing",
    "title": "The shop answers with errors",
    "affected_applications": ["app-123"],
    "alerts_firing": 0,
    "opened_at": "2024-01-20T15:30:00Z",
    "last_seen_at": "2024-01-20T15:30:00Z",
    "merged_into": None,
}
CREATED = _ROW | {"created": True}
INCIDENT = _ROW | {
    "state": "acknowledged",
    "source": "alertmanager",
    "description": "Since the release of 14:20, one request in ten fails.",
    "symptoms": [],
    "created_by": "sa-alertmanager",
    "firing_since": "2024-01-20T15:30:00Z",
    "acknowledged_at": "2024-01-20T15:31:00Z",
    "acknowledged_by": "sa-agent",
    "escalated_at": None,
    "resolved_at": None,
    "resolved_by": None,
    "alerts_firing": 1,
    "alerts_total": 1,
    "alerts_complete": True,
    "actions": ["auto_remediate", "escalate", "merge", "note"],
    "timeline": [
        {
            "at": "2024-01-20T15:30:00Z",
            "event": "opened",
            "actor": "sa-alertmanager",
            "message": "Opened by sa-alertmanager",
            "details": {},
        },
        {
            "at": "2024-01-20T15:31:00Z",
            "event": "acknowledged",
            "actor": "sa-agent",
            "message": "Acknowledged by sa-agent",
            "details": {"note": "The last release is suspected"},
        },
    ],
    "alerts": [
        {
            "fingerprint": "c4ca4238a0b92382",
            "status": "firing",
            "severity": "high",
            "application_id": "app-123",
            "starts_at": "2024-01-20T15:29:30Z",
            "ends_at": None,
            "labels": {"alertname": "HighErrorRate", "namespace": "shop", "deployment": "web", "severity": "error"},
            "annotations": {"summary": "The shop answers with errors"},
        }
    ],
    "operations": [
        {
            "operation_id": "op-789",
            "operation": "auto_remediate",
            "status": "running",
            "outcome": None,
            "requested_by": "sa-agent",
            "started_at": "2024-01-20T15:31:30Z",
            "finished_at": None,
        }
    ],
    "notes": [{"at": "2024-01-20T15:31:00Z", "actor": "sa-agent", "text": "The last release is suspected"}],
}
MANAGING = {
    "action": "auto_remediate",
    "incident_details": {
        "type": "application_failure",
        "severity": "high",
        "affected_applications": ["app-123"],
        "symptoms": ["high_error_rate", "pod_crashes"],
    },
    "remediation_strategy": "restart_and_scale",
    "confirmation_required": False,
}
MANAGED = {
    "incident_id": "inc-456",
    "action": "auto_remediate",
    "status": "in_progress",
    "started_at": "2024-01-20T15:30:00Z",
    "remediation_steps": [
        {"step": "restart_failed_pods", "status": "pending", "estimated_duration": "30s"},
        {"step": "scale_healthy_replicas", "status": "pending", "estimated_duration": "2m"},
        {"step": "verify_health", "status": "pending", "estimated_duration": "60s"},
    ],
    "estimated_completion": "2024-01-20T15:33:30Z",
    "operation_id": "op-789",
}
ACKNOWLEDGING = {"action": "acknowledge", "note": "The last release is suspected"}
ACKNOWLEDGED = {
    "incident_id": "inc-456",
    "action": "acknowledge",
    "status": "acknowledged",
    "started_at": "2024-01-20T15:31:00Z",
}
ALERTS = {
    "version": "4",
    "groupKey": '{}:{alertname="HighErrorRate"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "opsapi",
    "groupLabels": {"alertname": "HighErrorRate"},
    "commonLabels": {"alertname": "HighErrorRate", "namespace": "shop", "deployment": "web", "severity": "error"},
    "commonAnnotations": {"summary": "The shop answers with errors"},
    "externalURL": "https://alertmanager.example.com",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "HighErrorRate", "namespace": "shop", "deployment": "web", "severity": "error"},
            "annotations": {"summary": "The shop answers with errors"},
            "startsAt": "2024-01-20T15:29:30Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://prometheus.example.com/graph",
            "fingerprint": "c4ca4238a0b92382",
        }
    ],
}
RECEIVED = {"accepted": 1, "rejected": [], "incidents": [{"incident_id": "inc-456", "state": "firing"}]}
