"""Alertmanager's webhook payload, version 4, and the alerts in it, made harmless. Pure.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from opsapi.incidents.matching import MATCHED
from opsapi.incidents.model import Alert, AlertStatus, Severity
from opsapi.kit.endpoint import Body
from opsapi.kit.text import one_line

MAX_LABELS = 64
"""Of one alert; those that tell its application are kept before others."""
MAX_NAME = 128
MAX_VALUE = 1000
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
_NOT_YET = datetime(1970, 1, 1, tzinfo=UTC)
"""Go's zero time (year 1) and whatever else lies before this stands for `not known`."""
Texts = dict[Annotated[str, Meta(max_length=1024)], Annotated[str, Meta(max_length=65536)]]
Moment = Annotated[datetime, Meta(tz=True)]
SEVERITIES = {
    Severity.CRITICAL: ("critical", "crit", "page", "fatal", "emergency", "disaster", "p0", "p1", "sev0", "sev1"),
    Severity.HIGH: ("high", "error", "major", "p2", "sev2"),
    Severity.MEDIUM: ("medium", "warning", "warn", "average", "p3", "sev3"),
    Severity.LOW: ("low", "info", "informational", "notice", "minor", "none", "p4", "p5", "sev4", "sev5"),
}
"""Words of the severity label, in lower case. What is missing or unknown counts as medium."""
_BY_WORD = {word: severity for severity, words in SEVERITIES.items() for word in words}


class WireAlert(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Fields that later versions add are passed over."""

    status: Literal["firing", "resolved"]
    labels: Texts
    annotations: Texts = {}
    starts_at: Moment
    ends_at: Moment | None = None
    generator_url: str = msgspec.field(default="", name="generatorURL")
    fingerprint: str = ""


class AlertsBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=False, rename="camel"):
    """What Alertmanager posts to a `webhook_config`: one group's alerts. Fields that later versions add are passed
    over."""

    version: Literal["4"]
    group_key: Annotated[str, Meta(min_length=1, max_length=16384)]
    status: Literal["firing", "resolved"]
    truncated_alerts: Annotated[int, Meta(ge=0)] = 0
    receiver: str = ""
    group_labels: Texts = msgspec.field(default_factory=dict)
    common_labels: Texts = msgspec.field(default_factory=dict)
    common_annotations: Texts = msgspec.field(default_factory=dict)
    external_url: str = msgspec.field(default="", name="externalURL")
    alerts: list[WireAlert]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One group's alerts of one workspace, as they are now."""

    workspace_id: str
    group: str
    alerts: tuple[Alert, ...]
    truncated: bool = False


def severity_of(labels: dict[str, str], label: str) -> Severity:
    return _BY_WORD.get(labels.get(label, "").strip().lower(), Severity.MEDIUM)


def alert_of(wire: WireAlert, severity_label: str, application_id: str | None, now: datetime) -> Alert:
    """Bounded, on one line each, without control characters; whatever the clocks of others say, nothing starts in the
    future."""
    labels = _bounded(wire.labels)
    starts_at = min(_known(wire.starts_at) or now, now)
    ends_at = _known(wire.ends_at)
    firing = wire.status == "firing"
    return Alert(
        fingerprint=_fingerprint(wire),
        status=AlertStatus.FIRING if firing else AlertStatus.RESOLVED,
        severity=severity_of(labels, severity_label),
        labels=labels,
        annotations=_bounded(wire.annotations),
        starts_at=starts_at,
        ends_at=None if firing else min(max(ends_at or now, starts_at), now),
        application_id=application_id,
    )


def _known(moment: datetime | None) -> datetime | None:
    if moment is None or moment < _NOT_YET:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


def _fingerprint(wire: WireAlert) -> str:
    """Alertmanager's own; of whoever sends none, or what is none, one over all labels."""
    if _FINGERPRINT.fullmatch(wire.fingerprint):
        return wire.fingerprint
    return hashlib.sha256(msgspec.json.encode(sorted(wire.labels.items()))).hexdigest()[:32]


def _bounded(texts: dict[str, str]) -> dict[str, str]:
    found = {}
    for name in sorted(texts, key=lambda name: (name not in MATCHED, name))[:MAX_LABELS]:
        shown = one_line(name)
        if shown:
            found[cut(shown, MAX_NAME)] = cut(one_line(texts[name]) or "", MAX_VALUE)
    return found


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
