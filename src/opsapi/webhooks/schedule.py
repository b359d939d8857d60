"""What follows from an attempt: done, again later, or a dead letter; and whether the endpoint is given up."""

from collections.abc import Callable
from datetime import datetime, timedelta

from opsapi.webhooks.model import Attempt, DeliveryState, DisabledBecause
from opsapi.webhooks.ports import Claimed, Sent, Verdict
from opsapi.webhooks.settings import WebhookSettings

_GONE = 410
_LONGEST_DOUBLING = 30


def pause(attempt: int, settings: WebhookSettings, chance: float) -> float:
    """Seconds after the attempt of this number (from 1): exponential, less up to half by `chance` in [0, 1)."""
    doubled = settings.backoff_seconds * float(1 << min(attempt - 1, _LONGEST_DOUBLING))
    return min(settings.backoff_max_seconds, doubled) * (1 - chance / 2)


def judge(
    claimed: Claimed,
    sent: Sent,
    began: datetime,
    ended: datetime,
    settings: WebhookSettings,
    chance: Callable[[], float],
) -> Verdict:
    number = claimed.delivery.attempts
    attempt = Attempt(
        number=number,
        at=began,
        duration_ms=round(sent.duration_ms, 1),
        status=sent.status,
        error=sent.error if sent.status is None else None if sent.accepted else _refusal(sent.status),
        response=sent.response,
    )
    if sent.accepted:
        return Verdict(attempt=attempt, state=DeliveryState.DELIVERED, next_attempt_at=None, healthy=True)
    disable = _giving_up(claimed, sent, ended, settings)
    if disable is not None or ended >= claimed.give_up_at:
        return Verdict(attempt=attempt, state=DeliveryState.DEAD, next_attempt_at=None, healthy=False, disable=disable)
    seconds = max(pause(number, settings, chance()), min(sent.retry_after or 0.0, settings.backoff_max_seconds))
    # The last attempt is made when the time is over, not up to an hour before.
    again = min(ended + timedelta(seconds=seconds), claimed.give_up_at)
    return Verdict(attempt=attempt, state=DeliveryState.PENDING, next_attempt_at=again, healthy=False)


def unsent(claimed: Claimed, why: str, at: datetime) -> Verdict:
    """A delivery that nothing can be done for: a dead letter, without a word about the endpoint."""
    attempt = Attempt(number=claimed.delivery.attempts, at=at, duration_ms=None, status=None, error=why, response=None)
    return Verdict(attempt=attempt, state=DeliveryState.DEAD, next_attempt_at=None, healthy=None)


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}; redirects are not followed"
    return f"answered {status}"


def _giving_up(claimed: Claimed, sent: Sent, now: datetime, settings: WebhookSettings) -> DisabledBecause | None:
    webhook = claimed.webhook
    if webhook is None:
        return None
    if sent.status == _GONE:
        return DisabledBecause.GONE
    longest = timedelta(hours=settings.disable_after_hours)
    if webhook.failing_since is not None and now - webhook.failing_since >= longest:
        return DisabledBecause.FAILING
    return None
