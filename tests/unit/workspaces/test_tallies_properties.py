"""Whatever happens to a cluster, in whatever order: the running totals equal those counted from scratch."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.workspaces.objects import (
    CLAIM,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    ClaimStatus,
    Condition,
    Kind,
    KubernetesObject,
    PersistentVolumeClaim,
    ResourceQuota,
    ResourceQuotaStatus,
    Terminated,
)
from opsapi.workspaces.pods import Phase, effective_requests
from opsapi.workspaces.tallies import Tallies
from support.inventory import START, FakeInventory, make_workspace
from support.objects import container, cron_job, daemon_set, deployment, job, meta, node, owner, pod, replica_set

NAMES = ("a", "b")
_name = st.sampled_from(NAMES)
_space = st.sampled_from(("shop", "shop", "pay"))
_moment = st.integers(0, 90).map(lambda minutes: START - timedelta(minutes=minutes))


@st.composite
def _pods(draw: st.DrawFn) -> tuple[Kind, KubernetesObject]:
    kind, above = draw(
        st.sampled_from(
            (("ReplicaSet", "a"), ("ReplicaSet", "b"), ("Job", "a"), ("DaemonSet", "a"), ("Odd", "z"), ("", ""))
        )
    )
    space = draw(_space)
    by = owner(kind, above, f"uid-{kind}-{space}-{above}") if kind else None
    last = draw(st.none() | _moment.map(lambda at: Terminated(exit_code=137, reason="OOMKilled", finished_at=at)))
    made = pod(
        draw(_name),
        space,
        controlled_by=by,
        phase=draw(st.sampled_from(("Running", "Pending", "Failed", "Succeeded", "Unknown"))),
        waiting=draw(st.sampled_from(("", "", "CrashLoopBackOff", "ImagePullBackOff", "ContainerCreating"))),
        node=draw(st.sampled_from(("", "n1", "n2"))),
        last=last,
        containers=(container(requests={"cpu": draw(st.sampled_from(("100m", "2"))), "memory": "64Mi"}),),
        conditions=draw(
            st.sampled_from(((), (Condition(type="PodScheduled", status="False", reason="Unschedulable"),)))
        ),
        deletion_timestamp=draw(st.sampled_from((None, None, START))),
        uid=f"uid-pod-{space}-{draw(st.integers(0, 5))}",
    )
    return POD, made


@st.composite
def _owners(draw: st.DrawFn) -> tuple[Kind, KubernetesObject]:
    space, name = draw(_space), draw(_name)
    above = owner("Deployment", name, f"uid-Deployment-{space}-{draw(_name)}")
    which = draw(st.sampled_from((REPLICA_SET, DEPLOYMENT, DAEMON_SET, CRON_JOB, JOB)))
    uid = {"uid": f"uid-{which.kind}-{space}-{name}"}
    if which is DEPLOYMENT:
        return which, deployment(name, space, replicas=draw(st.integers(0, 3)), ready=draw(st.integers(0, 3)), **uid)
    made: Any
    if which is REPLICA_SET:
        made = replica_set(name, space, controlled_by=draw(st.sampled_from((above, None))))
    elif which is DAEMON_SET:
        made = daemon_set(name, space, desired=draw(st.integers(0, 2)), ready=draw(st.integers(0, 2)))
    elif which is CRON_JOB:
        made = cron_job(name, space, suspend=draw(st.booleans()))
    else:
        by = owner("CronJob", name, f"uid-CronJob-{space}-{draw(_name)}")
        ended = draw(st.sampled_from(("", "Failed", "Complete")))
        made = job(name, space, controlled_by=draw(st.sampled_from((by, None))), ended=ended, at=draw(_moment))
    return which, with_uid(made, uid["uid"])


@st.composite
def _others(draw: st.DrawFn) -> tuple[Kind, KubernetesObject]:
    which = draw(st.sampled_from((NODE, RESOURCE_QUOTA, CLAIM)))
    name, space = draw(_name), draw(_space)
    if which is NODE:
        return which, node(name, ready=draw(st.sampled_from(("True", "False", "Unknown"))))
    if which is RESOURCE_QUOTA:
        used = {"pods": str(draw(st.integers(0, 12)))}
        return which, ResourceQuota(metadata=meta(name, space), status=ResourceQuotaStatus({"pods": "10"}, used))
    status = ClaimStatus(phase=draw(st.sampled_from(("Bound", "Pending", "Lost"))), capacity={"storage": "1Gi"})
    return which, PersistentVolumeClaim(metadata=meta(name, space), status=status)


def with_uid(made: Any, uid: str) -> KubernetesObject:
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    held = {name: getattr(made.metadata, name) for name in made.metadata.__struct_fields__}
    return type(made)(**{**fields, "metadata": type(made.metadata)(**{**held, "uid": uid})})  # type: ignore[no-any-return]


_objects = st.one_of(_pods(), _owners(), _owners(), _others())
_step = st.tuples(st.sampled_from(("put", "put", "remove", "settle")), _objects, st.integers(0, 40))


def settled_world() -> FakeInventory:
    """Two Deployments and a CronJob whose pods are in trouble, so that most random steps meet something."""
    inventory = FakeInventory()
    for name in NAMES:
        uid = f"uid-Deployment-shop-{name}"
        above = owner("Deployment", name, uid)
        inventory.put(DEPLOYMENT, deployment(name, ready=0, uid=uid))
        inventory.put(REPLICA_SET, with_uid(replica_set(name, controlled_by=above), f"uid-ReplicaSet-shop-{name}"))
        by = owner("ReplicaSet", name, f"uid-ReplicaSet-shop-{name}")
        inventory.put(POD, pod(f"{name}-1", controlled_by=by, waiting="CrashLoopBackOff"))
    inventory.put(CRON_JOB, with_uid(cron_job("a"), "uid-CronJob-shop-a"))
    by = owner("CronJob", "a", "uid-CronJob-shop-a")
    inventory.put(JOB, with_uid(job("a", controlled_by=by, ended="Failed", at=START), "uid-Job-shop-a"))
    return inventory


def totals(tallies: Tallies) -> dict[str, object]:
    return {
        "phases": +tallies.phases,
        "requested": tallies.requested,
        "in": tallies.requested_in,
        "on": tallies.requested_on,
        "claimed": tallies.claimed,
        "states": +tallies.states,
        "applications": tallies.applications,
        "findings": Counter(tallies.findings()),
        "counts": +tallies.finding_counts,
        "nodes": tallies.nodes,
        "quotas": tallies.quotas,
    }


@settings(deadline=None, max_examples=200)
@given(st.lists(_step, min_size=5, max_size=60))
def test_totals_kept_by_differences_equal_totals_counted_from_scratch(
    steps: list[tuple[str, tuple[Kind, KubernetesObject], int]],
) -> None:
    inventory = settled_world()
    running = Tallies(make_workspace())
    inventory.subscribe(running.observe)
    now: datetime = START
    running.settle(now)
    for action, (kind, made), number in steps:
        if action == "put":
            inventory.put(kind, made)
        elif action == "remove":
            there = [(of, *key) for of, keyed in inventory.objects.items() for key in keyed]
            if there:
                inventory.remove(*there[number % len(there)])
        else:
            now += timedelta(minutes=number)
            running.settle(now)
    running.settle(now)
    fresh = Tallies(make_workspace())
    inventory.subscribe(fresh.observe)
    fresh.settle(now)
    assert totals(running) == totals(fresh)


@settings(deadline=None, max_examples=100)
@given(st.lists(_objects, max_size=30))
def test_totals_equal_a_plain_count_of_what_is_there(made: list[tuple[Kind, KubernetesObject]]) -> None:
    inventory = FakeInventory()
    tallies = Tallies(make_workspace())
    inventory.subscribe(tallies.observe)
    for kind, one in made:
        inventory.put(kind, one)
    tallies.settle(START)
    pods: list[Any] = list(inventory.objects.get(POD, {}).values())
    assert tallies.phases.total() == len(pods)
    living = [p for p in pods if p.status.phase not in ("Failed", "Succeeded")]
    assert tallies.requested.cpu == sum(effective_requests(p)[0] for p in living)
    assert tallies.requested.memory == sum(effective_requests(p)[1] for p in living)
    assert tallies.requested.pods == len(living)
    assert sum(one.cpu for one in tallies.requested_in.values()) == tallies.requested.cpu
    bound = [p for p in living if p.spec.node_name]
    assert sum(one.pods for one in tallies.requested_on.values()) == len(bound)
    applications = sum(len(inventory.objects.get(kind, {})) for kind in (DEPLOYMENT, DAEMON_SET, CRON_JOB))
    assert tallies.states.total() == len(tallies.applications) == applications
    assert tallies.phases[Phase.RUNNING] == sum(p.status.phase == "Running" for p in pods)
    assert tallies.finding_counts.total() == len(list(tallies.findings()))
