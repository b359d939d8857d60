"""A newest revision that is ill, and whether the one before it is known to have been well."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from opsapi.diagnosis.model import Cause, PodFinding
from opsapi.diagnosis.releases import BadRelease, Revision, judge_release
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    STATEFUL_SET,
    Condition,
    Event,
    Kind,
    ObjectMeta,
    ObjectReference,
    Pod,
    PodStatus,
)
from support.workloads import make_deployment

NOW = datetime.fromisoformat("2024-01-20T15:30:00Z")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def pod(name: str, *, ready: bool) -> Pod:
    condition = Condition(type="Ready", status="True" if ready else "False")
    status = PodStatus(phase="Running", conditions=(condition,))
    return Pod(metadata=ObjectMeta(name=name, namespace="shop", uid=f"uid-{name}"), status=status)


def finding(name: str, cause: Cause = Cause.CRASH_LOOP, since: float = 400) -> PodFinding:
    return PodFinding(
        pod=name, uid=f"uid-{name}", cause=cause, since=ago(since), restart_cures=False, why="", evidence=()
    )


def revision(number: int, *pods: Pod, age: float) -> Revision:
    return Revision(
        number=number, name=f"web-h{number}", uid=f"uid-{number}", label=f"h{number}", created_at=ago(age), pods=pods
    )


def judge(
    *revisions: Revision, ill: tuple[PodFinding, ...], events: Any = (), kind: Kind = DEPLOYMENT
) -> BadRelease | None:
    return judge_release(kind, make_deployment(), revisions, ill, events, NOW)


NEW = pod("web-h2-1", ready=False)


def test_a_crashing_revision_beside_a_ready_older_one_is_a_bad_release() -> None:
    found = judge(revision(1, pod("old", ready=True), age=9000), revision(2, NEW, age=500), ill=(finding("web-h2-1"),))
    assert found is not None
    assert (found.current.number, found.previous.number, found.proven) == (2, 1, True)
    assert found.since == ago(400)
    assert [one.value for one in found.evidence] == [
        "revision 2: none of 1 pods is well", "revision 1: 1 pods are ready",
    ]  # fmt: skip


def test_one_revision_alone_is_no_release() -> None:
    assert judge(revision(1, NEW, age=500), ill=(finding("web-h2-1"),)) is None


def test_a_revision_with_a_well_pod_is_not_bad_as_a_whole() -> None:
    newest = revision(2, NEW, pod("web-h2-2", ready=True), age=500)
    assert judge(revision(1, age=9000), newest, ill=(finding("web-h2-1"),)) is None


@pytest.mark.parametrize("cause", [Cause.UNSCHEDULABLE, Cause.NODE_NOT_READY, Cause.STUCK_TERMINATING])
def test_what_no_release_brings_about_is_no_bad_release(cause: Cause) -> None:
    ill = (finding("web-h2-1", cause),)
    assert judge(revision(1, pod("old", ready=True), age=9000), revision(2, NEW, age=500), ill=ill) is None


def test_an_older_revision_that_is_ill_itself_proves_nothing() -> None:
    old = pod("old", ready=True)
    ill = (finding("web-h2-1"), finding("old"))
    events = (backoff("web-h1-old"),)
    found = judge(revision(1, old, age=9000), revision(2, NEW, age=500), ill=ill, events=events)
    assert found is not None
    assert not found.proven


def backoff(name: str) -> Event:
    about = ObjectReference(kind="Pod", namespace="shop", name=name, uid="u")
    return Event(metadata=ObjectMeta(name="e"), involved_object=about, reason="BackOff", last_timestamp=ago(600))


@pytest.mark.parametrize(
    ("first", "second", "events", "doubt"),
    [
        (9000, 500, (), ""),
        (9000, 500, (backoff("web-h2-1"),), ""),
        (9000, 500, (backoff("web-h1-1"),), "failed as well: BackOff"),
        (9000, 500, None, "events cannot be read"),
        (9000, 4000, (), "the events of its time are gone"),
        (510, 500, (), "was replaced before it had run for 30 s"),
    ],
)
def test_pods_that_are_gone_are_judged_by_the_events_that_outlive_them(
    first: float, second: float, events: Any, doubt: str
) -> None:
    found = judge(revision(1, age=first), revision(2, NEW, age=second), ill=(finding("web-h2-1"),), events=events)
    assert found is not None
    assert found.proven is not bool(doubt)
    assert doubt in found.doubt


def test_a_stateful_sets_pods_bear_the_same_names_so_events_prove_nothing() -> None:
    found = judge(revision(1, age=9000), revision(2, NEW, age=500), ill=(finding("web-h2-1"),), kind=STATEFUL_SET)
    assert found is not None
    assert not found.proven


def test_a_rollout_that_does_not_progress_is_cited() -> None:
    stalled = Condition(type="Progressing", status="False", reason="ProgressDeadlineExceeded")
    workload = make_deployment()
    workload = msgspec.structs.replace(workload, status=msgspec.structs.replace(workload.status, conditions=(stalled,)))
    revisions = (revision(1, age=9000), revision(2, NEW, age=500))
    found = judge_release(DEPLOYMENT, workload, revisions, (finding("web-h2-1"),), (), NOW)
    assert found is not None
    assert any("ProgressDeadlineExceeded" in one.value for one in found.evidence)
