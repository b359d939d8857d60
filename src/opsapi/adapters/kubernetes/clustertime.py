"""The cluster's time, estimated from the Date headers of its answers.

A Date header says the server's time cut to whole seconds, at some moment between a request's sending and its answer.
So one sample is good to half a second plus half the round trip. The cluster's clock may be off from ours, and it may
run faster (a rehearsal cluster in virtual time), so both offset and rate are estimated.
"""

from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

from opsapi.kit.clock import Clock

_WINDOW = 32
_RESOLUTION = 1.0
"""Seconds that a Date header cuts off at most."""


class _Sample(msgspec.Struct, frozen=True, gc=False):
    ours: float
    """Our monotonic clock in the middle of the round trip."""
    theirs: float
    """The server's Unix time, in the middle of its second."""
    error: float
    """Half of the round trip, in our seconds."""


class ClusterClock:
    """Never goes back by less than two seconds; before the first sample it is our own wall clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[_Sample] = deque(maxlen=_WINDOW)
        self._recent: deque[_Sample] = deque(maxlen=3)
        self._rate = 1.0
        self._anchor: _Sample | None = None
        self._shown = float("-inf")

    @property
    def rate(self) -> float:
        """The cluster's seconds per second of ours."""
        return self._rate

    def observe(self, date: str | None, sent: float, received: float) -> None:
        """Takes in an answer's Date header; `sent` and `received` are monotonic. What is no date is ignored."""
        if date is None:
            return
        try:
            theirs = parsedate_to_datetime(date).timestamp() + _RESOLUTION / 2
        except (ValueError, TypeError, OverflowError):
            return
        sample = _Sample((sent + received) / 2, theirs, (received - sent) / 2)
        if self._anchor is None or self._fits(sample):
            self._take(sample)
        else:
            self._doubt(sample)

    def now(self) -> datetime:
        if self._anchor is None:
            return self._clock.now()
        estimate = self._estimate(self._clock.monotonic())
        if self._shown - 2.0 < estimate < self._shown:
            estimate = self._shown
        self._shown = estimate
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=estimate)

    def _estimate(self, ours: float) -> float:
        assert self._anchor is not None
        return self._anchor.theirs + (ours - self._anchor.ours) * self._rate

    def _fits(self, sample: _Sample) -> bool:
        allowed = _RESOLUTION + (sample.error + 0.05) * max(1.0, self._rate)
        return abs(sample.theirs - self._estimate(sample.ours)) <= allowed

    def _take(self, sample: _Sample) -> None:
        """Keeps about one sample a second, so that the window spans the half minute that a rate needs."""
        if self._remember(sample):
            self._samples.append(sample)
            self._fit()

    def _doubt(self, sample: _Sample) -> None:
        """A sample off the line: the clock was set, or its rate changed. Where the last three agree on a rate, they are
        the new line; otherwise time is taken to go on from here at our own pace."""
        if not self._remember(sample):
            self._recent[-1] = sample
        self._samples.clear()
        if self._steady():
            self._samples.extend(self._recent)
            self._fit()
        else:
            self._samples.append(sample)
            self._rate = 1.0
            self._anchor = sample

    def _remember(self, sample: _Sample) -> bool:
        if self._recent and sample.ours - self._recent[-1].ours < 1.0:
            return False
        self._recent.append(sample)
        return True

    def _steady(self) -> bool:
        if len(self._recent) < 3:
            return False
        first, middle, last = self._recent
        gaps = (middle.ours - first.ours, last.ours - middle.ours)
        if sum(gaps) < 3.0:
            return False
        before, after = (middle.theirs - first.theirs) / gaps[0], (last.theirs - middle.theirs) / gaps[1]
        doubt = 2 * _RESOLUTION / min(gaps)
        return before > 0 and after > 0 and abs(before - after) <= 0.2 * max(before, after) + doubt

    def _fit(self) -> None:
        first, last = self._samples[0], self._samples[-1]
        span = last.ours - first.ours
        if span > 0:
            rate = (last.theirs - first.theirs) / span
            indistinguishable = abs(rate - 1.0) * span <= _RESOLUTION + first.error + last.error
            self._rate = 1.0 if indistinguishable else rate
        ahead = sorted(sample.theirs - sample.ours * self._rate for sample in self._samples)
        self._anchor = _Sample(last.ours, ahead[len(ahead) // 2] + last.ours * self._rate, last.error)
