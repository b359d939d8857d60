"""The API of webhooks."""

from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import OTHER, Body, Example, Idempotency, NoBody, NoParams, Params, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.webhooks.administration import Administration, NewWebhook
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.errors import NoSigningKey, WebhookNotFound
from opsapi.webhooks.model import Attempt, EventType, Webhook
from opsapi.webhooks.ports import WebhookPatch, WebhookStore

_TAG = "Webhooks"
_WEBHOOKS = "/internal/v1/webhooks"
_WEBHOOK = _WEBHOOKS + "/{webhook_id}"
_CURSOR = "webhooks"
_WEBHOOK_EXAMPLE = {
    "id": "wh-7k2m9q4x1v8c5b3n",
    "url": "https://hooks.example.com/opsapi",
    "description": "the on-call rota",
    "event_types": ["internal.operation.failed"],
    "workspaces": ["ws-123"],
    "enabled": True,
    "disabled_because": None,
    "disabled_at": None,
    "failing_since": None,
    "last_success_at": None,
    "previous_secret_until": None,
    "created_at": "2024-01-20T15:30:00Z",
    "created_by": "sa-admin",
    "updated_at": "2024-01-20T15:30:00Z",
}

Url = Annotated[str, Meta(min_length=1, max_length=2000)]
Description = Annotated[str, Meta(max_length=500)]
EventTypes = Annotated[list[EventType], Meta(max_length=50)]
Workspaces = Annotated[list[str], Meta(max_length=200)]


