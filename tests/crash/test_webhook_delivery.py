"""No event is lost, whatever the receivers do and wherever the process that delivers dies."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.webhooks import SqlWebhookStore
from opsapi.adapters.webhooks.sender import http_sender
from opsapi.kit.clock import Clock, SystemClock
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.dispatcher import Dispatcher
from opsapi.webhooks.model import Delivery, DeliveryState, DisabledBecause, Event, Webhook
from opsapi.webhooks.ports import DeliveryFilter, WebhookPatch
from opsapi.webhooks.settings import WebhookSettings
from opsapi.webhooks.signing import secret_text
from support.acting import NOON, SetClock
from support.mortal_deliverer import KEY, QUICK, deliver_all, store_of, waiting
from support.receiver import Answer, Receiver, answers, hangs, resets
from support.webhooks import BY, SECRET, announce, make_event, make_webhook

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0
DAY = timedelta(days=1)


class Scene:
    def __init__(self, database: Database, receiver: Receiver, clock: Clock) -> None:
        self.database = database
        self.receiver = receiver
        self.clock = clock
        self.webhooks = SqlWebhookStore(database, AesGcmSealer([KEY]), clock)
        self.deliveries = store_of(database, clock)

    async def subscribe(self, path: str, answer: Answer | None = None) -> Webhook:
        if answer is not None:
            self.receiver.by_path[path] = answer
        webhook = make_webhook(url=self.receiver.url(path))
        await self.webhooks.add(webhook, SECRET, BY)
        return webhook

    async def announce(self, count: int = 1) -> list[Event]:
        events = [make_event(occurred_at=self.clock.now()) for _ in range(count)]
        await announce(self.database, *events)
        return events

    async def of(self, webhook: Webhook) -> list[Delivery]:
        return await self.deliveries.deliveries(DeliveryFilter(target=webhook.id, limit=1000))

    async def look(self, webhook: Webhook) -> Webhook:
        found = await self.webhooks.webhook(webhook.id)
        assert found is not None
        return found

    async def until(self, condition: Callable[[list[Delivery]], bool], webhook: Webhook) -> list[Delivery]:
        async with asyncio.timeout(_DEADLINE):
            while not condition(found := await self.of(webhook)):
                await asyncio.sleep(0.01)
        return found

    async def idle(self, deliverer: Deliverer) -> None:
        """Until everything that is due was tried."""
        async with asyncio.timeout(_DEADLINE):
            while True:
                backlog = await self.deliveries.backlog()
                if backlog.events + backlog.deliveries + deliverer.busy == 0:
                    break
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def delivering(self, settings: WebhookSettings = QUICK) -> AsyncIterator[Deliverer]:
        async with http_sender(allow=("127.0.0.1",), connect_seconds=0.3, total_seconds=0.3) as sender:
            deliverer = Deliverer(self.deliveries, sender, Channels(()), self.clock, settings, lambda: 0.0)
            handing_out = asyncio.create_task(Dispatcher(self.deliveries, settings, deliverer.wake).run())
            running = asyncio.create_task(deliverer.run())
            yield deliverer
            handing_out.cancel()
            deliverer.stop()
            await asyncio.gather(running, handing_out, return_exceptions=True)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as started:
        yield started


@pytest.fixture
def scene(database: Database, receiver: Receiver) -> Scene:
    return Scene(database, receiver, SystemClock())


def all_delivered(count: int) -> Callable[[list[Delivery]], bool]:
    return lambda found: sum(one.state is DeliveryState.DELIVERED for one in found) == count


def assert_arrived(receiver: Receiver, path: str, events: list[Event]) -> None:
    """Every event, signed, under its own id, and nothing else."""
    verifier = Verifier(secret_text(SECRET).reveal())
    for request in receiver.at(path):
        assert verifier.verify(request.body, request.headers)["type"] == "internal.operation.failed"
    assert {request.id for request in receiver.at(path)} == {event.id for event in events}


@pytest.mark.parametrize("answer", [hangs, resets, answers(500)], ids=["hangs", "resets", "500"])
async def test_a_sick_receiver_gets_everything_once_it_is_well_and_stops_nobody_else(
    scene: Scene, answer: Answer
) -> None:
    sick, well = await scene.subscribe("/sick", answer), await scene.subscribe("/well")
    events = await scene.announce(12)
    async with scene.delivering():
        await scene.until(all_delivered(12), well)
        assert_arrived(scene.receiver, "/well", events)
        assert len(scene.receiver.at("/well")) == 12
        await scene.until(lambda found: any(one.history for one in found), sick)
        assert (await scene.look(sick)).failing_since is not None
        scene.receiver.by_path["/sick"] = answers(200)
        await scene.until(all_delivered(12), sick)
    assert_arrived(scene.receiver, "/sick", events)
    assert (await scene.look(sick)).failing_since is None


async def test_an_hour_of_500_is_waited_out(database: Database, receiver: Receiver) -> None:
    clock = SetClock()
    scene = Scene(database, receiver, clock)
    webhook = await scene.subscribe("/in", answers(500, b"<script>"))
    events = await scene.announce(3)
    async with scene.delivering(WebhookSettings(poll_seconds=0.01)) as deliverer:
        for _ in range(60):
            clock.advance(60)
            await scene.idle(deliverer)
        receiver.by_path["/in"] = answers(204)
        clock.advance(3600)
        found = await scene.until(all_delivered(3), webhook)
    assert {request.id for request in receiver.received} == {event.id for event in events}
    for delivery in found:
        assert 5 < delivery.attempts < 15
        *before, last = [one.status for one in delivery.history]
        assert (set(before), last) == ({500}, 204)
        assert {one.response for one in delivery.history[:-1]} == {"<script>"}


async def test_a_receiver_that_is_never_well_makes_dead_letters_that_can_be_redelivered(
    database: Database, receiver: Receiver
) -> None:
    clock = SetClock()
    scene = Scene(database, receiver, clock)
    webhook = await scene.subscribe("/in", answers(500))
    (event,) = await scene.announce()
    async with scene.delivering(WebhookSettings(poll_seconds=0.01)) as deliverer:
        (delivery,) = await scene.until(lambda found: [one.attempts for one in found] == [1], webhook)
        for _ in range(49):
            assert delivery.state is DeliveryState.PENDING
            clock.advance(1800)
            await scene.idle(deliverer)
            (delivery,) = await scene.of(webhook)
            if clock.now() >= NOON + DAY:
                break
        (delivery,) = await scene.until(lambda found: found[0].state is DeliveryState.DEAD, webhook)
        assert delivery.history[-1].at == NOON + DAY
        receiver.by_path["/in"] = answers(204)
        assert await scene.deliveries.redeliver(delivery.id, webhook.id, DAY, BY) is not None
        await scene.until(all_delivered(1), webhook)
    assert {request.id for request in receiver.received} == {event.id}


async def test_a_redirect_inward_is_not_followed(scene: Scene) -> None:
    webhook = await scene.subscribe("/in", answers(307, Location=scene.receiver.url("/inward")))
    await scene.announce()
    async with scene.delivering():
        (delivery,) = await scene.until(lambda found: bool(found) and len(found[0].history) >= 2, webhook)
    assert delivery.history[0].error == "answered 307; redirects are not followed"
    assert scene.receiver.at("/inward") == []


async def test_a_410_disables_until_somebody_enables_it_again(scene: Scene) -> None:
    webhook = await scene.subscribe("/in", answers(410))
    await scene.announce()
    async with scene.delivering():
        await scene.until(lambda found: [one.state for one in found] == [DeliveryState.DEAD], webhook)
        disabled = await scene.look(webhook)
        assert (disabled.enabled, disabled.disabled_because) == (False, DisabledBecause.GONE)
        scene.receiver.by_path["/in"] = answers(200)
        await scene.webhooks.update(webhook.id, WebhookPatch(enabled=True), BY)
        events = await scene.announce()
        await scene.until(all_delivered(1), webhook)
    assert [one.id for one in scene.receiver.at("/in")][1:] == [event.id for event in events]


async def run_mortal(url: str, point: str) -> int:
    """The exit status of a delivering process, negative for a signal."""
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_deliverer", url, point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    "point",
    [
        "before:dispatch",
        "after:dispatch",
        "before:_take",
        "after:claim",
        "before:send",
        "after:send",
        "before:record",
        "before:_note_health",
        "after:_note_health",
        "after:record",
    ],
)
async def test_wherever_the_process_dies_every_event_arrives_with_its_id(
    scene: Scene, database_url: str, point: str
) -> None:
    webhook = await scene.subscribe("/in")
    events = await scene.announce(5)
    assert await run_mortal(database_url, point) == -signal.SIGKILL
    async with asyncio.timeout(_DEADLINE):
        await deliver_all(database_url)
    assert_arrived(scene.receiver, "/in", events)
    found = await scene.of(webhook)
    assert [one.state for one in found] == [DeliveryState.DELIVERED] * 5
    assert await waiting(scene.database) == 0
    assert (await scene.deliveries.backlog()).events == 0


async def test_what_arrived_but_was_not_recorded_is_sent_again_and_the_log_shows_it(
    scene: Scene, database_url: str
) -> None:
    webhook = await scene.subscribe("/in")
    await scene.announce()
    assert await run_mortal(database_url, "before:record") == -signal.SIGKILL
    async with asyncio.timeout(_DEADLINE):
        await deliver_all(database_url)
    first, second = scene.receiver.at("/in")
    assert (first.id, first.body) == (second.id, second.body)
    (delivery,) = await scene.of(webhook)
    assert (delivery.attempts, [one.number for one in delivery.history]) == (2, [2])
