"""Idempotency-Key: the first answer to a key is the answer."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable

import msgspec

from opsapi.http.errors import IdempotencyInProgress, IdempotencyKeyReused
from opsapi.http.exchange import Answer, Exchange
from opsapi.http.failures import failure
from opsapi.http.routing import Route
from opsapi.kit.endpoint import Body, Idempotency, Params
from opsapi.kit.errors import OpsError, ValidationFailed
from opsapi.kit.idempotency import Claimed, IdempotencyStore, InProgress, Reused, StoredAnswer

_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = frozenset({b"location"})
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5
_log = logging.getLogger("opsapi.http")


def idempotency_key(exchange: Exchange, route: Route) -> str | None:
    """The key that the route honours, None where there is none. Raises ValidationFailed."""
    raw = exchange.headers.get(b"idempotency-key")
    if raw is None or route.declaration.idempotency is Idempotency.SAFE:
        return None
    if route.declaration.idempotency is Idempotency.REFUSED:
        raise ValidationFailed(
            {"Idempotency-Key": "refused here: the answer holds a secret, which is never kept for a replay"}
        )
    if not _KEY.fullmatch(raw):
        raise ValidationFailed({"Idempotency-Key": "must be 1 to 255 printable ASCII characters without spaces"})
    return raw.decode()


class Replays:
    """Runs a call under its key: once, however often it is sent."""

    def __init__(self, store: IdempotencyStore, wait_seconds: float) -> None:
        self._store = store
        self._wait = wait_seconds

    async def once(
        self, exchange: Exchange, key: str, params: Params, body: Body, run: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Refusals are answers too; those that may differ next time (429, 5xx, an unexpected failure) free the key.

        Raises IdempotencyInProgress, IdempotencyKeyReused, and what else than OpsError `run` raises.
        """
        claim = await self._claim(exchange, key, _fingerprint(params, body))
        if isinstance(claim, StoredAnswer):
            exchange.idempotency_replayed = True
            return _replayed(claim)
        try:
            answer = await run()
        except OpsError as error:
            answer = failure(error, exchange)
        except BaseException:
            await self._settle(self._store.abandon(claim.claim_id))
            raise
        if answer.status >= 500 or answer.status == 429:
            await self._settle(self._store.abandon(claim.claim_id))
        else:
            await self._settle(self._store.finish(claim.claim_id, _stored(answer)))
        return answer

    async def _claim(self, exchange: Exchange, key: str, fingerprint: bytes) -> Claimed | StoredAnswer:
        """Waits a while for a twin's answer."""
        assert exchange.caller is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait
        pause = _FIRST_PAUSE
        while True:
            found = await self._store.claim(
                exchange.caller.account_id, exchange.method, exchange.path, key, fingerprint
            )
            if isinstance(found, Reused):
                raise IdempotencyKeyReused(key)
            if not isinstance(found, InProgress):
                return found
            if loop.time() + pause > deadline:
                raise IdempotencyInProgress(key)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @staticmethod
    async def _settle(settling: Awaitable[None]) -> None:
        """The work is done either way: a store that fails now costs the replay, not the answer."""
        try:
            await asyncio.shield(asyncio.ensure_future(settling))
        except Exception:
            _log.exception("an idempotency key could not be settled")


def _fingerprint(params: Params, body: Body) -> bytes:
    """By meaning, not by bytes: white space and the order of names do not make another body."""
    return hashlib.sha256(msgspec.json.encode((params, body))).digest()


def _stored(answer: Answer) -> StoredAnswer:
    kept = {name.decode(): value.decode("latin-1") for name, value in answer.headers if name in _KEPT_HEADERS}
    return StoredAnswer(answer.status, kept, answer.body)


def _replayed(stored: StoredAnswer) -> Answer:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in stored.headers.items()]
    code = None
    if stored.status >= 400:
        code = str(msgspec.json.decode(stored.body)["error"]["code"])
    return Answer(stored.status, stored.body, [*headers, (b"idempotency-replayed", b"true")], code)