class WebhooksParams(Params, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: str | None = None


class WebhookParams(Params, frozen=True, kw_only=True):
    webhook_id: str


class CreateWebhookBody(Body, frozen=True, kw_only=True):
    """Empty `event_types` or `workspaces` mean all. The URL is https; plain http and private addresses only where the
    configuration's `webhooks.allow` names the host."""

    url: Url
    description: Description = ""
    event_types: EventTypes = msgspec.field(default_factory=list)
    workspaces: Workspaces = msgspec.field(default_factory=list)
    enabled: bool = True


class UpdateWebhookBody(Body, frozen=True, kw_only=True):
    """What is left out, or null, stays as it is; a list replaces the one before."""

    url: Url | None = None
    description: Description | None = None
    event_types: EventTypes | None = None
    workspaces: Workspaces | None = None
    enabled: bool | None = None


class RotateWebhookSecretBody(Body, frozen=True, kw_only=True):
    """`grace`: how long the old secret signs too, like `24h`; `0s` ends it at once."""

    grace: str | None = None


class WebhookList(msgspec.Struct, frozen=True, kw_only=True):
    """`channels` are the configuration's; their deliveries are listed under their names."""

    webhooks: list[Webhook]
    channels: list[str]


class WebhookWithSecret(msgspec.Struct, frozen=True, kw_only=True):
    """`secret` (`whsec_…`) is in this answer only."""

    webhook: Webhook
    secret: str


class PingResult(msgspec.Struct, frozen=True, kw_only=True):
    delivered: bool
    attempt: Attempt


class _Position(msgspec.Struct, frozen=True):
    after: str


class WebhookEndpoints:
    def __init__(self, store: WebhookStore, administration: Administration, channels: Channels) -> None:
        self._store = store
        self._administration = administration
        self._channels = channels

    @endpoint(
        "GET",
        _WEBHOOKS,
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="List webhooks",
        tag=_TAG,
        answer=WebhookList,
        errors=(ValidationFailed, DependencyUnavailable),
    )
    async def list_webhooks(self, _call: Call, params: WebhooksParams, _body: NoBody) -> Reply[WebhookList]:
        """By id; disabled ones too. Secrets are never shown."""
        after = "" if params.cursor is None else decode_cursor(_CURSOR, params.cursor, _Position).after
        found = await self._store.webhooks(after=after, limit=params.limit + 1)
        page, more = found[: params.limit], len(found) > params.limit
        return Reply(
            WebhookList(webhooks=page, channels=self._channels.names),
            truncated=more,
            next_cursor=encode_cursor(_CURSOR, _Position(page[-1].id)) if more else None,
        )

    @endpoint(
        "POST",
        _WEBHOOKS,
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.REFUSED,
        summary="Create a webhook",
        tag=_TAG,
        answer=WebhookWithSecret,
        success=(201,),
        errors=(ValidationFailed, NoSigningKey, DependencyUnavailable),
        examples=(
            Example(
                "on-call",
                request={
                    "url": "https://hooks.example.com/opsapi",
                    "description": "the on-call rota",
                    "event_types": ["internal.operation.failed"],
                    "workspaces": ["ws-123"],
                },
                response={"webhook": _WEBHOOK_EXAMPLE, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="},
                status=201,
            ),
        ),
    )
    async def create_webhook(self, call: Call, _params: NoParams, body: CreateWebhookBody) -> Reply[WebhookWithSecret]:
        """Events are sent to it from now on, signed as Standard Webhooks say, with the secret that only this answer
        tells. Its host must resolve to public addresses unless the configuration allows it."""
        new = NewWebhook(
            url=body.url,
            description=body.description,
            event_types=body.event_types,
            workspaces=body.workspaces,
            enabled=body.enabled,
        )
        webhook, secret = await self._administration.create(call, new)
        return Reply(WebhookWithSecret(webhook=webhook, secret=secret.reveal()))

    @endpoint(
        "GET",
        _WEBHOOK,
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="Get a webhook",
        tag=_TAG,
        answer=Webhook,
        errors=(WebhookNotFound, DependencyUnavailable),
    )
    async def get_webhook(self, _call: Call, params: WebhookParams, _body: NoBody) -> Reply[Webhook]:
        return Reply(await self._administration.get(params.webhook_id))

    @endpoint(
        "PATCH",
        _WEBHOOK,
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Change a webhook",
        tag=_TAG,
        answer=Webhook,
        errors=(ValidationFailed, WebhookNotFound, DependencyUnavailable),
    )
    async def update_webhook(self, call: Call, params: WebhookParams, body: UpdateWebhookBody) -> Reply[Webhook]:
        """`enabled: true` brings back one that was disabled; what it missed is not sent, dead letters can be
        redelivered. Deliveries that wait go to the new URL."""
        patch = WebhookPatch(
            url=body.url,
            description=body.description,
            event_types=None if body.event_types is None else [kind.value for kind in body.event_types],
            workspaces=body.workspaces,
            enabled=body.enabled,
        )
        return Reply(await self._administration.update(call, params.webhook_id, patch))

    @endpoint(
        "DELETE",
        _WEBHOOK,
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Delete a webhook",
        tag=_TAG,
        answer=Webhook,
        errors=(WebhookNotFound, DependencyUnavailable),
    )
    async def delete_webhook(self, call: Call, params: WebhookParams, _body: NoBody) -> Reply[Webhook]:
        """With its secrets, its delivery log and what waits for it. Answers what was deleted."""
        webhook = await self._administration.get(params.webhook_id)
        await self._administration.remove(call, params.webhook_id)
        return Reply(webhook)

    @endpoint(
        "POST",
        _WEBHOOK + "/rotate-secret",
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.REFUSED,
        summary="Rotate a webhook's signing secret",
        tag=_TAG,
        answer=WebhookWithSecret,
        errors=(ValidationFailed, WebhookNotFound, NoSigningKey, DependencyUnavailable),
    )
    async def rotate_webhook_secret(
        self, call: Call, params: WebhookParams, body: RotateWebhookSecretBody
    ) -> Reply[WebhookWithSecret]:
        """A new secret, told in this answer only. Until the grace has passed (24 hours unless said or configured
        otherwise) every request carries the signatures of both."""
        webhook, secret = await self._administration.rotate(call, params.webhook_id, body.grace)
        return Reply(WebhookWithSecret(webhook=webhook, secret=secret.reveal()))

    @endpoint(
        "POST",
        _WEBHOOK + "/ping",
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Ping a webhook",
        tag=_TAG,
        answer=PingResult,
        errors=(WebhookNotFound, DependencyUnavailable),
    )
    async def ping_webhook(self, _call: Call, params: WebhookParams, _body: NoBody) -> Reply[PingResult]:
        """Sends `internal.webhook.ping` now, once, on the way that events take, also to a disabled webhook, and answers
        how it went. It stands in the delivery log; a failure does not count against the endpoint."""
        attempt = await self._administration.ping(params.webhook_id)
        return Reply(
            PingResult(delivered=attempt.error is None, attempt=attempt),
            untrusted=[] if attempt.response is None else ["/attempt/response"],
        )
