"""Creating, changing, rotating, pinging and removing webhooks, and redelivering."""

import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.duration import parse_duration
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.ids import new_id
from opsapi.kit.secret import Secret
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.errors import DeliveryNotFound, NoSuchChannel, WebhookDisabled, WebhookNotFound
from opsapi.webhooks.model import PING, Attempt, Delivery, EventType, Webhook
from opsapi.webhooks.payloads import ping_payload
from opsapi.webhooks.ports import DeliveryStore, NewDelivery, Sender, WebhookPatch, WebhookStore
from opsapi.webhooks.settings import SLACK, WEBHOOK, WebhookSettings
from opsapi.webhooks.signing import new_secret, secret_text

_WORKSPACE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_ROTATION = timedelta(days=30)
_LONGEST_DESCRIPTION = 500


class NewWebhook(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    description: str = ""
    event_types: Sequence[str] = ()
    workspaces: Sequence[str] = ()
    enabled: bool = True


class Administration:
    def __init__(
        self,
        store: WebhookStore,
        deliveries: DeliveryStore,
        sender: Sender,
        deliverer: Deliverer,
        channels: Channels,
        clock: Clock,
        settings: WebhookSettings,
    ) -> None:
        self._store = store
        self._deliveries = deliveries
        self._sender = sender
        self._deliverer = deliverer
        self._channels = channels
        self._clock = clock
        self._settings = settings

    async def create(self, by: Call | System, new: NewWebhook) -> tuple[Webhook, Secret]:
        """The secret's text is told here and never again. Raises ValidationFailed, NoSigningKey."""
        await self._check(new.url, new.description, new.event_types, new.workspaces)
        now = self._clock.now()
        webhook = Webhook(
            id=new_id("wh"),
            url=new.url,
            description=new.description,
            event_types=list(dict.fromkeys(new.event_types)),
            workspaces=list(dict.fromkeys(new.workspaces)),
            enabled=new.enabled,
            disabled_because=None,
            disabled_at=None,
            failing_since=None,
            last_success_at=None,
            previous_secret_until=None,
            created_at=now,
            created_by=by.caller.account_id if isinstance(by, Call) else by.account_id,
            updated_at=now,
        )
        secret = new_secret()
        await self._store.add(webhook, secret, by)
        return webhook, secret_text(secret)

    async def get(self, webhook_id: str) -> Webhook:
        webhook = await self._store.webhook(webhook_id)
        if webhook is None:
            raise WebhookNotFound(webhook_id)
        return webhook

    async def update(self, by: Call | System, webhook_id: str, patch: WebhookPatch) -> Webhook:
        await self.get(webhook_id)
        await self._check(patch.url, patch.description or "", patch.event_types or (), patch.workspaces or ())
        updated = await self._store.update(webhook_id, patch, by)
        if updated is None:
            raise WebhookNotFound(webhook_id)
        return updated

    async def remove(self, by: Call | System, webhook_id: str) -> None:
        if not await self._store.remove(webhook_id, by):
            raise WebhookNotFound(webhook_id)

    async def rotate(self, by: Call | System, webhook_id: str, grace: str | None) -> tuple[Webhook, Secret]:
        """Both secrets sign for `grace` (`24h`; `0s` ends the old one at once)."""
        until = self._clock.now() + self._grace(grace)
        secret = new_secret()
        rotated = await self._store.rotate(webhook_id, secret, until, by)
        if rotated is None:
            raise WebhookNotFound(webhook_id)
        return rotated, secret_text(secret)

    async def ping(self, webhook_id: str) -> Attempt:
        webhook = await self.get(webhook_id)
        delivery = NewDelivery(
            id=new_id("dlv"),
            event_id=new_id("evt"),
            event_type=PING,
            workspace_id="",
            target=webhook.id,
            body=ping_payload(webhook.id, self._clock.now()),
        )
        _, verdict = await self._deliverer.send_now(delivery)
        return verdict.attempt

    async def target(self, webhook_id: str) -> str:
        """A webhook's id, or a configured channel's name, whose deliveries are listed the same way."""
        if self._channels.known(webhook_id):
            return webhook_id
        return (await self.get(webhook_id)).id

    async def redeliver(self, by: Call | System, webhook_id: str, delivery_id: str) -> Delivery:
        """Raises WebhookNotFound, DeliveryNotFound, WebhookDisabled, NoSuchChannel."""
        if webhook_id.startswith((SLACK, WEBHOOK)):
            if not self._channels.known(webhook_id):
                raise NoSuchChannel(webhook_id)
        elif not (await self.get(webhook_id)).enabled:
            raise WebhookDisabled(webhook_id)
        retry = timedelta(hours=self._settings.retry_hours)
        delivery = await self._deliveries.redeliver(delivery_id, webhook_id, retry, by)
        if delivery is None:
            raise DeliveryNotFound(delivery_id)
        self._deliverer.wake()
        return delivery

    async def _check(
        self, url: str | None, description: str, event_types: Sequence[str], workspaces: Sequence[str]
    ) -> None:
        wrong: dict[str, str] = {}
        if len(description) > _LONGEST_DESCRIPTION:
            wrong["description"] = f"is longer than {_LONGEST_DESCRIPTION} characters"
        known = {kind.value for kind in EventType}
        for place, kind in enumerate(event_types):
            if kind not in known:
                wrong[f"event_types[{place}]"] = f"is no event type; there are: {', '.join(sorted(known))}"
        for place, workspace in enumerate(workspaces):
            if not _WORKSPACE_ID.fullmatch(workspace):
                wrong[f"workspaces[{place}]"] = "is no workspace id"
        if url is not None and (refusal := await self._sender.refusal(url)) is not None:
            wrong["url"] = refusal
        if wrong:
            raise ValidationFailed(wrong)

    def _grace(self, text: str | None) -> timedelta:
        if text is None:
            return timedelta(hours=self._settings.rotation_hours)
        try:
            grace = parse_duration(text)
        except ValueError as error:
            raise ValidationFailed({"grace": str(error)}) from None
        if grace > _LONGEST_ROTATION:
            raise ValidationFailed({"grace": f"is longer than {_LONGEST_ROTATION.days} days"})
        return grace
