"""A workload's pods are known by their names, as Kubernetes makes them, and no namesake's are taken for them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.telemetry.model import WorkloadSelector
from opsapi.telemetry.naming import is_pod_of, pod_pattern, pods_pattern

SAFE = "bcdfghjklmnpqrstvwxz2456789"
names = st.from_regex(r"[a-z]([a-z0-9-]{0,251}[a-z0-9])?", fullmatch=True)
hashes = st.text(SAFE, min_size=8, max_size=10)
randoms = st.text(SAFE, min_size=5, max_size=5)


def generated(base: str, random: str) -> str:
    """metadata.generateName as the API server fills it in."""
    return base[:58] + random


@given(names, hashes, randoms)
def test_pods_of_every_generation_are_recognised_however_long_the_name(name: str, drawn: str, random: str) -> None:
    assert is_pod_of(WorkloadSelector("Deployment", "shop", name), generated(f"{name}-{drawn}-", random))
    assert is_pod_of(WorkloadSelector("DaemonSet", "shop", name), generated(f"{name}-", random))
    assert is_pod_of(WorkloadSelector("Job", "shop", name), generated(f"{name}-", random))
    assert is_pod_of(WorkloadSelector("StatefulSet", "shop", name), f"{name}-12")


@pytest.mark.parametrize(
    ("kind", "pod"),
    [
        ("Deployment", "web-api-58ddf58894-d9wfp"),
        ("Deployment", "web-58ddf58894"),
        ("Deployment", "web-58ddf58894-d9wfp-x"),
        ("Deployment", "my-web-58ddf58894-d9wfp"),
        ("Deployment", "web"),
        ("Deployment", "web-0"),
        ("Deployment", "WEB-58ddf58894-d9wfp"),
        ("StatefulSet", "web-api-0"),
        ("StatefulSet", "web-0-1"),
        ("StatefulSet", "web-58ddf58894-d9wfp"),
        ("DaemonSet", "web-58ddf58894-d9wfp"),
        ("DaemonSet", "web-d9wf1"),
        ("CronJob", "web-d9wfp"),
    ],
)
def test_what_looks_alike_is_not_its_own(kind: str, pod: str) -> None:
    assert not is_pod_of(WorkloadSelector(kind, "shop", "web"), pod)


def test_a_cron_jobs_pods_carry_the_minute_of_their_job() -> None:
    assert is_pod_of(WorkloadSelector("CronJob", "shop", "report"), "report-29012345-d9wfp")


def test_names_that_are_known_count_whatever_their_form() -> None:
    known = WorkloadSelector("Deployment", "shop", "web", pods=("odd.name",))
    assert is_pod_of(known, "odd.name")
    assert not is_pod_of(known, "oddxname")
    assert is_pod_of(known, "web-58ddf58894-d9wfp")


@given(st.text(max_size=70))
def test_no_text_makes_a_pattern_that_matches_more_than_names_that_begin_with_it(text: str) -> None:
    pattern = re.compile(pod_pattern("Deployment", text))
    for other in ("web-58ddf58894-d9wfp", "", "x"):
        if not other.startswith(text[:58]):
            assert pattern.fullmatch(other) is None
    assert re.compile(pods_pattern(WorkloadSelector("StatefulSet", "", text, pods=(text,)))).fullmatch(text)
