"""The state machine: what may follow what, and what is written down of it. Pure.

| from | acknowledge | escalate | resolve | merge | fires again | alerts resolved |
|---|---|---|---|---|---|---|
| firing | acknowledged | escalated | resolved, unless an alert fires | merged | | resolved |
| acknowledged | 409 | escalated | resolved, unless an alert fires | merged | | resolved |
| escalated | acknowledged | 409 | resolved, unless an alert fires | merged | | resolved |
| resolved | 409 | 409 | 409 | 409 | firing, for a while | |
| merged | 409 | 409 | 409 | 409 | | |
"""

from datetime import datetime
from typing import Any

import msgspec

from opsapi.incidents.errors import not_allowed
from opsapi.incidents.model import OPEN, Announced, Change, Entry, EntryKind, Incident, Severity, State
from opsapi.kit.errors import InvalidState, StateDetails
from opsapi.webhooks.model import EventType

MOST_NAMED = 200
"""Applications, or symptoms, of one incident."""
TO_ACKNOWLEDGE = frozenset({State.FIRING, State.ESCALATED})
TO_ESCALATE = frozenset({State.FIRING, State.ACKNOWLEDGED})


def moved(incident: Incident, state: State, **changes: Any) -> Incident:
    """One transition further."""
    return msgspec.structs.replace(incident, state=state, revision=incident.revision + 1, **changes)


def check_seen(incident: Incident, seen: int | None) -> None:
    """Raises InvalidState where it has moved on since `seen`."""
    if seen is not None and incident.revision != seen:
        message = f"The incident has become {incident.state.value} meanwhile: look again"
        raise InvalidState(message, StateDetails(resource_id=incident.id, state=incident.state.value))


def acknowledge(incident: Incident, actor: str, at: datetime, note: str | None = None) -> Change:
    """Raises InvalidState."""
    if incident.state not in TO_ACKNOWLEDGE:
        raise not_allowed(
            incident, f"An incident that is {incident.state.value} cannot be acknowledged", TO_ACKNOWLEDGE
        )
    after = moved(incident, State.ACKNOWLEDGED, acknowledged_at=at, acknowledged_by=actor)
    return _one(incident, after, EntryKind.ACKNOWLEDGED, actor, at, f"Acknowledged by {actor}", note)


def escalate(
    incident: Incident,
    actor: str,
    at: datetime,
    *,
    channels: tuple[str, ...],
    why: str,
    note: str | None = None,
    operation_id: str | None = None,
) -> Change:
    """To people: the event goes to subscribers and to `channels`. Raises InvalidState."""
    if incident.state not in TO_ESCALATE:
        raise not_allowed(incident, f"An incident that is {incident.state.value} cannot be escalated", TO_ESCALATE)
    after = moved(incident, State.ESCALATED, escalated_at=at)
    change = _one(incident, after, EntryKind.ESCALATED, actor, at, why, note, channels=list(channels))
    told = Announced(EventType.INCIDENT_ESCALATED, channels, "escalate", operation_id)
    return msgspec.structs.replace(change, announced=(told,))


def resolve(incident: Incident, actor: str, at: datetime, why: str, note: str | None = None) -> Change:
    """Raises InvalidState; also while an alert of it fires."""
    if incident.state not in OPEN:
        raise not_allowed(incident, f"An incident that is {incident.state.value} cannot be resolved")
    if incident.alerts_firing:
        fires = "1 alert of it fires" if incident.alerts_firing == 1 else f"{incident.alerts_firing} alerts of it fire"
        raise not_allowed(incident, f"The incident cannot be resolved while {fires}: silence or cure them first")
    after = moved(incident, State.RESOLVED, resolved_at=at, resolved_by=actor)
    return _one(incident, after, EntryKind.RESOLVED, actor, at, why, note)


def reopen(incident: Incident, actor: str, at: datetime, why: str) -> tuple[Incident, Entry]:
    """Of what was resolved. Raises InvalidState."""
    if incident.state is not State.RESOLVED:
        raise not_allowed(incident, "Only a resolved incident can fire again", frozenset({State.RESOLVED}))
    after = moved(
        incident,
        State.FIRING,
        fired_at=at,
        resolved_at=None,
        resolved_by=None,
        acknowledged_at=None,
        acknowledged_by=None,
        escalated_at=None,
    )
    return after, Entry(kind=EntryKind.REOPENED, at=at, actor=actor, message=why)


def merge(source: Incident, target: Incident, actor: str, at: datetime, note: str | None = None) -> tuple[Change, ...]:
    """`source` is closed by it and keeps its timeline; its alerts and keys are `target`'s from now on.

    Raises InvalidState.
    """
    if source.state not in OPEN:
        raise not_allowed(source, f"An incident that is {source.state.value} cannot be merged")
    if target.state not in OPEN or target.id == source.id:
        raise not_allowed(target, f"Nothing can be merged into {target.id}: it is {target.state.value}")
    closed = moved(source, State.MERGED, merged_into=target.id, alerts_firing=0, alerts_total=0)
    own = _one(source, closed, EntryKind.MERGED, actor, at, f"Merged into {target.id} by {actor}", note)
    severity = min(source.severity, target.severity, key=lambda one: one.rank)
    grown = msgspec.structs.replace(
        target,
        severity=severity,
        affected_applications=union(target.affected_applications, source.affected_applications),
        symptoms=union(target.symptoms, source.symptoms),
        alerts_firing=target.alerts_firing + source.alerts_firing,
        alerts_total=target.alerts_total + source.alerts_total,
        alerts_unknown=target.alerts_unknown or source.alerts_unknown,
        last_seen_at=max(target.last_seen_at, source.last_seen_at),
    )
    absorbed = Entry(
        kind=EntryKind.ABSORBED,
        at=at,
        actor=actor,
        message=f"{source.id} was merged into this by {actor}",
        details={"incident_id": source.id, "title": source.title},
    )
    entries = (absorbed, *raised(target.severity, severity, actor, at))
    return own, Change(before=target, after=grown, entries=entries, takes_over=source.id)


def noted(incident: Incident, actor: str, at: datetime, note: str) -> Change:
    entry = Entry(kind=EntryKind.NOTE, at=at, actor=actor, message=f"Note by {actor}", details={"note": note})
    return Change(before=incident, after=incident, entries=(entry,))


def raised(before: Severity, after: Severity, actor: str, at: datetime) -> tuple[Entry, ...]:
    """Severity only ever grows by itself."""
    if after.rank >= before.rank:
        return ()
    message = f"Severity raised from {before.value} to {after.value}"
    return (Entry(kind=EntryKind.SEVERITY_RAISED, at=at, actor=actor, message=message),)


def union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """In order, each once, and only so many."""
    return tuple(dict.fromkeys((*first, *second)))[:MOST_NAMED]


def _one(
    before: Incident,
    after: Incident,
    kind: EntryKind,
    actor: str,
    at: datetime,
    why: str,
    note: str | None,
    **details: Any,
) -> Change:
    told = details | ({"note": note} if note is not None else {})
    entry = Entry(kind=kind, at=at, actor=actor, message=why, details=told)
    return Change(before=before, after=after, entries=(entry,))
