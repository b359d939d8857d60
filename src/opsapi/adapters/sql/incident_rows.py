"""Incidents, alerts and entries as rows, and back."""

from typing import Any

import msgspec
import sqlalchemy as sa

from opsapi.incidents.model import Alert, AlertStatus, Entry, EntryKind, Incident, Severity, Source, State
from opsapi.incidents.ports import Linked


def incident_row(incident: Incident) -> dict[str, Any]:
    held = msgspec.structs.asdict(incident)
    return held | {
        "severity": incident.severity.value,
        "state": incident.state.value,
        "source": incident.source.value,
        "rank": incident.rank,
        "affected_applications": list(incident.affected_applications),
        "symptoms": list(incident.symptoms),
    }


def incident_of(row: sa.RowMapping) -> Incident:
    held = {name: row[name] for name in Incident.__struct_fields__}
    return Incident(
        **held
        | {
            "severity": Severity(row["severity"]),
            "state": State(row["state"]),
            "source": Source(row["source"]),
            "affected_applications": tuple(row["affected_applications"]),
            "symptoms": tuple(row["symptoms"]),
        }
    )


def alert_row(incident_id: str, alert: Alert) -> dict[str, Any]:
    firing = alert.status is AlertStatus.FIRING
    return msgspec.structs.asdict(alert) | {
        "incident_id": incident_id,
        "status": alert.status.value,
        "severity": alert.severity.value,
        "rank": alert.severity.rank + (0 if firing else len(Severity)),
    }


def alert_of(row: sa.RowMapping) -> Alert:
    held = {name: row[name] for name in Alert.__struct_fields__}
    return Alert(**held | {"status": AlertStatus(row["status"]), "severity": Severity(row["severity"])})


def entry_row(incident_id: str, position: int, entry: Entry) -> dict[str, Any]:
    return msgspec.structs.asdict(entry) | {
        "incident_id": incident_id,
        "position": position,
        "kind": entry.kind.value,
    }


def entry_of(row: sa.RowMapping) -> Entry:
    return Entry(**{name: row[name] for name in Entry.__struct_fields__} | {"kind": EntryKind(row["kind"])})


def linked_of(row: sa.RowMapping) -> Linked:
    return Linked(**row)
