"""Who may be told, in the words of whoever asks; secrets are told once; what cannot be is refused by its field."""

from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from opsapi.adapters.sql.ledger.base import event_data
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import Idempotency, NoBody, NoParams
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.kit.secret import Secret
from opsapi.operations.model import Operation, Outcome, State
from opsapi.webhooks.administration import Administration, NewWebhook
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.delivery_endpoints import DeliveriesParams, DeliveryEndpoints, DeliveryParams
from opsapi.webhooks.endpoints import (
    CreateWebhookBody,
    RotateWebhookSecretBody,
    UpdateWebhookBody,
    WebhookEndpoints,
    WebhookParams,
    WebhooksParams,
)
from opsapi.webhooks.errors import DeliveryNotFound, NoSuchChannel, WebhookDisabled, WebhookNotFound
from opsapi.webhooks.model import DeliveryState, EventType
from opsapi.webhooks.ports import DeliveryFilter, Sent, WebhookPatch
from opsapi.webhooks.schemas import SCHEMAS, OperationData
from opsapi.webhooks.settings import ChannelSettings, WebhookSettings
from opsapi.wiring import DECLARATIONS
from support.acting import SetClock, make_call, make_caller
from support.webhooks import URL, FakeSender, FakeWebhooks

CHANNELS = Channels([ChannelSettings(name="slack:#ops", url=Secret("https://slack.example.com/x"))])


class World:
    def __init__(self) -> None:
        self.clock = SetClock()
        self.store = FakeWebhooks(self.clock)
        self.sender = FakeSender()
        settings = WebhookSettings()
        self.deliverer = Deliverer(self.store, self.sender, CHANNELS, self.clock, settings)
        self.administration = Administration(
            self.store, self.store, self.sender, self.deliverer, CHANNELS, self.clock, settings
        )
        self.endpoints = WebhookEndpoints(self.store, self.administration, CHANNELS)
        self.log = DeliveryEndpoints(self.store, self.administration)

    def call(self) -> Call:
        return make_call(make_caller("webhooks:admin", account_id="sa-admin"))


@pytest.fixture
def world() -> World:
    return World()


def test_every_endpoint_asks_for_the_admins_permission_and_secrets_are_never_replayed() -> None:
    mine = [one for one in DECLARATIONS if one.path.startswith("/internal/v1/webhooks")]
    assert len(mine) == 9
    assert {one.permission for one in mine} == {Permission.WEBHOOKS_ADMIN}
    telling = {one.name for one in mine if one.idempotency is Idempotency.REFUSED}
    assert telling == {"create_webhook", "rotate_webhook_secret"}


async def test_the_secret_is_in_the_first_answer_and_in_no_later_one(world: World) -> None:
    body = CreateWebhookBody(url=URL, event_types=[EventType.BACKUP_FAILED, EventType.BACKUP_FAILED])
    made = (await world.endpoints.create_webhook(world.call(), NoParams(), body)).data
    params = WebhookParams(webhook_id=made.webhook.id)
    rotated = (await world.endpoints.rotate_webhook_secret(world.call(), params, RotateWebhookSecretBody())).data
    listed = (await world.endpoints.list_webhooks(world.call(), WebhooksParams(), NoBody())).data
    shown = (await world.endpoints.get_webhook(world.call(), params, NoBody())).data
    later = msgspec.json.encode([listed, shown])
    assert made.webhook.event_types == ["internal.backup.failed"]
    assert made.webhook.created_by == "sa-admin"
    assert rotated.webhook.previous_secret_until == world.clock.now() + timedelta(hours=24)
    assert listed.channels == ["slack:#ops"]
    for secret in (made.secret, rotated.secret):
        assert secret.startswith("whsec_")
        assert secret.encode() not in later


async def test_what_is_wrong_is_said_at_once_by_field(world: World) -> None:
    world.sender.refused["https://10.0.0.1/"] = "leads inward"
    new = NewWebhook(
        url="https://10.0.0.1/", description="x" * 501, event_types=["internal.nothing"], workspaces=["../etc"]
    )
    with pytest.raises(ValidationFailed) as refused:
        await world.administration.create(world.call(), new)
    fields = refused.value.details.fields  # type: ignore[attr-defined]
    assert set(fields) == {"url", "description", "event_types[0]", "workspaces[0]"}
    assert fields["url"] == "leads inward"
    assert world.store.by_id == {}


async def test_a_change_of_the_url_is_checked_like_a_new_one(world: World) -> None:
    webhook, _ = await world.administration.create(world.call(), NewWebhook(url=URL))
    world.sender.refused["https://10.0.0.1/"] = "leads inward"
    params = WebhookParams(webhook_id=webhook.id)
    with pytest.raises(ValidationFailed):
        await world.endpoints.update_webhook(world.call(), params, UpdateWebhookBody(url="https://10.0.0.1/"))
    kept = await world.endpoints.update_webhook(world.call(), params, UpdateWebhookBody(description="new"))
    assert (kept.data.url, kept.data.description) == (URL, "new")


