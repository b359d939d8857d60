"""What webhooks need of the outside: two stores, and somebody who sends. Every method of a store may raise
DependencyUnavailable."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from opsapi.kit.caller import Call, System
from opsapi.webhooks.model import Attempt, Delivery, DeliveryState, DisabledBecause, Event, Webhook


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is what every attempt sends."""

    id: str
    event_id: str
    event_type: str
    workspace_id: str
    target: str
    body: bytes


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that this process may attempt until its lease ends; `token` fences off who was too late.

    `webhook` is None for a channel's, and where the webhook was removed meanwhile; `keys` None where no configured key
    opens its secrets. `once`: somebody waits for this one attempt.
    """

    delivery: Delivery
    body: bytes
    token: int
    give_up_at: datetime
    webhook: Webhook | None
    keys: tuple[bytes, ...] | None
    once: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended. `healthy`: what it tells of the endpoint, None nothing; `disable`: it gets nothing more."""

    attempt: Attempt
    state: DeliveryState
    next_attempt_at: datetime | None
    healthy: bool | None
    disable: DisabledBecause | None = None


class WebhookPatch(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a field as it is. Enabling forgets why it was disabled and that it failed."""

    url: str | None = None
    description: str | None = None
    event_types: list[str] | None = None
    workspaces: list[str] | None = None
    enabled: bool | None = None


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    target: str
    state: DeliveryState | None = None
    before: tuple[datetime, str] | None = None
    limit: int = 50


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What waits: events that were not handed out yet and deliveries that are due. `oldest` is since when the one that
    waits longest could have gone."""

    events: int
    deliveries: int
    oldest: datetime | None


Route = Callable[[Event, Sequence[Webhook]], Sequence[NewDelivery]]


class WebhookStore(Protocol):
    async def webhooks(self, *, after: str, limit: int) -> list[Webhook]:
        """By id, from the first one behind `after`."""
        ...

    async def webhook(self, webhook_id: str) -> Webhook | None: ...

    async def add(self, webhook: Webhook, secret: bytes, by: Call | System) -> None:
        """Each change below is written with its audit entry in one transaction. Raises NoSigningKey."""
        ...

    async def update(self, webhook_id: str, patch: WebhookPatch, by: Call | System) -> Webhook | None:
        """Disabling makes dead letters of what waits for it."""
        ...

    async def rotate(self, webhook_id: str, secret: bytes, until: datetime, by: Call | System) -> Webhook | None:
        """The secret so far signs too until then; one before it no longer. Raises NoSigningKey."""
        ...

    async def remove(self, webhook_id: str, by: Call | System) -> bool:
        """With its secrets and its delivery log. False where there is none."""
        ...

    async def reseal(self) -> int:
        """Seals again with the first key what an older one sealed; how many webhooks that were."""
        ...


class DeliveryStore(Protocol):
    async def dispatch(self, route: Route, limit: int, retry: timedelta) -> int:
        """Turns waiting events, the oldest first, into deliveries, all in one transaction that no other process shares;
        how many events that were. `route` is given the enabled webhooks; deliveries are tried for `retry`."""
        ...

    async def claim(
        self, limit: int, lease: timedelta, room: Callable[[str], int], full: Collection[str]
    ) -> list[Claimed]:
        """Due deliveries, the longest due first, none of the targets `full` and at most `room(target)` of any other;
        counts an attempt on each. What a dead process had claimed is due again when its lease has run out."""
        ...

    async def claim_new(self, delivery: NewDelivery, lease: timedelta) -> Claimed:
        """A delivery that is attempted once, now, by who asks; never handed to anybody else."""
        ...

    async def record(self, claimed: Claimed, verdict: Verdict) -> bool:
        """False where the claim was lost: nothing is changed then."""
        ...

    async def deliveries(self, wanted: DeliveryFilter) -> list[Delivery]:
        """The newest first."""
        ...

    async def redeliver(self, delivery_id: str, target: str, retry: timedelta, by: Call | System) -> Delivery | None:
        """Makes it due now and tries it for another `retry`; None where `target` has no such delivery."""
        ...

    async def backlog(self) -> Backlog: ...

    async def purge(self, keep: timedelta, keep_dead: timedelta) -> int:
        """Deletes what ended longer ago, and events that were handed out longer ago than a day; how many rows."""
        ...


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request. `error` in our own words, None where an answer came; `response` is the beginning of a
    refusal's body, printable; `retry_after` in seconds where the receiver asked for a pause."""

    duration_ms: float
    status: int | None = None
    error: str | None = None
    response: str | None = None
    retry_after: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Sender(Protocol):
    async def refusal(self, url: str) -> str | None:
        """Why nothing may be sent there, as a reason for the field `url`; None where it may."""
        ...

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        """POSTs JSON once: no redirect is followed, nothing is raised but cancellation."""
        ...
