"""Claims due deliveries and attempts them, several at once; no endpoint can hold more than its share."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import msgspec

from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.model import DeliveryState
from opsapi.webhooks.ports import Claimed, DeliveryStore, NewDelivery, Sender, Sent, Verdict
from opsapi.webhooks.schedule import judge, unsent
from opsapi.webhooks.settings import SLACK, WEBHOOK, WebhookSettings
from opsapi.webhooks.signing import signed_headers

_AT_ONCE = 16
"""Claimed in one transaction at most."""
_LEASE_MARGIN_SECONDS = 15.0
_RECORD_AGAIN_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Figures(msgspec.Struct):
    """Of this process since its start."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0


class Deliverer:
    """`run()` until `stop()`. A delivery is repeated when its process dies before the outcome was written down: at
    least once, with the same `webhook-id`."""

    def __init__(
        self,
        store: DeliveryStore,
        sender: Sender,
        channels: Channels,
        clock: Clock,
        settings: WebhookSettings,
        chance: Callable[[], float] = random.random,
        lease_margin_seconds: float = _LEASE_MARGIN_SECONDS,
    ) -> None:
        """After a process' death another repeats its attempts once they could have ended, and the margin is over."""
        self._store = store
        self._sender = sender
        self._channels = channels
        self._clock = clock
        self._settings = settings
        self._chance = chance
        self._lease = timedelta(seconds=settings.timeout_seconds + lease_margin_seconds)
        self._stopping = False
        self._woken = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._sending: Counter[str] = Counter()
        self._failing: set[str] = set()
        self.figures = Figures()

    @property
    def busy(self) -> int:
        return len(self._running)

    def wake(self) -> None:
        """There may be something due."""
        self._woken.set()

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    async def run(self) -> None:
        try:
            while not self._stopping:
                self._woken.clear()
                if not await self._start_due():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), self._settings.poll_seconds)
        finally:
            await self._drain()

    async def _start_due(self) -> bool:
        free = self._settings.concurrency - len(self._running)
        if free <= 0:
            return False
        full = [target for target in self._sending if self._room(target) <= 0]
        try:
            claims = await self._store.claim(min(free, _AT_ONCE), self._lease, self._room, full)
        except DependencyUnavailable as error:
            _log.warning("no delivery can be claimed: %s", error.message)
            return False
        except Exception:
            _log.exception("no delivery can be claimed")
            return False
        for claimed in claims:
            self._start(claimed)
        return bool(claims)

    def _room(self, target: str) -> int:
        """One that hangs holds one place, whatever waits for it."""
        most = 1 if target in self._failing else self._settings.per_endpoint
        return most - self._sending[target]

    def _start(self, claimed: Claimed) -> None:
        target = claimed.delivery.target
        task = asyncio.create_task(self._deliver(claimed), name=f"delivery {claimed.delivery.id}")
        self._sending[target] += 1
        self._running.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._sending[target] -= 1
            if not self._sending[target]:
                del self._sending[target]
            self.wake()

        task.add_done_callback(ended)

    async def _deliver(self, claimed: Claimed) -> None:
        try:
            verdict = await self.attempt(claimed)
            await self.record(claimed, verdict)
        except Exception:
            _log.exception("delivery %s: its outcome cannot be recorded", claimed.delivery.id)

    async def attempt(self, claimed: Claimed) -> Verdict:
        """Sends once. Raises nothing: whatever goes wrong is a failed attempt."""
        began = self._clock.now()
        destination = self._destination(claimed)
        if isinstance(destination, str):
            return unsent(claimed, destination, began)
        url, keys = destination
        headers = {"content-type": "application/json"}
        if keys:
            headers |= signed_headers(claimed.delivery.event_id, began, claimed.body, keys)
        try:
            sent = await self._sender.send(url, headers, claimed.body)
        except Exception:
            _log.exception("delivery %s failed within the service", claimed.delivery.id)
            sent = Sent(duration_ms=0.0, error="failed within the service; its log says more")
        return judge(claimed, sent, began, self._clock.now(), self._settings, self._chance)

    def _destination(self, claimed: Claimed) -> tuple[str, tuple[bytes, ...]] | str:
        """URL and keys, or why there is none."""
        target = claimed.delivery.target
        if target.startswith((SLACK, WEBHOOK)):
            channel = self._channels.find(target)
            if channel is None:
                return "the configuration has no such channel"
            return channel.url.reveal(), () if channel.key is None else (channel.key,)
        if claimed.webhook is None:
            return "the webhook was removed"
        if not claimed.webhook.enabled and not claimed.once:
            return "the webhook is disabled"
        if not claimed.keys:
            return "no configured key opens the webhook's signing secret"
        return claimed.webhook.url, claimed.keys

    async def record(self, claimed: Claimed, verdict: Verdict) -> None:
        """Tries for as long as the lease lasts: what is not recorded is sent again."""
        until = self._clock.monotonic() + self._lease.total_seconds()
        while True:
            try:
                recorded = await self._store.record(claimed, verdict)
                break
            except DependencyUnavailable as error:
                if self._clock.monotonic() >= until:
                    _log.warning("delivery %s will be repeated: %s", claimed.delivery.id, error.message)
                    return
                await asyncio.sleep(_RECORD_AGAIN_SECONDS)
        if not recorded:
            _log.info("delivery %s: another process has taken it over", claimed.delivery.id)
            return
        self._note(claimed, verdict)

    def _note(self, claimed: Claimed, verdict: Verdict) -> None:
        target, figures = claimed.delivery.target, self.figures
        if verdict.state is DeliveryState.DELIVERED:
            self._failing.discard(target)
            figures.delivered += 1
            return
        self._failing.add(target)
        figures.failed += 1
        if verdict.state is DeliveryState.DEAD:
            figures.dead += 1
            _log.warning("delivery %s of %s is a dead letter", claimed.delivery.id, claimed.delivery.event_type)
        if verdict.disable is not None:
            _log.warning("webhook %s is disabled: %s", target, verdict.disable)

    async def send_now(self, delivery: NewDelivery) -> tuple[Claimed, Verdict]:
        """One attempt for somebody who waits for its outcome; it says nothing bad about the endpoint."""
        claimed = await self._store.claim_new(delivery, self._lease)
        verdict = await self.attempt(claimed)
        verdict = msgspec.structs.replace(verdict, healthy=verdict.healthy or None, disable=None)
        await self._store.record(claimed, verdict)
        return claimed, verdict

    async def _drain(self) -> None:
        running = set(self._running)
        if not running:
            return
        _, left = await asyncio.wait(running, timeout=self._settings.drain_seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
