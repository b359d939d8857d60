"""Webhooks in memory, a sender that answers what a test says, and events."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

import msgspec

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.outbox import insert_event
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.ids import new_id
from opsapi.webhooks.model import Delivery, DeliveryState, DisabledBecause, Event, EventType, Webhook
from opsapi.webhooks.ports import Backlog, Claimed, DeliveryFilter, NewDelivery, Route, Sent, Verdict, WebhookPatch
from support.acting import NOON

URL = "https://hooks.example.com/in"
SECRET = b"s" * 32
BY = System("cli", "webhooks create", "root")
EVENTS_KEPT = timedelta(days=1)


def make_webhook(**changes: object) -> Webhook:
    webhook = Webhook(
        id=new_id("wh"),
        url=URL,
        description="",
        event_types=[],
        workspaces=[],
        enabled=True,
        disabled_because=None,
        disabled_at=None,
        failing_since=None,
        last_success_at=None,
        previous_secret_until=None,
        created_at=NOON,
        created_by="system:cli",
        updated_at=NOON,
    )
    return msgspec.structs.replace(webhook, **changes)


def make_event(**changes: object) -> Event:
    event = Event(
        id=new_id("evt"),
        type=EventType.OPERATION_FAILED,
        workspace_id="ws-123",
        occurred_at=NOON,
        data={"operation_id": "op-1", "reason": "traffic"},
    )
    return msgspec.structs.replace(event, **changes)


async def announce(database: Database, *events: Event) -> None:
    """Writes events as their changes do."""
    async with database.write() as connection:
        for event in events:
            await insert_event(connection, event)


class _Held(msgspec.Struct):
    delivery: Delivery
    body: bytes
    token: int
    give_up_at: datetime


class FakeWebhooks:
    """Implements WebhookStore and DeliveryStore. `outbox` takes events; `audited` holds (who, what)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.by_id: dict[str, Webhook] = {}
        self.secrets: dict[str, list[tuple[bytes, datetime | None]]] = {}
        self.outbox: dict[str, tuple[Event, datetime | None]] = {}
        self.held: dict[str, _Held] = {}
        self.audited: list[tuple[str, str]] = []
        self.away: Exception | None = None

    def announce(self, *events: Event) -> None:
        self.outbox |= {event.id: (event, None) for event in events}

    def _audit(self, by: Call | System, resource: str) -> None:
        self.audited.append((by.caller.account_id if isinstance(by, Call) else by.account_id, resource))
        if isinstance(by, Call):
            by.audit.resource, by.audit.committed = resource, True

    async def webhooks(self, *, after: str, limit: int) -> list[Webhook]:
        return [one for key, one in sorted(self.by_id.items()) if key > after][:limit]

    async def webhook(self, webhook_id: str) -> Webhook | None:
        return self.by_id.get(webhook_id)

    async def add(self, webhook: Webhook, secret: bytes, by: Call | System) -> None:
        self.by_id[webhook.id] = webhook
        self.secrets[webhook.id] = [(secret, None)]
        self._audit(by, f"webhook/{webhook.id}")

    async def update(self, webhook_id: str, patch: WebhookPatch, by: Call | System) -> Webhook | None:
        webhook, now = self.by_id.get(webhook_id), self.clock.now()
        if webhook is None:
            return None
        changes = {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not None}
        if patch.enabled:
            changes |= {"disabled_because": None, "disabled_at": None, "failing_since": None}
        elif patch.enabled is False:
            because = webhook.disabled_because or DisabledBecause.ASKED
            changes |= {"disabled_because": because, "disabled_at": webhook.disabled_at or now}
            self._bury(webhook_id)
        self._audit(by, f"webhook/{webhook_id}")
        self.by_id[webhook_id] = msgspec.structs.replace(webhook, updated_at=now, **changes)
        return self.by_id[webhook_id]

    async def rotate(self, webhook_id: str, secret: bytes, until: datetime, by: Call | System) -> Webhook | None:
        webhook = self.by_id.get(webhook_id)
        if webhook is None:
            return None
        self.secrets[webhook_id] = [(secret, None), (self.secrets[webhook_id][0][0], until)]
        self._audit(by, f"webhook/{webhook_id}")
        changed = {"previous_secret_until": until, "updated_at": self.clock.now()}
        self.by_id[webhook_id] = msgspec.structs.replace(webhook, **changed)
        return self.by_id[webhook_id]

    async def remove(self, webhook_id: str, by: Call | System) -> bool:
        if self.by_id.pop(webhook_id, None) is None:
            return False
        self.held = {key: one for key, one in self.held.items() if one.delivery.target != webhook_id}
        self._audit(by, f"webhook/{webhook_id}")
        return True

    async def reseal(self) -> int:
        return 0

    def _bury(self, target: str) -> None:
        for one in self.held.values():
            if one.delivery.target == target and one.delivery.state is DeliveryState.PENDING:
                self._change(one, state=DeliveryState.DEAD, next_attempt_at=None, finished_at=self.clock.now())

    @staticmethod
    def _change(one: _Held, **changes: object) -> None:
        one.delivery = msgspec.structs.replace(one.delivery, **changes)

    async def dispatch(self, route: Route, limit: int, retry: timedelta) -> int:
        now = self.clock.now()
        waiting = [event for event, done in self.outbox.values() if done is None]
        chosen = sorted(waiting, key=lambda event: (event.occurred_at, event.id))[:limit]
        told = [one for _, one in sorted(self.by_id.items()) if one.enabled]
        for event in chosen:
            for new in route(event, told):
                self._hold(new, now, now + retry)
            self.outbox[event.id] = (event, now)
        return len(chosen)

    def _hold(self, new: NewDelivery, due: datetime, give_up_at: datetime) -> _Held:
        delivery = Delivery(
            id=new.id,
            event_id=new.event_id,
            event_type=new.event_type,
            workspace_id=new.workspace_id,
            target=new.target,
            state=DeliveryState.PENDING,
            attempts=0,
            created_at=self.clock.now(),
            next_attempt_at=due,
            finished_at=None,
            history=[],
        )
        return self.held.setdefault(new.id, _Held(delivery, new.body, 0, give_up_at))

    def _due(self) -> list[_Held]:
        now = self.clock.now()
        found = [
            one
            for one in self.held.values()
            if one.delivery.state is DeliveryState.PENDING and (one.delivery.next_attempt_at or now) <= now
        ]
        return sorted(found, key=lambda one: (one.delivery.next_attempt_at or now, one.delivery.id))

    async def claim(
        self, limit: int, lease: timedelta, room: Callable[[str], int], full: Collection[str]
    ) -> list[Claimed]:
        if self.away is not None:
            raise self.away
        left: dict[str, int] = {}
        claims: list[Claimed] = []
        for one in self._due():
            target = one.delivery.target
            left.setdefault(target, 0 if target in full else room(target))
            if left[target] > 0 and len(claims) < limit:
                left[target] -= 1
                claims.append(self._take(one, lease))
        return claims

    def _take(self, one: _Held, lease: timedelta) -> Claimed:
        now = self.clock.now()
        one.token += 1
        self._change(one, attempts=one.delivery.attempts + 1, next_attempt_at=now + lease)
        webhook = self.by_id.get(one.delivery.target)
        keys = None
        if webhook is not None:
            keys = tuple(key for key, until in self.secrets[webhook.id] if until is None or until > now)
        return Claimed(
            delivery=one.delivery, body=one.body, token=one.token, give_up_at=one.give_up_at, webhook=webhook, keys=keys
        )

    async def claim_new(self, delivery: NewDelivery, lease: timedelta) -> Claimed:
        now = self.clock.now()
        claimed = self._take(self._hold(delivery, now, now), lease)
        return msgspec.structs.replace(claimed, once=True)

    async def record(self, claimed: Claimed, verdict: Verdict) -> bool:
        if self.away is not None:
            raise self.away
        one, now = self.held.get(claimed.delivery.id), self.clock.now()
        if one is None or one.token != claimed.token:
            return False
        state, again = verdict.state, verdict.next_attempt_at
        if one.delivery.state is not DeliveryState.PENDING and state is DeliveryState.PENDING:
            state, again = DeliveryState.DEAD, None
        history = [*one.delivery.history, verdict.attempt][-30:]
        ended = None if state is DeliveryState.PENDING else now
        self._change(one, state=state, next_attempt_at=again, finished_at=ended, history=history)
        if claimed.webhook is not None and claimed.webhook.id in self.by_id:
            self._note_health(self.by_id[claimed.webhook.id], verdict, now)
        return True

    def _note_health(self, webhook: Webhook, verdict: Verdict, now: datetime) -> None:
        changes: dict[str, object] = {}
        if verdict.healthy:
            changes = {"last_success_at": now, "failing_since": None}
        elif verdict.healthy is False:
            changes = {"failing_since": webhook.failing_since or now}
        if verdict.disable is not None and webhook.enabled:
            changes |= {"enabled": False, "disabled_because": verdict.disable, "disabled_at": now, "updated_at": now}
            self._bury(webhook.id)
            self.audited.append(("system:webhooks", f"webhook/{webhook.id}"))
        self.by_id[webhook.id] = msgspec.structs.replace(webhook, **changes)

    async def deliveries(self, wanted: DeliveryFilter) -> list[Delivery]:
        found = [one.delivery for one in self.held.values() if one.delivery.target == wanted.target]
        found = [one for one in found if wanted.state in (None, one.state)]
        if wanted.before is not None:
            found = [one for one in found if (one.created_at, one.id) < wanted.before]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)[: wanted.limit]

    async def redeliver(self, delivery_id: str, target: str, retry: timedelta, by: Call | System) -> Delivery | None:
        one, now = self.held.get(delivery_id), self.clock.now()
        if one is None or one.delivery.target != target:
            return None
        one.token += 1
        one.give_up_at = now + retry
        self._change(one, state=DeliveryState.PENDING, next_attempt_at=now, finished_at=None)
        self._audit(by, f"webhook/{target}/deliveries/{delivery_id}")
        return one.delivery

    async def backlog(self) -> Backlog:
        events = [event.occurred_at for event, done in self.outbox.values() if done is None]
        due = [one.delivery.next_attempt_at for one in self._due()]
        oldest = min((at for at in (*events, *due) if at is not None), default=None)
        return Backlog(events=len(events), deliveries=len(due), oldest=oldest)

    async def purge(self, keep: timedelta, keep_dead: timedelta) -> int:
        now = self.clock.now()
        ends = {DeliveryState.DELIVERED: now - keep, DeliveryState.DEAD: now - keep_dead}
        old = [
            key
            for key, one in self.held.items()
            if one.delivery.finished_at is not None and one.delivery.finished_at < ends[one.delivery.state]
        ]
        done = [key for key, (_, at) in self.outbox.items() if at is not None and at < now - EVENTS_KEPT]
        for key in old:
            del self.held[key]
        for key in done:
            del self.outbox[key]
        return len(old) + len(done)


class FakeSender:
    """Answers `answer`, or what `answers` says for a URL; keeps what was sent."""

    def __init__(self, status: int = 200) -> None:
        self.answer = Sent(duration_ms=12.5, status=status)
        self.refused: dict[str, str] = {}
        self.sent: list[tuple[str, dict[str, str], bytes]] = []

    async def refusal(self, url: str) -> str | None:
        return self.refused.get(url)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        self.sent.append((url, dict(headers), body))
        return self.answer
