"""What a report becomes: a new incident, or part of one that is there. Pure."""

import hashlib
from datetime import datetime, timedelta

import msgspec

from opsapi.incidents.model import (
    Alert,
    Announced,
    Change,
    Entry,
    EntryKind,
    Incident,
    Scene,
    Severity,
    Source,
    State,
)
from opsapi.incidents.settings import IncidentSettings
from opsapi.incidents.transitions import escalate, raised, reopen, union
from opsapi.webhooks.model import EventType


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody tells of a problem. Reports with the same `key` are about the same incident. Texts are one line but for
    the description; `failed_at`: when that was which is reported, for those who report it again and again. `escalated`:
    people are told at once, for this reason."""

    workspace_id: str
    type: str
    severity: Severity
    source: Source
    title: str
    description: str = ""
    affected_applications: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()
    key: str | None = None
    failed_at: datetime | None = None
    escalated: str | None = None


def caller_key(text: str) -> str:
    """A key that a caller chose; kept as a hash, so that its length does not matter."""
    return f"key:{hashlib.sha256(text.encode()).hexdigest()}"


def alert_key(fingerprint: str) -> str:
    return f"alert:{fingerprint}"


def group_key(text: str) -> str:
    """Of an Alertmanager's group."""
    return f"group:{hashlib.sha256(text.encode()).hexdigest()}"


def keys_of(report: Report) -> tuple[str, ...]:
    return (report.key,) if report.key is not None else ()


def accept(
    scene: Scene, report: Report, settings: IncidentSettings, actor: str, now: datetime, new_id: str
) -> Change | None:
    """None where it tells nothing new: what is blocked is found again by each look."""
    held = scene.by_key.get(report.key) if report.key is not None else None
    if held is not None and held.state is State.RESOLVED:
        resolved_at = held.resolved_at or held.last_seen_at
        if report.failed_at is not None and report.failed_at <= resolved_at:
            return None
        if now - resolved_at > timedelta(seconds=settings.reopen_seconds):
            held = None
    if held is not None:
        if report.failed_at is not None and held.state.open:
            return None
        return _again(held, report, settings, actor, now)
    alike = find_alike(scene, report.type, report.affected_applications, settings, now)
    if alike is not None and report.escalated is None:
        return absorbed(alike, report, actor, now)
    return opened(report, settings, actor, now, new_id)


def find_alike(
    scene: Scene, kind: str, applications: tuple[str, ...], settings: IncidentSettings, now: datetime
) -> Incident | None:
    """An open incident of the same type about one of the same applications, lately heard of."""
    if not settings.merge_seconds:
        return None
    since = now - timedelta(seconds=settings.merge_seconds)
    for held in scene.alike:
        shared = set(held.affected_applications) & set(applications)
        if held.state.open and held.type == kind and shared and held.last_seen_at >= since:
            return held
    return None


def opened(report: Report, settings: IncidentSettings, actor: str, now: datetime, new_id: str) -> Change:
    incident = Incident(
        id=new_id,
        workspace_id=report.workspace_id,
        type=report.type,
        severity=report.severity,
        state=State.FIRING,
        source=report.source,
        title=report.title,
        description=report.description,
        affected_applications=union(report.affected_applications, ()),
        symptoms=union(report.symptoms, ()),
        created_by=actor,
        opened_at=now,
        fired_at=now,
        last_seen_at=now,
    )
    entry = Entry(kind=EntryKind.OPENED, at=now, actor=actor, message=f"Opened by {actor}")
    change = Change(
        before=None,
        after=incident,
        entries=(entry,),
        keys=keys_of(report),
        announced=(Announced(EventType.INCIDENT_OPENED),),
    )
    if report.escalated is None:
        return change
    return _then_escalated(change, report.escalated, settings, actor, now)


def absorbed(held: Incident, report: Report, actor: str, now: datetime) -> Change:
    """The report is part of an incident that is there; what it says stands in the timeline."""
    entry = Entry(
        kind=EntryKind.ABSORBED,
        at=now,
        actor=actor,
        message=f"Another {report.type} was reported by {actor}: the same application, the same type",
        details={"title": report.title, "description": report.description, "severity": report.severity.value},
    )
    return _grown(held, report, actor, now, entry)


def _again(held: Incident, report: Report, settings: IncidentSettings, actor: str, now: datetime) -> Change:
    if held.state is not State.RESOLVED:
        entry = Entry(kind=EntryKind.REPORTED, at=now, actor=actor, message=f"Reported again by {actor}")
        return _grown(held, report, actor, now, entry)
    after, entry = reopen(held, actor, now, f"Reported again by {actor}, and so reopened")
    change = _grown(after, report, actor, now, entry)
    change = msgspec.structs.replace(change, before=held, announced=(Announced(EventType.INCIDENT_OPENED),))
    if report.escalated is None:
        return change
    return _then_escalated(change, report.escalated, settings, actor, now)


def _grown(held: Incident, report: Report, actor: str, now: datetime, entry: Entry) -> Change:
    severity = min(held.severity, report.severity, key=lambda one: one.rank)
    after = msgspec.structs.replace(
        held,
        severity=severity,
        affected_applications=union(held.affected_applications, report.affected_applications),
        symptoms=union(held.symptoms, report.symptoms),
        last_seen_at=now,
    )
    entries = (entry, *raised(held.severity, severity, actor, now))
    return Change(before=held, after=after, entries=entries, keys=keys_of(report))


def _then_escalated(change: Change, why: str, settings: IncidentSettings, actor: str, now: datetime) -> Change:
    """Both transitions stand in the timeline, and both are announced."""
    further = escalate(change.after, actor, now, channels=settings.escalation_channels, why=why)
    return msgspec.structs.replace(
        change,
        after=further.after,
        entries=(*change.entries, *further.entries),
        announced=(*change.announced, *further.announced),
    )


def counted(incident: Incident, alerts: dict[str, Alert]) -> Incident:
    firing = sum(1 for alert in alerts.values() if alert.status == "firing")
    return msgspec.structs.replace(incident, alerts_firing=firing, alerts_total=len(alerts))