@pytest.mark.parametrize("grace", ["", "soon", "-1h", "31d"])
async def test_a_grace_must_be_a_duration_of_at_most_a_month(world: World, grace: str) -> None:
    webhook, _ = await world.administration.create(world.call(), NewWebhook(url=URL))
    with pytest.raises(ValidationFailed, match="grace"):
        await world.administration.rotate(world.call(), webhook.id, grace)


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    by, none = world.call(), "wh-none"
    for attempt in (
        world.administration.get(none),
        world.administration.update(by, none, WebhookPatch(enabled=True)),
        world.administration.rotate(by, none, None),
        world.administration.remove(by, none),
        world.administration.ping(none),
        world.administration.target("slack:#none"),
        world.administration.redeliver(by, none, "dlv-1"),
    ):
        with pytest.raises(WebhookNotFound):
            await attempt
    webhook, _ = await world.administration.create(by, NewWebhook(url=URL))
    with pytest.raises(DeliveryNotFound):
        await world.administration.redeliver(by, webhook.id, "dlv-none")
    with pytest.raises(NoSuchChannel):
        await world.administration.redeliver(by, "slack:#gone", "dlv-none")


async def test_a_ping_answers_how_it_went_and_marks_what_the_endpoint_said(world: World) -> None:
    webhook, _ = await world.administration.create(world.call(), NewWebhook(url=URL))
    params = WebhookParams(webhook_id=webhook.id)
    well = await world.endpoints.ping_webhook(world.call(), params, NoBody())
    assert (well.data.delivered, well.data.attempt.status, well.untrusted) == (True, 200, [])
    world.sender.answer = Sent(duration_ms=1, status=500, response="<script>")
    sick = await world.endpoints.ping_webhook(world.call(), params, NoBody())
    assert (sick.data.delivered, sick.data.attempt.error) == (False, "answered 500")
    assert sick.untrusted == ["/attempt/response"]
    log = await world.store.deliveries(DeliveryFilter(target=webhook.id))
    assert {one.state for one in log} == {DeliveryState.DELIVERED, DeliveryState.DEAD}


async def test_the_log_is_paged_and_a_cursor_belongs_to_its_list(world: World) -> None:
    webhook, _ = await world.administration.create(world.call(), NewWebhook(url=URL))
    for _ in range(5):
        world.clock.advance(1)
        await world.administration.ping(webhook.id)
    seen: list[str] = []
    cursor = None
    while True:
        params = DeliveriesParams(webhook_id=webhook.id, limit=2, cursor=cursor)
        reply = await world.log.list_webhook_deliveries(world.call(), params, NoBody())
        seen += [one.id for one in reply.data.deliveries]
        if reply.next_cursor is None:
            break
        cursor = reply.next_cursor
    assert len(seen) == len(set(seen)) == 5
    other = DeliveriesParams(webhook_id=webhook.id, state=DeliveryState.DEAD, cursor=cursor)
    with pytest.raises(ValidationFailed):
        await world.log.list_webhook_deliveries(world.call(), other, NoBody())


async def test_a_disabled_webhooks_dead_letters_wait_until_it_is_enabled(world: World) -> None:
    webhook, _ = await world.administration.create(world.call(), NewWebhook(url=URL))
    await world.administration.ping(webhook.id)
    (delivery,) = await world.store.deliveries(DeliveryFilter(target=webhook.id))
    await world.administration.update(world.call(), webhook.id, WebhookPatch(enabled=False))
    params = DeliveryParams(webhook_id=webhook.id, delivery_id=delivery.id)
    with pytest.raises(WebhookDisabled):
        await world.log.redeliver_webhook_event(world.call(), params, NoBody())
    await world.administration.update(world.call(), webhook.id, WebhookPatch(enabled=True))
    reply = await world.log.redeliver_webhook_event(world.call(), params, NoBody())
    assert reply.data.state is DeliveryState.PENDING


def test_every_event_type_has_its_data_documented() -> None:
    assert set(SCHEMAS) == {kind.value for kind in EventType} | {"internal.webhook.ping"}


@pytest.mark.parametrize("failed", [False, True])
def test_what_an_operations_event_holds_is_what_the_docs_say(failed: bool) -> None:
    operation = SimpleNamespace(
        id="op-1",
        action="scale",
        workspace_id="ws-1",
        application_id=None,
        state=State.FAILED if failed else State.COMPLETED,
        outcome=None if failed else Outcome.CHANGED,
        requested_by="sa-1",
        approved_by=None,
        reason="traffic",
        error=SimpleNamespace(code="NOT_READY", message="no") if failed else None,
    )
    data = event_data(cast("Operation", operation))
    assert msgspec.to_builtins(msgspec.convert(data, OperationData)) == {"workspace_id": "ws-1"} | data
