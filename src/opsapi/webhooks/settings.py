"""What an operator can set about webhooks."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.secret import Secret
from opsapi.webhooks.signing import parse_secret

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Hours = Annotated[float, Meta(gt=0, le=24 * 365)]
Days = Annotated[float, Meta(gt=0, le=3650)]
SLACK = "slack:"
WEBHOOK = "webhook:"


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place that events can be sent to by name: where incidents escalate to, who is asked for approvals."""

    name: Annotated[str, Meta(pattern=r"^(slack:#?|webhook:)[A-Za-z0-9._-]{1,80}$")]
    """What it is named by: `slack:#ops` or `webhook:NAME`."""
    url: Secret
    """Where to: Slack's incoming-webhook URL of the channel, or any receiver of Standard Webhooks."""
    secret: Secret | None = None
    """What `webhook:` channels are signed with: `whsec_` and 24 to 64 random bytes in base64."""

    def __post_init__(self) -> None:
        if self.name.startswith(SLACK) != (self.secret is None):
            raise ValueError(f"{self.name}: `webhook:` channels need a secret, `slack:` channels have none")
        if self.secret is not None:
            parse_secret(self.secret)


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deliveries of events to webhooks and channels."""

    allow: tuple[str, ...] = ()
    """Hosts and CIDRs on private or loopback addresses that may be delivered to; only these may use plain http."""
    ca_file: Path | None = None
    """PEM certificates of authorities that are trusted beside the system's."""
    channels: tuple[ChannelSettings, ...] = ()
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 64
    """Deliveries that one process sends at once."""
    per_endpoint: Annotated[int, Meta(ge=1, le=100)] = 4
    """Of those, to one endpoint; one whose last attempt failed gets one at a time."""
    connect_timeout_seconds: Seconds = 5
    """For resolving the host's name and connecting."""
    timeout_seconds: Seconds = 15
    """For a whole attempt."""
    retry_hours: Hours = 24
    """How long a delivery is tried before it is a dead letter."""
    backoff_seconds: Seconds = 5
    """The pause after the first failure; doubles each time, less up to half of it by chance."""
    backoff_max_seconds: Seconds = 3600
    """The longest pause."""
    disable_after_hours: Hours = 120
    """An endpoint that refused every attempt for so long is disabled; one that answers 410 at once."""
    rotation_hours: Hours = 24
    """How long the old secret signs beside the new one when a rotation does not say."""
    keep_days: Days = 7
    """How long delivered events stay in the delivery log."""
    keep_dead_days: Days = 30
    """How long dead letters are kept."""
    poll_seconds: Seconds = 0.5
    """How often new events and due deliveries are looked for."""
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 5
    """How long a stopping process lets attempts end; cut ones are repeated by another."""

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if twice := {one for one in names if names.count(one) > 1}:
            raise ValueError(f"channels: {sorted(twice)[0]!r} stands twice")
