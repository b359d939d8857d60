"""What containers use: repeatable, bounded, and following the load."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.behaviour.builtin import PROFILES
from opsapi.playground.behaviour.profile import Cpu, Memory, Profile, ProfileError, Traffic, parse_profile
from opsapi.playground.behaviour.usage import (
    Modifiers,
    arriving,
    key_of,
    memory_at,
    most_memory,
    noise,
    sample,
)

MOMENTS = st.floats(1.7e9, 1.9e9)
KEYS = st.integers(0, 2**32 - 1)
BUILT_IN = st.sampled_from(sorted(PROFILES))


@given(KEYS, MOMENTS, st.integers(0, 9))
def test_noise_stays_within_one(key: int, at: float, stream: int) -> None:
    assert -1.0 <= noise(key, at, stream) <= 1.0
    assert noise(key, at, stream) == noise(key, at, stream)


@given(BUILT_IN, KEYS, MOMENTS, st.floats(0, 1e6), st.floats(1, 500))
def test_cpu_never_passes_its_limit_and_what_is_denied_is_throttled(
    name: str, key: int, at: float, uptime: float, limit: float
) -> None:
    profile = PROFILES[name]
    rps = arriving(profile, at, key)
    free = sample(profile, key, at, uptime, rps)
    bound = sample(profile, key, at, uptime, rps, limit)
    assert bound.cpu <= limit
    assert bound.cpu == pytest.approx(min(free.cpu, limit))
    assert 0 <= bound.throttled <= 1
    assert (bound.throttled > 0) == (free.cpu > limit)
    assert bound.p99 >= free.p99 * 0.999


@given(BUILT_IN, KEYS, MOMENTS, st.floats(0, 86400))
def test_memory_stays_below_its_bound(name: str, key: int, at: float, uptime: float) -> None:
    profile = PROFILES[name]
    assert 0 <= memory_at(profile, key, at, uptime, arriving(profile, at, key)) <= most_memory(profile)


@given(KEYS, MOMENTS, st.floats(0, 86400))
def test_traffic_follows_the_day_around_its_mean(key: int, at: float, shift: float) -> None:
    profile = Profile(traffic=Traffic(rps=100, swing=0.5, noise=0.0))
    assert 50 <= arriving(profile, at, key) <= 150.0001
    day = [arriving(profile, at + shift + hour * 3600, key) for hour in range(24)]
    assert sum(day) / 24 == pytest.approx(100, rel=1e-6)


def test_a_leak_grows_with_the_time_up_and_has_no_bound() -> None:
    profile = Profile(memory=Memory(base="100Mi", per_rps="0", leak_per_hour="50Mi"))
    after = [memory_at(profile, 1, 1.8e9, hours * 3600, 0) / (1 << 20) for hours in (1, 2, 10)]
    assert after == pytest.approx([150, 200, 600], rel=0.03)
    assert most_memory(profile) == math.inf


def test_an_injected_leak_counts_from_its_injection() -> None:
    profile = Profile(memory=Memory(base="100Mi", per_rps="0"))
    faults = Modifiers(leak_per_hour=float(60 << 20), leak_since=1.8e9)
    before = memory_at(profile, 1, 1.8e9, 7200, 0, faults)
    later = memory_at(profile, 1, 1.8e9 + 3600, 7200 + 3600, 0, faults)
    assert (later - before) / (1 << 20) == pytest.approx(60, rel=0.1)


def test_requests_cost_cpu() -> None:
    profile = Profile(cpu=Cpu(base_millicores=0, per_request_ms=5))
    assert sample(profile, 1, 1.8e9, 3600, 20).cpu == pytest.approx(100, rel=0.07)


def test_a_key_depends_on_seed_pod_and_container() -> None:
    keys = {key_of(seed, uid, name) for seed in (1, 2) for uid in ("a", "b") for name in ("x", "y")}
    assert len(keys) == 8


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"trafic": {}}', "trafic"),
        ('{"cpu": {"base_millicores": "many"}}', "base_millicores"),
        ('{"memory": {"base": "lots"}}', "lots"),
        ('{"error_rate": 3}', "error_rate"),
        ('{"traffic": {"swing": 2}}', "swing"),
        ('{"cpu": ', "truncated"),
    ],
)
def test_a_profile_that_makes_no_sense_says_where(text: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why):
        parse_profile(text)


def test_a_profile_may_be_a_name_or_speak_of_several_containers() -> None:
    assert parse_profile("web") == "web"
    found = parse_profile('{"containers": {"app": {"error_rate": 0.5}}}')
    assert isinstance(found, dict)
    assert found["app"].error_rate == 0.5
