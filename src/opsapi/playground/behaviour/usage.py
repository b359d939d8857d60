"""What a container uses at a moment: pure functions of profile, load, age and a key; free until asked for."""

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache

from opsapi.kit.quantity import whole
from opsapi.playground.behaviour.profile import Profile

_DAY = 86400.0
_NOISE_SECONDS = 15.0
_WARM_UP = 30.0
"""Seconds over which a fresh process reaches its base memory."""


@lru_cache(maxsize=8192)
def _bytes(quantity: str) -> int:
    return whole(quantity)


def noise(key: int, at: float, stream: int = 0) -> float:
    """Smooth, repeatable, in [-1, 1]: value noise with a knot each 15 s."""
    position = at / _NOISE_SECONDS
    knot = math.floor(position)
    share = position - knot
    return _knot(key, knot, stream) * (1 - share) + _knot(key, knot + 1, stream) * share


def _knot(key: int, index: int, stream: int) -> float:
    return zlib.crc32(b"%d:%d:%d" % (key, index, stream)) / 0x7FFFFFFF - 1.0


def key_of(seed: int, uid: str, container: str) -> int:
    return zlib.crc32(f"{seed}/{uid}/{container}".encode())


def arriving(profile: Profile, epoch_seconds: float, key: int = 0) -> float:
    """Requests a second for the whole workload: a daily cosine around the mean, with noise."""
    traffic = profile.traffic
    if traffic.rps <= 0:
        return 0.0
    hour = (epoch_seconds % _DAY) / 3600
    daily = 1 + traffic.swing * math.cos((hour - traffic.peak_hour) / 24 * 2 * math.pi)
    return max(0.0, traffic.rps * daily * (1 + traffic.noise * noise(key, epoch_seconds, 7)))


@dataclass(frozen=True, slots=True)
class Modifiers:
    """What injected faults do to a container; the neutral value changes nothing."""

    leak_per_hour: float = 0.0
    """Bytes, on top of the profile's."""
    leak_since: float = 0.0
    """Epoch seconds."""
    extra_memory: float = 0.0
    cpu_factor: float = 1.0
    latency_factor: float = 1.0
    error_rate: float = 0.0


NEUTRAL = Modifiers()


@dataclass(frozen=True, slots=True)
class Sample:
    """cpu in millicores, memory in bytes, latencies in ms, throttled: the share of wanted CPU that the limit denied."""

    cpu: float
    memory: float
    rps: float
    error_rate: float
    p50: float
    p99: float
    throttled: float


def memory_at(profile: Profile, key: int, at: float, uptime: float, rps: float, faults: Modifiers = NEUTRAL) -> float:
    """Bytes of working set, unbounded: what passes the limit is killed by whoever asks."""
    base = _bytes(profile.memory.base)
    warm = 0.6 + 0.4 * min(1.0, max(0.0, uptime) / _WARM_UP)
    leak = _bytes(profile.memory.leak_per_hour) * max(0.0, uptime) / 3600
    if faults.leak_per_hour:
        leak += faults.leak_per_hour * max(0.0, min(uptime, at - faults.leak_since)) / 3600
    steady = base * warm + _bytes(profile.memory.per_rps) * rps
    return steady * (1 + 0.02 * noise(key, at, 2)) + leak + faults.extra_memory


def most_memory(profile: Profile, faults: Modifiers = NEUTRAL) -> float:
    """An upper bound of memory_at over all times: infinite where it leaks."""
    if _bytes(profile.memory.leak_per_hour) or faults.leak_per_hour:
        return math.inf
    peak = profile.traffic.rps * (1 + profile.traffic.swing) * (1 + profile.traffic.noise)
    return (_bytes(profile.memory.base) + _bytes(profile.memory.per_rps) * peak) * 1.02 + faults.extra_memory


def sample(
    profile: Profile,
    key: int,
    at: float,
    uptime: float,
    rps: float,
    cpu_limit: float | None = None,
    faults: Modifiers = NEUTRAL,
) -> Sample:
    """All figures at `at` (epoch seconds) for a container that serves `rps`; CPU stays below `cpu_limit` millicores.

    Latency grows with the CPU that the limit denies: a request that needs twice what it gets takes twice as long.
    """
    start_up = 1.0 + 2.0 * max(0.0, 1 - uptime / 10)
    wanted = (profile.cpu.base_millicores * start_up + profile.cpu.per_request_ms * rps) * faults.cpu_factor
    wanted *= 1 + 0.06 * noise(key, at, 1)
    cpu = wanted if cpu_limit is None else min(wanted, cpu_limit)
    slow = faults.latency_factor * (wanted / cpu if cpu > 0 else 1.0)
    return Sample(
        cpu=cpu,
        memory=memory_at(profile, key, at, uptime, rps, faults),
        rps=rps,
        error_rate=min(1.0, profile.error_rate + faults.error_rate),
        p50=profile.latency.p50_ms * slow * (1 + 0.05 * noise(key, at, 3)),
        p99=profile.latency.p99_ms * slow * (1 + 0.10 * noise(key, at, 4)),
        throttled=1 - cpu / wanted if wanted > 0 else 0.0,
    )
