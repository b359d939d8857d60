"""Webhooks' stores: the fake, SQLite and PostgreSQL keep the same promises."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.deliveries import SqlDeliveryStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import outbox_events, webhooks
from opsapi.adapters.sql.webhooks import SqlWebhookStore
from opsapi.audit.ports import AuditFilter
from opsapi.webhooks.dispatcher import route
from opsapi.webhooks.errors import NoSigningKey
from opsapi.webhooks.model import Attempt, Delivery, DeliveryState, DisabledBecause, Event, EventType
from opsapi.webhooks.ports import (
    Backlog,
    Claimed,
    DeliveryFilter,
    DeliveryStore,
    NewDelivery,
    Verdict,
    WebhookPatch,
    WebhookStore,
)
from support.acting import NOON, SetClock, make_call
from support.database import ENGINES, fresh_database
from support.webhooks import BY, SECRET, FakeWebhooks, announce, make_event, make_webhook

DAY = timedelta(days=1)
LEASE = timedelta(seconds=30)
OLD_KEY, NEW_KEY = b"o" * 32, b"n" * 32


@dataclass
class Stores:
    webhooks: WebhookStore
    deliveries: DeliveryStore
    clock: SetClock
    database: Database | None

    async def announce(self, *events: Event) -> None:
        if self.database is not None:
            await announce(self.database, *events)
        else:
            assert isinstance(self.deliveries, FakeWebhooks)
            self.deliveries.announce(*events)

    async def hand_out(self, *events: Event) -> int:
        await self.announce(*events)
        return await self.deliveries.dispatch(route, 100, DAY)

    async def claim(self, limit: int = 10, room: int = 10, full: tuple[str, ...] = ()) -> list[Claimed]:
        return await self.deliveries.claim(limit, LEASE, lambda _: room, full)

    async def one(self, target: str) -> Delivery:
        (found,) = await self.deliveries.deliveries(DeliveryFilter(target=target))
        return found


@pytest.fixture(params=[pytest.param("fake"), *ENGINES])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    clock = SetClock()
    if request.param == "fake":
        fake = FakeWebhooks(clock)
        yield Stores(fake, fake, clock, None)
        return
    async with fresh_database(request, request.param) as database:
        sealer = AesGcmSealer([OLD_KEY])
        yield Stores(
            SqlWebhookStore(database, sealer, clock), SqlDeliveryStore(database, sealer, clock), clock, database
        )


def _verdict(claimed: Claimed, state: DeliveryState = DeliveryState.DELIVERED, **changes: Any) -> Verdict:
    attempt = Attempt(
        number=claimed.delivery.attempts, at=NOON, duration_ms=3.5, status=200, error=None, response="thé <b>\u202e"
    )
    verdict = Verdict(
        attempt=attempt, state=state, next_attempt_at=None, healthy=state is DeliveryState.DELIVERED, disable=None
    )
    return msgspec.structs.replace(verdict, **changes)


async def test_a_webhook_comes_back_as_it_was_written_and_is_audited(stores: Stores) -> None:
    webhook = make_webhook(
        description="Zoë’s, 日本", event_types=[EventType.BACKUP_FAILED], workspaces=["ws-1"], enabled=False
    )
    call = make_call()
    await stores.webhooks.add(webhook, SECRET, call)
    assert await stores.webhooks.webhook(webhook.id) == webhook
    assert await stores.webhooks.webhook("wh-none") is None
    assert (call.audit.committed, call.audit.resource) == (True, f"webhook/{webhook.id}")


async def test_webhooks_are_paged_by_id(stores: Stores) -> None:
    for number in range(5):
        await stores.webhooks.add(make_webhook(id=f"wh-{number}"), SECRET, BY)
    first = await stores.webhooks.webhooks(after="", limit=3)
    rest = await stores.webhooks.webhooks(after=first[-1].id, limit=3)
    assert [one.id for one in first + rest] == [f"wh-{number}" for number in range(5)]


async def test_a_patch_changes_what_it_names_and_disabling_and_enabling_leave_their_marks(stores: Stores) -> None:
    webhook = make_webhook(failing_since=NOON, event_types=["internal.backup.failed"])
    await stores.webhooks.add(webhook, SECRET, BY)
    stores.clock.advance(5)
    off = await stores.webhooks.update(webhook.id, WebhookPatch(enabled=False, description="off"), BY)
    assert off is not None
    assert off == msgspec.structs.replace(
        webhook,
        enabled=False,
        description="off",
        disabled_because=DisabledBecause.ASKED,
        disabled_at=stores.clock.now(),
        updated_at=stores.clock.now(),
    )
    on = await stores.webhooks.update(webhook.id, WebhookPatch(enabled=True, event_types=[]), BY)
    assert on is not None
    assert (on.enabled, on.disabled_because, on.disabled_at, on.failing_since) == (True, None, None, None)
    assert on.event_types == []
    assert await stores.webhooks.update("wh-none", WebhookPatch(enabled=True), BY) is None


async def test_an_event_reaches_each_webhook_that_wants_it_and_each_channel_once(stores: Stores) -> None:
    everything, failures = make_webhook(), make_webhook(event_types=[EventType.OPERATION_FAILED])
    elsewhere, disabled = make_webhook(workspaces=["ws-other"]), make_webhook(enabled=False)
    backups = make_webhook(event_types=[EventType.BACKUP_FAILED])
    for webhook in (everything, failures, elsewhere, disabled, backups):
        await stores.webhooks.add(webhook, SECRET, BY)
    event = make_event(channels=("slack:#ops", "webhook:pager", "slack:#ops"))
    assert await stores.hand_out(event) == 1
    assert await stores.deliveries.dispatch(route, 100, DAY) == 0
    claims = await stores.claim()
    assert sorted(one.delivery.target for one in claims) == sorted(
        [everything.id, failures.id, "slack:#ops", "webhook:pager"]
    )
    assert {one.delivery.event_id for one in claims} == {event.id}
    mine = next(one for one in claims if one.delivery.target == everything.id)
    assert mine.keys == (SECRET,)
    assert mine.webhook == everything
    assert msgspec.json.decode(mine.body) == {
        "type": "internal.operation.failed",
        "timestamp": "2024-01-20T12:00:00Z",
        "data": event.data,
    }


async def test_a_claim_keeps_others_off_until_its_lease_ends_and_the_late_record_nothing(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(make_event())
    (dead,) = await stores.claim()
    stores.clock.advance(29)
    assert await stores.claim() == []
    stores.clock.advance(1)
    (heir,) = await stores.claim()
    assert (heir.delivery.id, heir.delivery.attempts) == (dead.delivery.id, 2)
    assert heir.token > dead.token
    assert not await stores.deliveries.record(dead, _verdict(dead))
    assert (await stores.one(webhook.id)).state is DeliveryState.PENDING
    assert await stores.deliveries.record(heir, _verdict(heir))
    delivered = await stores.one(webhook.id)
    assert (delivered.state, delivered.finished_at, delivered.next_attempt_at) == (
        DeliveryState.DELIVERED,
        stores.clock.now(),
        None,
    )
    assert [(one.number, one.status, one.response) for one in delivered.history] == [(2, 200, "thé <b>\u202e")]


async def test_a_claim_takes_no_more_of_a_target_than_there_is_room_and_nothing_of_a_full_one(stores: Stores) -> None:
    slow, quick = make_webhook(id="wh-slow"), make_webhook(id="wh-quick", event_types=[EventType.BACKUP_FAILED])
    for webhook in (slow, quick):
        await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(*(make_event() for _ in range(5)))
    stores.clock.advance(1)
    await stores.hand_out(make_event(type=EventType.BACKUP_FAILED))
    first = await stores.claim(room=2)
    assert [one.delivery.target for one in first] == ["wh-slow", "wh-slow", "wh-quick"]
    assert await stores.claim(full=("wh-slow",)) == []
    assert len(await stores.claim(limit=1)) == 1
    assert len(await stores.claim()) == 3


async def test_a_failed_attempt_comes_back_when_it_is_due_and_marks_its_webhook(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(make_event())
    (claimed,) = await stores.claim()
    again = stores.clock.now() + timedelta(seconds=60)
    await stores.deliveries.record(claimed, _verdict(claimed, DeliveryState.PENDING, next_attempt_at=again))
    failing = await stores.webhooks.webhook(webhook.id)
    assert failing is not None
    assert failing.failing_since == NOON
    stores.clock.advance(59)
    assert await stores.claim() == []
    stores.clock.advance(1)
    (second,) = await stores.claim()
    await stores.deliveries.record(second, _verdict(second))
    well = await stores.webhooks.webhook(webhook.id)
    assert well is not None
    assert (well.failing_since, well.last_success_at) == (None, stores.clock.now())
    assert [one.number for one in (await stores.one(webhook.id)).history] == [1, 2]


async def test_a_webhook_that_is_given_up_gets_nothing_more_and_what_waits_is_dead(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(*(make_event() for _ in range(3)))
    (first, flying) = await stores.claim(limit=2)
    gone = _verdict(first, DeliveryState.DEAD, disable=DisabledBecause.GONE)
    await stores.deliveries.record(first, gone)
    disabled = await stores.webhooks.webhook(webhook.id)
    assert disabled is not None
    assert (disabled.enabled, disabled.disabled_because) == (False, DisabledBecause.GONE)
    retry = _verdict(flying, DeliveryState.PENDING, next_attempt_at=stores.clock.now())
    assert await stores.deliveries.record(flying, retry)
    dead = await stores.deliveries.deliveries(DeliveryFilter(target=webhook.id, state=DeliveryState.DEAD))
    assert len(dead) == 3
    await stores.hand_out(make_event())
    stores.clock.advance(3600)
    assert await stores.claim() == []


async def test_an_attempt_under_way_while_its_webhook_is_disabled_still_says_that_it_arrived(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(make_event())
    (claimed,) = await stores.claim()
    await stores.webhooks.update(webhook.id, WebhookPatch(enabled=False), BY)
    assert (await stores.one(webhook.id)).state is DeliveryState.DEAD
    assert await stores.deliveries.record(claimed, _verdict(claimed))
    assert (await stores.one(webhook.id)).state is DeliveryState.DELIVERED


async def test_a_dead_letter_is_redelivered_with_its_event_and_body(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(make_event())
    (claimed,) = await stores.claim()
    await stores.deliveries.record(claimed, _verdict(claimed, DeliveryState.DEAD))
    stores.clock.advance(9)
    assert await stores.deliveries.redeliver(claimed.delivery.id, "wh-other", DAY, BY) is None
    due = await stores.deliveries.redeliver(claimed.delivery.id, webhook.id, DAY, BY)
    assert due is not None
    assert (due.state, due.next_attempt_at, due.finished_at) == (DeliveryState.PENDING, stores.clock.now(), None)
    (again,) = await stores.claim()
    assert (again.delivery.event_id, again.body) == (claimed.delivery.event_id, claimed.body)
    assert again.give_up_at == stores.clock.now() + DAY


async def test_redelivering_what_is_under_way_fences_that_attempt_off(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(make_event())
    (claimed,) = await stores.claim()
    await stores.deliveries.redeliver(claimed.delivery.id, webhook.id, DAY, BY)
    assert not await stores.deliveries.record(claimed, _verdict(claimed))
    assert len(await stores.claim()) == 1


async def test_while_a_secret_is_rotated_both_sign_the_new_one_first(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    until = stores.clock.now() + timedelta(minutes=1)
    rotated = await stores.webhooks.rotate(webhook.id, b"2" * 32, until, BY)
    assert rotated is not None
    assert rotated.previous_secret_until == until
    await stores.hand_out(make_event())
    (claimed,) = await stores.claim()
    assert claimed.keys == (b"2" * 32, SECRET)
    stores.clock.advance(60)
    (claimed,) = await stores.claim()
    assert claimed.keys == (b"2" * 32,)
    assert await stores.webhooks.rotate("wh-none", SECRET, until, BY) is None


async def test_a_removed_webhook_takes_its_deliveries_along(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(make_event())
    (claimed,) = await stores.claim()
    assert await stores.webhooks.remove(webhook.id, BY)
    assert not await stores.webhooks.remove(webhook.id, BY)
    assert not await stores.deliveries.record(claimed, _verdict(claimed))
    assert await stores.deliveries.deliveries(DeliveryFilter(target=webhook.id)) == []


async def test_deliveries_are_listed_newest_first_page_by_page_and_by_state(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    for _ in range(5):
        stores.clock.advance(1)
        await stores.hand_out(make_event())
    claims = await stores.claim()
    await stores.deliveries.record(claims[0], _verdict(claims[0]))
    first = await stores.deliveries.deliveries(DeliveryFilter(target=webhook.id, limit=2))
    before = (first[-1].created_at, first[-1].id)
    rest = await stores.deliveries.deliveries(DeliveryFilter(target=webhook.id, before=before))
    assert [one.id for one in first + rest] == [one.delivery.id for one in reversed(claims)]
    done = await stores.deliveries.deliveries(DeliveryFilter(target=webhook.id, state=DeliveryState.DELIVERED))
    assert [one.id for one in done] == [claims[0].delivery.id]


async def test_what_is_sent_at_once_belongs_to_its_sender_alone(stores: Stores) -> None:
    webhook = make_webhook(enabled=False)
    await stores.webhooks.add(webhook, SECRET, BY)
    new = NewDelivery(
        id="dlv-1", event_id="evt-1", event_type="internal.webhook.ping", workspace_id="", target=webhook.id, body=b"{}"
    )
    claimed = await stores.deliveries.claim_new(new, LEASE)
    assert (claimed.once, claimed.keys, claimed.delivery.attempts) == (True, (SECRET,), 1)
    assert claimed.give_up_at == stores.clock.now()
    assert await stores.claim() == []
    await stores.deliveries.record(claimed, _verdict(claimed, DeliveryState.DEAD, healthy=None))
    after = await stores.webhooks.webhook(webhook.id)
    assert after == webhook


async def test_the_backlog_counts_what_waits_and_since_when(stores: Stores) -> None:
    assert await stores.deliveries.backlog() == Backlog(events=0, deliveries=0, oldest=None)
    await stores.webhooks.add(make_webhook(), SECRET, BY)
    await stores.announce(make_event(), make_event(occurred_at=NOON - timedelta(minutes=5)))
    assert await stores.deliveries.backlog() == Backlog(events=2, deliveries=0, oldest=NOON - timedelta(minutes=5))
    await stores.hand_out()
    stores.clock.advance(7)
    assert await stores.deliveries.backlog() == Backlog(events=0, deliveries=2, oldest=NOON)
    await stores.claim()
    assert (await stores.deliveries.backlog()).deliveries == 0


async def test_what_ended_long_ago_is_purged_and_what_waits_never(stores: Stores) -> None:
    webhook = make_webhook()
    await stores.webhooks.add(webhook, SECRET, BY)
    await stores.hand_out(*(make_event() for _ in range(3)))
    delivered, dead, waiting = await stores.claim()
    await stores.deliveries.record(delivered, _verdict(delivered))
    await stores.deliveries.record(dead, _verdict(dead, DeliveryState.DEAD))
    stores.clock.advance(2 * 86400)
    assert await stores.deliveries.purge(timedelta(days=3), timedelta(days=5)) == 3
    stores.clock.advance(2 * 86400)
    assert await stores.deliveries.purge(timedelta(days=3), timedelta(days=5)) == 1
    stores.clock.advance(2 * 86400)
    assert await stores.deliveries.purge(timedelta(days=3), timedelta(days=5)) == 1
    assert (await stores.one(webhook.id)).id == waiting.delivery.id


def _sql(database: Database, *keys: bytes) -> tuple[SqlWebhookStore, SqlDeliveryStore]:
    clock = SetClock()
    sealer = AesGcmSealer(keys) if keys else None
    return SqlWebhookStore(database, sealer, clock), SqlDeliveryStore(database, sealer, clock)


async def test_secrets_lie_sealed_and_without_a_key_none_is_written(database: Database) -> None:
    store, _ = _sql(database, OLD_KEY)
    webhook = make_webhook()
    await store.add(webhook, SECRET, BY)
    async with database.read() as connection:
        row = (await connection.execute(sa.select(webhooks))).one()
    assert SECRET not in bytes(row.secret)
    keyless, _ = _sql(database)
    with pytest.raises(NoSigningKey):
        await keyless.add(make_webhook(), SECRET, BY)
    with pytest.raises(NoSigningKey):
        await keyless.rotate(webhook.id, SECRET, NOON, BY)


async def test_secrets_are_sealed_again_with_a_new_key_the_rotated_one_too(database: Database) -> None:
    store, _ = _sql(database, OLD_KEY)
    webhook = make_webhook()
    await store.add(webhook, SECRET, BY)
    await store.rotate(webhook.id, b"2" * 32, NOON + DAY, BY)
    both, _ = _sql(database, NEW_KEY, OLD_KEY)
    assert (await both.reseal(), await both.reseal()) == (1, 0)
    _, deliveries = _sql(database, NEW_KEY)
    await announce(database, make_event())
    await deliveries.dispatch(route, 10, DAY)
    (claimed,) = await deliveries.claim(1, LEASE, lambda _: 1, ())
    assert claimed.keys == (b"2" * 32, SECRET)


async def test_without_the_key_that_sealed_it_a_claim_has_no_keys(database: Database) -> None:
    store, _ = _sql(database, OLD_KEY)
    await store.add(make_webhook(), SECRET, BY)
    await announce(database, make_event())
    _, other = _sql(database, NEW_KEY)
    await other.dispatch(route, 10, DAY)
    (claimed,) = await other.claim(1, LEASE, lambda _: 1, ())
    assert claimed.keys is None


async def test_of_many_dispatchers_and_deliverers_each_event_goes_out_once(database_url: str) -> None:
    replicas = [Database(database_url) for _ in range(2)]
    stores = [_sql(replica, OLD_KEY) for replica in replicas]
    await stores[0][0].add(make_webhook(), SECRET, BY)
    await announce(replicas[0], *(make_event() for _ in range(30)))
    handed = await asyncio.gather(*(stores[n % 2][1].dispatch(route, 7, DAY) for n in range(10)))
    while more := await stores[0][1].dispatch(route, 7, DAY):
        handed.append(more)
    assert sum(handed) == 30
    claims = await asyncio.gather(*(stores[n % 2][1].claim(5, LEASE, lambda _: 9, ()) for n in range(12)))
    while late := await stores[0][1].claim(5, LEASE, lambda _: 9, ()):
        claims.append(late)
    ids = [one.delivery.id for batch in claims for one in batch]
    assert len(ids) == len(set(ids)) == 30
    for replica in replicas:
        await replica.close()


async def test_an_event_of_a_later_release_waits_for_a_replica_that_knows_it(database: Database) -> None:
    store, deliveries = _sql(database, OLD_KEY)
    await store.add(make_webhook(), SECRET, BY)
    await announce(database, make_event(), make_event())
    async with database.write() as connection:
        first = sa.select(outbox_events.c.id).limit(1).scalar_subquery()
        await connection.execute(
            sa.update(outbox_events).where(outbox_events.c.id == first).values(type="internal.of.tomorrow")
        )
    assert await deliveries.dispatch(route, 10, DAY) == 1
    assert await deliveries.dispatch(route, 10, DAY) == 0
    assert (await deliveries.backlog()).events == 1


async def test_disabling_by_itself_is_in_the_audit_trail(database: Database) -> None:
    store, deliveries = _sql(database, OLD_KEY)
    webhook = make_webhook()
    await store.add(webhook, SECRET, BY)
    await announce(database, make_event())
    await deliveries.dispatch(route, 10, DAY)
    (claimed,) = await deliveries.claim(1, LEASE, lambda _: 1, ())
    await deliveries.record(claimed, _verdict(claimed, DeliveryState.DEAD, disable=DisabledBecause.FAILING))
    entries = await SqlAuditStore(database).page(AuditFilter(workspaces=None), None, 10)
    assert {(entry.account_id, entry.path) for entry in entries} == {
        ("system:cli", "webhooks create"),
        ("system:webhooks", f"disable {webhook.id}: failing"),
    }


async def test_due_deliveries_and_waiting_events_are_found_by_their_indexes(database: Database) -> None:
    _, deliveries = _sql(database, OLD_KEY)
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.startswith("SELECT") and not many:
            seen.append((statement, parameters))

    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    await deliveries.claim(1, LEASE, lambda _: 1, ("wh-full",))
    await deliveries.dispatch(route, 1, DAY)
    await deliveries.backlog()
    sa.event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    assert len(seen) == 4
    for (statement, parameters), index in zip(
        seen, ("deliveries_due", "events_waiting", "events_waiting", "deliveries_due"), strict=True
    ):
        assert index in await _plan(database, statement, parameters), statement


async def _plan(database: Database, statement: str, parameters: Any) -> str:
    async with database.read() as connection:
        if not database.is_sqlite:
            # Small tables are read whole otherwise, whatever index there is.
            await connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
        return str((await connection.exec_driver_sql(f"{explain} {statement}", parameters)).all())
