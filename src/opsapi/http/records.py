"""What is kept of every answered request: its audit entry, its log line, its figures.

Requests are gathered for a moment after their answers have gone out, and recorded together: in one go it costs a third.
"""

import asyncio
import logging

from opsapi.audit.model import AuditEntry, request_entry
from opsapi.http.exchange import Answer, Exchange
from opsapi.http.logs import RequestLog
from opsapi.http.metrics import RequestMetrics
from opsapi.http.ports import Recorder
from opsapi.kit.endpoint import Idempotency
from opsapi.kit.errors import OpsError

_GATHER_SECONDS = 0.02
_GATHER_REQUESTS = 64
_log = logging.getLogger("opsapi.http")

Answered = tuple[Exchange, Answer, float]
"""The last is seconds from the head to the answer."""


class Records:
    def __init__(self, recorder: Recorder, log: RequestLog) -> None:
        self.metrics = RequestMetrics()
        self._recorder = recorder
        self._log = log
        self._waiting: list[Answered] = []

    def add(self, exchange: Exchange, answer: Answer, seconds: float) -> None:
        waiting = self._waiting
        waiting.append((exchange, answer, seconds))
        if len(waiting) == 1:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        elif len(waiting) >= _GATHER_REQUESTS:
            self.flush()

    def flush(self) -> None:
        """Records all that waits, now."""
        answered, self._waiting = self._waiting, []
        for exchange, answer, seconds in answered:
            self.metrics.observe(exchange.endpoint, exchange.method, answer.status, answer.code, seconds)
        guarded = [each for each in answered if each[0].public_name is None]
        for each in guarded:
            self._audit(each)
        self._log.write(guarded)

    def _audit(self, answered: Answered) -> None:
        exchange, answer, _ = answered
        if not _is_audited(exchange, answer):
            return
        try:
            self._recorder.record(_entry(*answered))
        except OpsError as error:
            _log.error("a request is missing from the audit: %s", error, extra={"request_id": exchange.request_id})


def _is_audited(exchange: Exchange, answer: Answer) -> bool:
    if exchange.audit.committed:
        return False
    route = exchange.route
    if route is None or route.declaration.audit_reads or answer.status >= 400:
        return True
    return route.declaration.idempotency is not Idempotency.SAFE


def _entry(exchange: Exchange, answer: Answer, seconds: float) -> AuditEntry:
    return request_entry(
        at=exchange.received_at,
        method=exchange.method,
        path=exchange.path,
        request_id=exchange.request_id,
        status=answer.status,
        caller=exchange.caller,
        claimed_account_id=exchange.claimed_account,
        address=exchange.address,
        endpoint=exchange.endpoint if exchange.route is not None else None,
        trail=exchange.audit,
        error_code=answer.code,
        seconds=seconds,
    )
