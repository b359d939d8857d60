"""What follows from an attempt."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.webhooks.model import Delivery, DeliveryState, DisabledBecause
from opsapi.webhooks.ports import Claimed, Sent, Verdict
from opsapi.webhooks.schedule import judge, pause
from opsapi.webhooks.settings import WebhookSettings
from support.acting import NOON
from support.webhooks import SECRET, make_webhook

SETTINGS = WebhookSettings()
DAY = timedelta(days=1)


def make_claim(attempts: int = 1, **webhook: object) -> Claimed:
    delivery = Delivery(
        id="dlv-1",
        event_id="evt-1",
        event_type="internal.operation.failed",
        workspace_id="ws-1",
        target="wh-1",
        state=DeliveryState.PENDING,
        attempts=attempts,
        created_at=NOON,
        next_attempt_at=NOON,
        finished_at=None,
        history=[],
    )
    return Claimed(
        delivery=delivery, body=b"{}", token=1, give_up_at=NOON + DAY, webhook=make_webhook(**webhook), keys=(SECRET,)
    )


def judged(sent: Sent, claimed: Claimed | None = None, later: timedelta = timedelta(), chance: float = 0.0) -> Verdict:
    return judge(claimed or make_claim(), sent, NOON, NOON + later, SETTINGS, lambda: chance)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_delivered(status: int) -> None:
    verdict = judged(Sent(duration_ms=7.04, status=status))
    assert (verdict.state, verdict.healthy, verdict.next_attempt_at) == (DeliveryState.DELIVERED, True, None)
    assert (verdict.attempt.status, verdict.attempt.error, verdict.attempt.duration_ms) == (status, None, 7.0)


@pytest.mark.parametrize("status", [100, 301, 302, 307, 400, 401, 404, 429, 500, 503])
def test_everything_else_is_tried_again(status: int) -> None:
    verdict = judged(Sent(duration_ms=7, status=status, response="no"))
    assert (verdict.state, verdict.healthy) == (DeliveryState.PENDING, False)
    assert verdict.next_attempt_at == NOON + timedelta(seconds=5)
    assert (verdict.attempt.error or "").startswith(f"answered {status}")
    assert ("redirects are not followed" in str(verdict.attempt.error)) is (300 <= status < 400)


def test_without_an_answer_the_error_is_kept() -> None:
    verdict = judged(Sent(duration_ms=15000, error="no answer in time"))
    assert (verdict.attempt.status, verdict.attempt.error) == (None, "no answer in time")
    assert verdict.state is DeliveryState.PENDING


def test_a_410_disables_at_once_and_a_channel_cannot_be_disabled() -> None:
    verdict = judged(Sent(duration_ms=1, status=410))
    assert (verdict.state, verdict.disable) == (DeliveryState.DEAD, DisabledBecause.GONE)
    channel = msgspec.structs.replace(make_claim(), webhook=None)
    assert judged(Sent(duration_ms=1, status=410), channel).disable is None


def test_an_endpoint_that_failed_for_long_enough_is_disabled() -> None:
    failing = make_claim(failing_since=NOON - timedelta(hours=119))
    assert judged(Sent(duration_ms=1, status=500), failing).disable is None
    verdict = judged(Sent(duration_ms=1, status=500), failing, timedelta(hours=1))
    assert (verdict.state, verdict.disable) == (DeliveryState.DEAD, DisabledBecause.FAILING)
    assert judged(Sent(duration_ms=1, status=200), failing, timedelta(hours=1)).disable is None


def test_the_last_attempt_is_made_when_the_day_is_over_and_then_it_is_dead() -> None:
    nearly = DAY - timedelta(minutes=10)
    verdict = judged(Sent(duration_ms=1, status=500), make_claim(30), nearly)
    assert verdict.next_attempt_at == NOON + DAY
    last = judged(Sent(duration_ms=1, status=500), make_claim(31), DAY)
    assert (last.state, last.next_attempt_at, last.disable) == (DeliveryState.DEAD, None, None)


def test_a_receivers_wish_for_a_pause_is_kept_within_the_longest_one() -> None:
    assert judged(Sent(duration_ms=1, status=429, retry_after=120)).next_attempt_at == NOON + timedelta(seconds=120)
    assert judged(Sent(duration_ms=1, status=503, retry_after=1)).next_attempt_at == NOON + timedelta(seconds=5)
    assert judged(Sent(duration_ms=1, status=503, retry_after=9e8)).next_attempt_at == NOON + timedelta(hours=1)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_double_up_to_the_longest_less_at_most_half(attempt: int, chance: float) -> None:
    longest = min(3600.0, 5.0 * 2 ** min(attempt - 1, 30))
    assert longest / 2 <= pause(attempt, SETTINGS, chance) <= longest


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=100, max_size=100))
def test_a_dead_endpoint_is_tried_for_a_day_some_dozens_of_times(chances: list[float]) -> None:
    now, number, luck = NOON, 1, iter(chances)
    while True:
        sent = Sent(duration_ms=1, status=500)
        verdict = judge(make_claim(number), sent, now, now, SETTINGS, lambda: next(luck))
        if verdict.next_attempt_at is None:
            break
        assert verdict.next_attempt_at > now
        now, number = verdict.next_attempt_at, number + 1
    assert now == NOON + DAY
    assert 30 < number < 70
