"""What a notification of Alertmanager changes: one incident a group, none twice, each alert in the one that has it.
Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from opsapi.incidents.alertmanager import MAX_VALUE, Notice, cut
from opsapi.incidents.model import (
    Alert,
    AlertStatus,
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
from opsapi.incidents.opening import Report, alert_key, counted, find_alike, group_key, opened
from opsapi.incidents.ports import Sought
from opsapi.incidents.settings import IncidentSettings
from opsapi.incidents.transitions import raised, reopen, resolve, union
from opsapi.webhooks.model import EventType

APPLICATION_FAILURE = "application_failure"
INFRASTRUCTURE = "infrastructure"
MAX_KEPT = 2000
"""Alerts of one incident; of what comes beyond, only that there is more is kept."""
_SHOWN = 10


def sought_of(notice: Notice) -> Sought:
    """What a notification has to be shown."""
    firing = [alert for alert in notice.alerts if alert.status is AlertStatus.FIRING]
    keys = dict.fromkeys(alert_key(alert.fingerprint) for alert in notice.alerts)
    return Sought(
        workspace_id=notice.workspace_id,
        keys=(group_key(notice.group), *keys),
        type=type_of(firing),
        applications=_applications(firing),
    )


def type_of(alerts: Iterable[Alert]) -> str:
    return APPLICATION_FAILURE if any(alert.application_id for alert in alerts) else INFRASTRUCTURE


@dataclass(frozen=True, slots=True)
class Receipt:
    """One notification that meets its workspace. Repeating it changes nothing more than when something was last heard
    of."""

    scene: Scene
    notice: Notice
    settings: IncidentSettings
    actor: str
    now: datetime
    new_id: Callable[[], str]

    def changes(self) -> list[Change]:
        shares, homeless = self._shares()
        group = self._living(self.scene.by_key.get(group_key(self.notice.group)))
        changes = [self._updated(home, alerts) for home, alerts in shares.values()]
        if homeless:
            changes.append(self._opened(homeless))
        if group is None and changes:
            first = msgspec.structs.replace(changes[-1], keys=(group_key(self.notice.group), *changes[-1].keys))
            changes[-1] = first
        return changes

    def _shares(self) -> tuple[dict[str, tuple[Incident, list[Alert]]], list[Alert]]:
        """Each alert with the incident that has it, else its group's, else one about the same application; and those
        that need a new one. What was never seen to fire, and is resolved, concerns nobody."""
        group = self._living(self.scene.by_key.get(group_key(self.notice.group)))
        shares: dict[str, tuple[Incident, list[Alert]]] = {}
        homeless: list[Alert] = []
        for alert in {alert.fingerprint: alert for alert in self.notice.alerts}.values():
            home = self._living(self.scene.by_key.get(alert_key(alert.fingerprint))) or group
            if home is not None:
                shares.setdefault(home.id, (home, []))[1].append(alert)
            elif alert.status is AlertStatus.FIRING:
                homeless.append(alert)
        kind = type_of(homeless)
        alike = find_alike(self.scene, kind, _applications(homeless), self.settings, self.now)
        if homeless and alike is not None:
            shares.setdefault(alike.id, (alike, []))[1].extend(homeless)
            return shares, []
        return shares, homeless

    def _living(self, held: Incident | None) -> Incident | None:
        """One that its alerts still belong to: open, or resolved so lately that it would be reopened."""
        if held is None or held.state is State.MERGED:
            return None
        limit = timedelta(seconds=self.settings.reopen_seconds)
        if held.state is State.RESOLVED and self.now - (held.resolved_at or self.now) > limit:
            return None
        return held

    def _opened(self, alerts: list[Alert]) -> Change:
        report = Report(
            workspace_id=self.notice.workspace_id,
            type=type_of(alerts),
            severity=_worst(alerts, alerts[0].severity),
            source=Source.ALERTMANAGER,
            title=_title(alerts),
            description=cut(_annotation(alerts, "description"), MAX_VALUE),
            affected_applications=_applications(alerts),
        )
        change = opened(report, self.settings, self.actor, self.now, self.new_id())
        return self._with_alerts(change, {}, alerts)

    def _updated(self, held: Incident, alerts: list[Alert]) -> Change:
        """What fires again reopens what was resolved; when the last alert is resolved, so is what alerts had opened."""
        change = Change(before=held, after=msgspec.structs.replace(held, last_seen_at=self.now))
        fires = any(alert.status is AlertStatus.FIRING for alert in alerts)
        if held.state is State.RESOLVED and fires:
            why = "An alert of it fires again, and so it was reopened"
            after, entry = reopen(change.after, self.actor, self.now, why)
            told = (Announced(EventType.INCIDENT_OPENED),)
            change = msgspec.structs.replace(change, after=after, entries=(entry,), announced=told)
        change = self._with_alerts(change, self.scene.alerts.get(held.id, {}), alerts)
        after = change.after
        over = after.state.open and after.alerts_total and not after.alerts_firing and not after.alerts_unknown
        if over and after.source is Source.ALERTMANAGER and not fires:
            ended = resolve(after, self.actor, self.now, "All its alerts are resolved")
            return msgspec.structs.replace(change, after=ended.after, entries=(*change.entries, *ended.entries))
        return change

    def _with_alerts(self, change: Change, known: dict[str, Alert], alerts: list[Alert]) -> Change:
        room = max(0, MAX_KEPT - len(known))
        fresh = [alert for alert in alerts if alert.fingerprint not in known and alert.status is AlertStatus.FIRING]
        kept = [alert for alert in alerts if alert.fingerprint in known] + fresh[:room]
        differing = [alert for alert in kept if _differs(known.get(alert.fingerprint), alert)]
        after = counted(change.after, known | {alert.fingerprint: alert for alert in kept})
        firing = [alert for alert in kept if alert.status is AlertStatus.FIRING]
        severity = _worst(firing, after.severity)
        unknown = self.notice.truncated or len(fresh) > room
        after = msgspec.structs.replace(
            after,
            severity=severity,
            affected_applications=union(after.affected_applications, _applications(firing)),
            alerts_unknown=unknown or (after.alerts_unknown and bool(firing)),
        )
        entries = [*change.entries, *_told(known, differing, self.actor, self.now)]
        entries += raised(change.after.severity, severity, self.actor, self.now)
        keys = tuple(alert_key(alert.fingerprint) for alert in kept)
        return msgspec.structs.replace(
            change, after=after, entries=tuple(entries), alerts=tuple(differing), keys=(*change.keys, *keys)
        )


def _differs(before: Alert | None, alert: Alert) -> bool:
    """`ends_at` of one that had ended is not news: resolved notifications are repeated too."""
    if before is None or before.status is not alert.status:
        return True
    return alert.status is AlertStatus.FIRING and msgspec.structs.replace(before, ends_at=None) != alert


def _told(known: dict[str, Alert], differing: list[Alert], actor: str, now: datetime) -> list[Entry]:
    """One entry for all that began to fire, one for all that ended, however many they are."""
    turned = [
        alert
        for alert in differing
        if (before := known.get(alert.fingerprint)) is None or before.status is not alert.status
    ]
    entries = []
    for status, kind, verb in (
        (AlertStatus.FIRING, EntryKind.ALERTS_FIRING, "fires"),
        (AlertStatus.RESOLVED, EntryKind.ALERTS_RESOLVED, "resolved"),
    ):
        own = [alert for alert in turned if alert.status is status]
        if own:
            plural = "1 alert" if len(own) == 1 else f"{len(own)} alerts"
            message = f"{plural} {'fire' if len(own) > 1 and verb == 'fires' else verb}"
            shown = [{"alertname": alert.name, "fingerprint": alert.fingerprint} for alert in own[:_SHOWN]]
            entries.append(Entry(kind=kind, at=now, actor=actor, message=message, details={"alerts": shown}))
    return entries


def _applications(alerts: Iterable[Alert]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(alert.application_id for alert in alerts if alert.application_id is not None))


def _worst(alerts: Iterable[Alert], least: Severity) -> Severity:
    return min((least, *(alert.severity for alert in alerts)), key=lambda one: one.rank)


def _annotation(alerts: list[Alert], name: str) -> str:
    return next((text for alert in alerts if (text := alert.annotations.get(name, ""))), "")


def _title(alerts: list[Alert]) -> str:
    """What the worst alert says of itself, and how many more there are."""
    worst = min(alerts, key=lambda alert: (alert.severity.rank, alert.name, alert.fingerprint))
    text = worst.annotations.get("summary") or worst.annotations.get("message") or worst.name
    more = f" (and {len(alerts) - 1} more)" if len(alerts) > 1 else ""
    return cut(text, 280) + more
