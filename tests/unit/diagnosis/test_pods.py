"""Why a pod is not well, since when, and whether another in its place would be."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.diagnosis.crashes import backoff_seconds
from opsapi.diagnosis.model import Cause, shown
from opsapi.diagnosis.pods import Surroundings, judge_pod
from opsapi.workspaces.objects import (
    Condition,
    ContainerState,
    ContainerStatus,
    Event,
    EventSeries,
    Node,
    NodeStatus,
    ObjectMeta,
    ObjectReference,
    Pod,
    PodSpec,
    PodStatus,
    Running,
    Terminated,
    Waiting,
)

NOW = datetime.fromisoformat("2024-01-20T15:30:00Z")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def status(**more: Any) -> ContainerStatus:
    return ContainerStatus(name="app", **({"state": ContainerState(running=Running(ago(3595)))} | more))


def waiting(reason: str, message: str = "", **more: Any) -> ContainerStatus:
    return status(state=ContainerState(waiting=Waiting(reason=reason, message=message)), **more)


def ended(reason: str, code: int, seconds: float) -> ContainerState:
    return ContainerState(terminated=Terminated(exit_code=code, reason=reason, finished_at=ago(seconds)))


def pod(container: ContainerStatus | None = None, *, ready: bool = False, turned: float = 600, **more: Any) -> Pod:
    condition = Condition(type="Ready", status="True" if ready else "False", last_transition_time=ago(turned))
    held: dict[str, Any] = {
        "phase": "Running",
        "conditions": (condition,),
        "container_statuses": (container or status(),),
        "start_time": ago(3600),
    }
    meta = ObjectMeta(name="web-1", namespace="shop", uid="uid-1", deletion_timestamp=more.pop("deleted", None))
    return Pod(metadata=meta, spec=PodSpec(node_name="node-1"), status=PodStatus(**(held | more)))


def around(**more: Any) -> Surroundings:
    return Surroundings(now=NOW, **more)


def event(reason: str, message: str, *, first: float, last: float) -> Event:
    return Event(
        metadata=ObjectMeta(name="e", namespace="shop"),
        involved_object=ObjectReference(kind="Pod", namespace="shop", name="web-1", uid="uid-1"),
        reason=reason,
        message=message,
        first_timestamp=ago(first),
        last_timestamp=ago(last),
    )


@pytest.mark.parametrize(
    "held",
    [
        pod(ready=True),
        pod(phase="Succeeded"),
        pod(phase="Failed"),
        pod(deleted=ago(60)),
        pod(status(last_state=ended("Error", 1, 7200), restart_count=1), ready=True),
    ],
)
def test_what_is_well_has_ended_or_is_going_is_no_finding(held: Pod) -> None:
    assert judge_pod(held, around()) is None


@pytest.mark.parametrize(
    ("held", "cause", "cures"),
    [
        (pod(), Cause.NOT_READY, True),
        (pod(turned=3600), Cause.NOT_READY, False),
        (pod(waiting("CrashLoopBackOff", last_state=ended("Error", 1, 30))), Cause.CRASH_LOOP, False),
        (pod(waiting("CrashLoopBackOff", last_state=ended("OOMKilled", 137, 30))), Cause.OOM_KILLED, False),
        (pod(waiting("ImagePullBackOff")), Cause.IMAGE_PULL, False),
        (pod(waiting("ErrImagePull")), Cause.IMAGE_PULL, False),
        (pod(waiting("CreateContainerConfigError")), Cause.CONFIG_ERROR, False),
        (pod(waiting("RunContainerError")), Cause.START_ERROR, False),
        (pod(deleted=ago(600)), Cause.STUCK_TERMINATING, False),
    ],
)
def test_each_cause_is_told_apart_and_says_whether_a_restart_cures(held: Pod, cause: Cause, cures: bool) -> None:
    found = judge_pod(held, around())
    assert found is not None
    assert (found.cause, found.restart_cures) == (cause, cures)
    assert found.why
    assert found.evidence[0].object == "Pod/shop/web-1"


@pytest.mark.parametrize(
    ("reason", "cause"), [("Unschedulable", Cause.UNSCHEDULABLE), ("SchedulingGated", Cause.SCHEDULING_GATED)]
)
def test_what_is_not_scheduled_says_what_the_scheduler_says(reason: str, cause: Cause) -> None:
    said = Condition(type="PodScheduled", status="False", reason=reason, message="0/4 nodes are available")
    found = judge_pod(pod(phase="Pending", conditions=(said,), container_statuses=()), around())
    assert found is not None
    assert (found.cause, found.restart_cures) == (cause, False)
    assert "0/4 nodes" in found.evidence[0].value


def test_a_failing_probe_is_cited() -> None:
    probe = event("Unhealthy", "Readiness probe failed: HTTP 500", first=500, last=20)
    found = judge_pod(pod(), around(events=(probe,)))
    assert found is not None
    assert found.cause is Cause.PROBE_FAILING
    assert found.evidence[-1].value == "Readiness probe failed: HTTP 500"
    old = judge_pod(pod(), around(events=(event("Unhealthy", "Readiness probe failed", first=5000, last=4000),)))
    assert old is not None
    assert old.cause is Cause.NOT_READY


def test_a_ready_twin_makes_a_restart_worth_it() -> None:
    crashing = pod(waiting("CrashLoopBackOff", last_state=ended("Error", 1, 30)))
    for held in (crashing, pod(turned=3600)):
        found = judge_pod(held, around(twin_ready=True))
        assert found is not None
        assert found.restart_cures


def test_pods_of_a_lost_node_are_left_to_kubernetes() -> None:
    lost = Condition(type="Ready", status="Unknown", reason="NodeStatusUnknown", last_transition_time=ago(200))
    node = Node(metadata=ObjectMeta(name="node-1"), status=NodeStatus(conditions=(lost,)))
    found = judge_pod(pod(), around(node=node))
    assert found is not None
    assert (found.cause, found.since, found.restart_cures) == (Cause.NODE_NOT_READY, ago(200), False)


def test_one_oom_kill_that_is_long_over_is_forgiven_and_a_repeated_one_is_not() -> None:
    once = status(last_state=ended("OOMKilled", 137, 1800), restart_count=1)
    often = status(last_state=ended("OOMKilled", 137, 1800), restart_count=2)
    assert judge_pod(pod(once, ready=True), around()) is None
    found = judge_pod(pod(often, ready=True), around())
    assert found is not None
    assert found.cause is Cause.OOM_KILLED


def test_between_two_crashes_it_is_still_crashing() -> None:
    resting = status(state=ContainerState(running=Running(ago(5))), last_state=ended("Error", 1, 305), restart_count=6)
    found = judge_pod(pod(resting, ready=True, turned=4), around())
    assert found is not None
    assert found.cause is Cause.CRASH_LOOP


@pytest.mark.parametrize(
    ("message", "events", "since"),
    [
        ("", (), 30),
        ("back-off 10s restarting failed container=app", (), 30),
        ("back-off 40s restarting failed container=app", (), 60),
        ("back-off 5m0s restarting failed container=app", (), 320),
        ("", (event("BackOff", "Back-off restarting failed container app", first=900, last=30),), 900),
        ("", (event("BackOff", "Back-off restarting failed container app", first=9000, last=30),), 3600),
        ("", (event("BackOff", "Back-off restarting failed container app", first=3000, last=2000),), 30),
        ("", (event("BackOff", "Back-off pulling image", first=900, last=30),), 30),
    ],
)
def test_since_when_it_crashes_is_known_by_its_backoff_and_events(
    message: str, events: tuple[Event, ...], since: float
) -> None:
    crashing = pod(waiting("CrashLoopBackOff", message, last_state=ended("Error", 1, 30)))
    found = judge_pod(crashing, around(events=events))
    assert found is not None
    assert found.since == ago(since)
    assert found.held(NOW, since)
    assert not found.held(NOW, since + 1)


@given(st.text())
def test_no_message_breaks_the_reading_of_a_backoff(text: str) -> None:
    backoff_seconds(text)
    backoff_seconds(f"back-off {text} restarting failed")


@given(st.text(max_size=2000))
def test_workloads_text_is_shown_on_one_short_line(text: str) -> None:
    line = shown(text)
    assert len(line) <= 300
    assert "\n" not in line
    assert "\x1b" not in line


def test_newer_reporters_events_count_too() -> None:
    made = Event(
        metadata=ObjectMeta(name="e", namespace="shop"),
        involved_object=ObjectReference(kind="Pod", uid="uid-1"),
        reason="Unhealthy",
        message="Readiness probe failed",
        event_time=ago(500),
        series=EventSeries(count=9, last_observed_time=ago(10)),
    )
    found = judge_pod(pod(), around(events=(made,)))
    assert found is not None
    assert found.cause is Cause.PROBE_FAILING
