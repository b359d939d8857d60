"""What an operator can set about incidents."""

from typing import Annotated

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, le=30 * 86400)]
Label = Annotated[str, Meta(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]{0,127})?$")]


class IncidentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Incidents: what alerts become, and when people are told."""

    workspace_label: Label = ""
    """A label of alerts that names their workspace; only one in which the posting account holds `incident:write` is
    believed. Set it with `external_labels` or relabeling, so that no tenant can. Empty: the account must be bound to
    one workspace."""
    severity_label: Label = "severity"
    """The label that tells an alert's severity."""
    escalation_channels: tuple[str, ...] = ()
    """Channels of `webhooks.channels` that are told when an incident escalates, besides the subscribed webhooks."""
    escalate_after_seconds: Seconds = 900
    """How long a high or critical incident may fire before it escalates by itself; 0: never."""
    reopen_seconds: Seconds = 600
    """What fires again so soon after it was resolved reopens its incident; later it is a new one."""
    merge_seconds: Seconds = 600
    """What is reported of an application while an incident of the same type about it was last heard of within this
    time belongs to that one; 0: each report has an incident of its own."""
    max_alerts: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    """Alerts that one notification may hold; set Alertmanager's `max_alerts` no higher."""
    poll_seconds: Annotated[float, Meta(gt=0, le=600)] = 10
    """How often escalations that are due, blocked targets and ended remediations are looked for."""
    keep_days: Annotated[float, Meta(gt=0, le=3650)] = 180
    """How long resolved and merged incidents are kept."""
