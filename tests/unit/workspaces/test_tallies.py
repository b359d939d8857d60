from collections import Counter
from datetime import timedelta

from opsapi.workspaces.findings import FindingType
from opsapi.workspaces.objects import (
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    NODE,
    POD,
    REPLICA_SET,
    Condition,
    Terminated,
    Workload,
)
from opsapi.workspaces.pods import Phase
from opsapi.workspaces.states import ApplicationState
from opsapi.workspaces.tallies import Tallies
from support.inventory import START, FakeInventory, make_workspace
from support.objects import cron_job, daemon_set, deployment, job, node, owner, pod, replica_set, workload_meta


def followed(inventory: FakeInventory) -> Tallies:
    tallies = Tallies(make_workspace())
    inventory.subscribe(tallies.observe)
    return tallies


def with_deployment(inventory: FakeInventory, name: str = "web", replicas: int = 3, ready: int | None = None) -> str:
    """A Deployment with its ReplicaSet; returns the ReplicaSet's uid."""
    inventory.put(DEPLOYMENT, deployment(name, replicas=replicas, ready=ready))
    inventory.put(REPLICA_SET, replica_set(f"{name}-1", controlled_by=owner("Deployment", name, f"uid-shop-{name}")))
    return f"uid-shop-{name}-1"


def test_an_application_whose_pods_crash_has_failed_and_says_why() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    uid = with_deployment(inventory, ready=0)
    last = Terminated(exit_code=1, reason="Error")
    for name in ("web-1-a", "web-1-b", "web-1-c"):
        inventory.put(
            POD, pod(name, controlled_by=owner("ReplicaSet", "web-1", uid), waiting="CrashLoopBackOff", last=last)
        )
    tallies.settle(START)
    assert tallies.states == Counter({ApplicationState.FAILED: 1})
    (finding,) = tallies.findings()
    assert finding.type is FindingType.CRASH_LOOP
    assert (finding.kind, finding.namespace, finding.name) == ("Deployment", "shop", "web")
    assert finding.message == "3 of 3 pods: CrashLoopBackOff, last exit 1 (Error)"


def test_pods_that_come_before_their_owners_are_found_again() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    inventory.put(POD, pod("web-1-a", controlled_by=owner("ReplicaSet", "web-1", "rs"), waiting="ImagePullBackOff"))
    tallies.settle(START)
    assert [(f.kind, f.name) for f in tallies.findings()] == [("ReplicaSet", "web-1")]
    inventory.put(DEPLOYMENT, deployment("web", ready=0))
    by = owner("Deployment", "web", "uid-shop-web")
    inventory.put(REPLICA_SET, Workload(metadata=workload_meta("web-1", uid="rs", controlled_by=by)))
    tallies.settle(START)
    assert [(f.kind, f.name) for f in tallies.findings()] == [("Deployment", "web")]


def test_an_application_scaled_to_zero_is_stopped() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    with_deployment(inventory, replicas=0)
    tallies.settle(START)
    assert tallies.states == Counter({ApplicationState.STOPPED: 1})
    assert not list(tallies.findings())


def test_an_application_that_no_controller_has_looked_at_is_unknown() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    fresh = deployment("web")
    inventory.put(DEPLOYMENT, type(fresh)(metadata=fresh.metadata, spec=fresh.spec))
    tallies.settle(START)
    assert tallies.states == Counter({ApplicationState.UNKNOWN: 1})


def test_an_application_that_starts_is_pending_and_an_issue_only_after_a_while() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    since = Condition(type="Available", status="False", last_transition_time=START)
    inventory.put(DEPLOYMENT, deployment("web", ready=0, conditions=(since,)))
    tallies.settle(START + timedelta(seconds=30))
    assert tallies.states == Counter({ApplicationState.PENDING: 1})
    assert not list(tallies.findings())
    version = tallies.version
    tallies.settle(START + timedelta(minutes=2))
    assert tallies.version > version
    assert [f.type for f in tallies.findings()] == [FindingType.NO_READY_REPLICAS]


def test_an_oom_kill_is_remembered_for_an_hour() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    uid = with_deployment(inventory, replicas=1)
    last = Terminated(exit_code=137, reason="OOMKilled", finished_at=START)
    inventory.put(POD, pod("web-1-a", controlled_by=owner("ReplicaSet", "web-1", uid), last=last))
    tallies.settle(START + timedelta(minutes=59))
    assert [f.message for f in tallies.findings()] == ["1 pod was OOM-killed within the last hour"]
    tallies.settle(START + timedelta(minutes=60))
    assert not list(tallies.findings())
    assert not tallies.finding_counts


def test_a_cron_job_fails_with_its_newest_finished_job() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    inventory.put(CRON_JOB, cron_job("report"))
    by = owner("CronJob", "report", "uid-shop-report")
    inventory.put(JOB, job("report-1", controlled_by=by, ended="Failed", reason="BackoffLimitExceeded", at=START))
    inventory.put(POD, pod("report-1-x", phase="Failed", controlled_by=owner("Job", "report-1", "uid-shop-report-1")))
    tallies.settle(START)
    assert tallies.states == Counter({ApplicationState.FAILED: 1})
    assert [f.message for f in tallies.findings()] == ["The newest Job report-1 failed: BackoffLimitExceeded"]
    later = START + timedelta(hours=1)
    inventory.put(JOB, job("report-2", controlled_by=by, ended="Complete", at=later))
    tallies.settle(later)
    assert tallies.states == Counter({ApplicationState.RUNNING: 1})
    inventory.put(CRON_JOB, cron_job("report", suspend=True))
    tallies.settle(later)
    assert tallies.states == Counter({ApplicationState.STOPPED: 1})


def test_a_daemon_set_counts_the_nodes_it_belongs_on() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    inventory.put(DAEMON_SET, daemon_set("agent", desired=3, ready=2))
    tallies.settle(START)
    assert tallies.states == Counter({ApplicationState.RUNNING: 1})
    assert [f.message for f in tallies.findings()] == ["2 of 3 replicas are ready"]


def test_a_pod_that_has_ended_holds_no_room_on_its_node() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    inventory.put(POD, pod("a"), pod("b"))
    assert tallies.requested_on["worker-1"].pods == 2
    inventory.put(POD, pod("b", phase="Succeeded"))
    assert tallies.requested_on["worker-1"].pods == 1
    assert tallies.phases == Counter({Phase.RUNNING: 1, Phase.SUCCEEDED: 1})


def test_a_change_that_no_figure_shows_keeps_the_version() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    inventory.put(POD, pod("a", restarts=1))
    tallies.settle(START)
    version = tallies.version
    inventory.put(POD, pod("a", restarts=2))
    assert tallies.version == version


def test_nodes_not_ready_cordoned_and_under_pressure_are_told_apart() -> None:
    inventory = FakeInventory()
    tallies = followed(inventory)
    inventory.put(
        NODE,
        node("a"),
        node("b", ready="Unknown"),
        node("c", unschedulable=True),
        node("d", conditions=(Condition(type="DiskPressure", status="True"),)),
        node("e", conditions=(Condition(type="NetworkUnavailable", status="True"),)),
    )
    assert {name: facts.status.value for name, facts in tallies.nodes.items()} == {
        "a": "ready",
        "b": "not_ready",
        "c": "cordoned",
        "d": "pressure",
        "e": "network_unavailable",
    }
    assert tallies.finding_counts == Counter(
        {
            FindingType.NODE_NOT_READY: 1,
            FindingType.NODE_PRESSURE: 1,
            FindingType.NODE_NETWORK_UNAVAILABLE: 1,
        }
    )
