"""The delivery log of a webhook or channel, dead letters, and redelivery."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import OTHER, Idempotency, NoBody, Params, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.webhooks.administration import Administration
from opsapi.webhooks.errors import DeliveryNotFound, NoSuchChannel, WebhookDisabled, WebhookNotFound
from opsapi.webhooks.model import Delivery, DeliveryState
from opsapi.webhooks.ports import DeliveryFilter, DeliveryStore

_TAG = "Webhooks"
_DELIVERIES = "/internal/v1/webhooks/{webhook_id}/deliveries"


class DeliveriesParams(Params, frozen=True, kw_only=True):
    """`webhook_id` may be a configured channel's name. `state=dead` lists the dead letters."""

    webhook_id: str
    state: DeliveryState | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: str | None = None


class DeliveryParams(Params, frozen=True, kw_only=True):
    webhook_id: str
    delivery_id: str


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    deliveries: list[Delivery]


class _Position(msgspec.Struct, frozen=True):
    created_at: Annotated[datetime, Meta(tz=True)]
    id: str


class DeliveryEndpoints:
    def __init__(self, deliveries: DeliveryStore, administration: Administration) -> None:
        self._deliveries = deliveries
        self._administration = administration

    @endpoint(
        "GET",
        _DELIVERIES,
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="List a webhook's deliveries",
        tag=_TAG,
        answer=DeliveryList,
        errors=(ValidationFailed, WebhookNotFound, DependencyUnavailable),
    )
    async def list_webhook_deliveries(
        self, _call: Call, params: DeliveriesParams, _body: NoBody
    ) -> Reply[DeliveryList]:
        """The newest first, with every attempt's status, duration and error, and when the next one is due."""
        target = await self._administration.target(params.webhook_id)
        purpose = f"webhook-deliveries:{target}:{params.state or ''}"
        before = None
        if params.cursor is not None:
            position = decode_cursor(purpose, params.cursor, _Position)
            before = (position.created_at, position.id)
        wanted = DeliveryFilter(target=target, state=params.state, before=before, limit=params.limit + 1)
        found = await self._deliveries.deliveries(wanted)
        page, more = found[: params.limit], len(found) > params.limit
        return Reply(
            DeliveryList(deliveries=page),
            truncated=more,
            untrusted=[
                pointer for place, one in enumerate(page) for pointer in _untrusted(f"/deliveries/{place}", one)
            ],
            next_cursor=encode_cursor(purpose, _Position(page[-1].created_at, page[-1].id)) if more else None,
        )

    @endpoint(
        "POST",
        _DELIVERIES + "/{delivery_id}/redeliver",
        permission=Permission.WEBHOOKS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Redeliver an event",
        tag=_TAG,
        answer=Delivery,
        errors=(WebhookNotFound, DeliveryNotFound, WebhookDisabled, NoSuchChannel, DependencyUnavailable),
    )
    async def redeliver_webhook_event(self, call: Call, params: DeliveryParams, _body: NoBody) -> Reply[Delivery]:
        """The same event with the same `webhook-id`, due now and tried for another day; a dead letter, one that waits,
        or one that was delivered already."""
        delivery = await self._administration.redeliver(call, params.webhook_id, params.delivery_id)
        return Reply(delivery, untrusted=_untrusted("", delivery))


def _untrusted(at: str, delivery: Delivery) -> list[str]:
    return [
        f"{at}/history/{place}/response"
        for place, attempt in enumerate(delivery.history)
        if attempt.response is not None
    ]
