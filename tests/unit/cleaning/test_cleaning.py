"""cleanup_resources: what it deletes and reports, what it keeps its hands off, and how it brings back."""

from datetime import timedelta
from typing import Any

import pytest

from opsapi.kit.errors import InvalidState, PolicyDenied, ValidationFailed
from opsapi.operations.errors import OperationInProgress
from opsapi.operations.model import Operation, Outcome, State, UndoState
from opsapi.playbooks.cleaning.model import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    VOLUMES,
)  # fmt: skip
from opsapi.policy.admission import Admission
from opsapi.policy.model import Ask, Limits, PolicySettings, Subject
from opsapi.workspaces.model import Mode
from opsapi.workspaces.writing import JsonObject, OutcomeUnknown
from support.acting import make_call
from support.cleaning import Attic, ago


def job(attic: Attic, name: str, days: float, *, kind: str = "Complete", **meta: Any) -> JsonObject:
    condition = {"type": kind, "status": "True", "lastTransitionTime": ago(days)}
    template = {"metadata": {"labels": {"job-name": name, "batch.kubernetes.io/controller-uid": "u"}}, "spec": {}}
    spec = {"template": template, "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}}
    return attic.put(JOBS, name, days=days, meta=meta, spec=spec, status={"conditions": [condition]})


def names(found: list[dict[str, Any]]) -> list[str]:
    return ["/".join((one["kind"], one["name"])) for one in found]


async def undo(attic: Attic) -> Operation:
    """As a person's rollback does."""
    ended = await attic.only()
    call = attic.person()
    subject = Subject("sa-person", call.caller.kind, "ws-123", "act")
    ask = Ask(subject=subject, action=ended.action, at=attic.inventory.at)
    until = attic.clock.now() + timedelta(minutes=30)
    await attic.ledger.reopen(ended.id, call, admission=Admission(ask, attic.policy, exempt=True), until=until)
    return await attic.work()


async def test_jobs_and_pods_go_past_their_age(attic: Attic) -> None:
    job(attic, "old", 8)
    job(attic, "failed", 9, kind="Failed")
    job(attic, "young", 6)
    job(
        attic, "nightly-1", 30, ownerReferences=[{"kind": "CronJob", "name": "nightly", "uid": "u", "controller": True}]
    )
    attic.put(JOBS, "running", spec={"template": {}}, status={})
    attic.put(PODS, "ended", status={"phase": "Succeeded", "startTime": ago(5)})
    attic.put(PODS, "evicted", status={"phase": "Failed", "reason": "Evicted", "startTime": ago(4)})
    attic.put(PODS, "today", status={"phase": "Succeeded", "startTime": ago(0.1)})
    attic.put(PODS, "alive", status={"phase": "Running", "startTime": ago(50)})
    plan = await attic.plan()
    assert names(plan["deletes"]) == ["Job/failed", "Job/old", "Pod/ended", "Pod/evicted"]
    ended = await attic.cleaned()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert sorted(attic.objects.targets("delete")) == [
        "jobs.batch/shop/failed", "jobs.batch/shop/old", "pods/shop/ended", "pods/shop/evicted",
    ]  # fmt: skip
    assert ended.step("delete_leftovers").message == "Deleted 4 of 4 objects"


async def test_old_replica_sets_go_beyond_the_history_limit_and_never_the_newest(attic: Attic) -> None:
    held = attic.put(DEPLOYMENTS, "web", spec={"revisionHistoryLimit": 3, "template": {}})
    owner = {"kind": "Deployment", "name": "web", "uid": held["metadata"]["uid"], "controller": True}
    for revision in range(1, 7):
        replicas = 1 if revision in (2, 6) else 0
        meta = {"ownerReferences": [owner], "annotations": {"deployment.kubernetes.io/revision": str(revision)}}
        attic.put(REPLICA_SETS, f"web-{revision}", days=20 - revision, meta=meta, spec={"replicas": replicas})
    assert names((await attic.plan())["deletes"]) == ["ReplicaSet/web-1"]
    assert names((await attic.plan(revision_history_limit=1))["deletes"]) == [
        "ReplicaSet/web-1", "ReplicaSet/web-3", "ReplicaSet/web-4",
    ]  # fmt: skip
    assert names((await attic.plan(revision_history_limit=9))["deletes"]) == ["ReplicaSet/web-1"]


async def test_what_has_expired_goes_by_its_own_word(attic: Attic) -> None:
    attic.put(CONFIG_MAPS, "over", days=2, meta={"annotations": {"janitor/ttl": "24h"}})
    attic.put(CONFIG_MAPS, "left", days=2, meta={"annotations": {"janitor/ttl": "30d"}})
    attic.put(DEPLOYMENTS, "preview", days=2, meta={"annotations": {"janitor/expires": ago(1)}}, spec={})
    meta = {"annotations": {"janitor/ttl": "1h", "argocd.argoproj.io/tracking-id": "x"}}
    attic.put(CONFIG_MAPS, "from-git", days=2, meta=meta)
    plan = await attic.plan()
    assert sorted(names(plan["deletes"])) == ["ConfigMap/over", "Deployment/preview"]
    assert all(one["category"] == "expired" for one in plan["deletes"])


async def test_what_nothing_refers_to_is_reported_and_deleted_only_when_named_and_approved(attic: Attic) -> None:
    attic.put(CONFIG_MAPS, "unused", data={"a": "b"})
    attic.put(SECRETS, "unused", type="Opaque", data={"token": "c2VjcmV0"})
    attic.put(CONFIG_MAPS, "used")
    attic.put(CONFIG_MAPS, "new", days=1)
    attic.put(PODS, "web", spec={"volumes": [{"configMap": {"name": "used"}}]}, status={"phase": "Running"})
    plan = await attic.plan()
    assert plan["deletes"] == []
    assert sorted(names(plan["reports"])) == ["ConfigMap/unused", "Secret/unused"]
    assert "c2VjcmV0" not in str(plan)
    reply = await attic.clean(delete=["ConfigMap/shop/unused"])
    assert reply.data.status == "pending_approval", "a person's own naming is no approval"
    waiting = await attic.only()
    assert waiting.approval is not None
    assert "caller_asked_for_approval" in waiting.approval.rules
    assert "c2VjcmV0" not in str(waiting)


@pytest.mark.parametrize("place", ["ConfigMap/shop/used", "ConfigMap/shop/absent"])
async def test_what_is_named_by_mistake_is_told(attic: Attic, place: str) -> None:
    attic.put(CONFIG_MAPS, "used")
    attic.put(PODS, "web", spec={"volumes": [{"configMap": {"name": "used"}}]}, status={"phase": "Running"})
    with pytest.raises(ValidationFailed, match="is not there, is referred to"):
        await attic.clean(delete=[place])


async def test_where_a_referring_kind_cannot_be_read_nothing_is_called_unreferenced(attic: Attic) -> None:
    attic.put(CONFIG_MAPS, "unused")
    attic.objects.unserved.add("ingresses.networking.k8s.io")
    plan = await attic.plan()
    assert plan["reports"] == []
    assert "references" in plan["unobserved"]
    assert "Ingress" in plan["unobserved"]


async def test_volumes_are_reported_and_never_deleted(attic: Attic) -> None:
    attic.put(VOLUMES, "pv-1", meta={"annotations": {"janitor/ttl": "1h"}}, status={"phase": "Released"})
    plan = await attic.plan()
    assert (plan["deletes"], names(plan["reports"])) == ([], ["PersistentVolume/pv-1"])
    ended = await attic.cleaned()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PROPOSED)
    assert attic.objects.writes == []


async def test_an_agents_cleanup_waits_for_a_person(attic: Attic) -> None:
    job(attic, "old", 8)
    reply = await attic.clean(call=attic.agent())
    assert reply.data.status == "pending_approval"
    assert attic.objects.writes == []


async def test_the_cap_holds_and_says_what_is_left(attic: Attic) -> None:
    attic.policy = PolicySettings(limits=Limits(deletions=3))
    attic.arrange()
    for number in range(5):
        job(attic, f"old-{number}", 10 + number)
    plan = await attic.plan()
    assert names(plan["deletes"]) == ["Job/old-4", "Job/old-3", "Job/old-2"]
    assert plan["left_over"] == 2


async def test_protected_namespaces_and_labels_and_scope_are_kept(attic: Attic) -> None:
    job(attic, "system", 10, namespace="kube-system")
    job(attic, "kept", 10, labels={"opsapi.dev/protected": "true"})
    job(attic, "mine", 10)
    assert names((await attic.plan())["deletes"]) == ["Job/mine"]
    with pytest.raises(ValidationFailed, match="protected"):
        await attic.plan(namespaces=["kube-system"])


@pytest.mark.parametrize("given", [{"job_age_seconds": 60}, {"pod_age_seconds": 1e12}, {"delete": ["Pod/a/b"]}])
async def test_parameters_stay_in_policys_bounds(attic: Attic, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        await attic.clean(**given)


async def test_an_unknown_parameter_is_answered_with_those_that_are_known(attic: Attic) -> None:
    with pytest.raises(ValidationFailed, match="job_age_seconds"):
        await attic.clean(jobage=3)


async def test_without_a_key_to_seal_with_nothing_is_deleted(attic: Attic) -> None:
    attic.sealed = False
    attic.arrange()
    job(attic, "old", 8)
    with pytest.raises(InvalidState):
        await attic.clean()
    assert attic.objects.writes == []


async def test_what_is_not_left_over_any_more_stays(attic: Attic) -> None:
    job(attic, "old", 8)
    attic.put(CONFIG_MAPS, "over", days=2, meta={"annotations": {"janitor/ttl": "24h"}})
    await attic.clean()
    attic.objects.merge(CONFIG_MAPS, "shop", "over", {"metadata": {"annotations": {"janitor/ttl": "9d"}}})
    ended = await attic.work()
    assert attic.objects.targets("delete") == ["jobs.batch/shop/old"]
    assert (ended.result or {})["skipped"] == {"ConfigMap/shop/over": "ConfigMap/shop/over is not a leftover any more"}


async def test_a_namesake_made_since_stays(attic: Attic) -> None:
    job(attic, "old", 8)
    await attic.clean()
    attic.objects.remove(JOBS, "shop", "old")
    job(attic, "old", 8)
    ended = await attic.work()
    assert attic.objects.writes == []
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)


async def test_what_was_deleted_can_be_brought_back_inert_but_for_pods(attic: Attic) -> None:
    job(attic, "old", 8)
    attic.put(CONFIG_MAPS, "over", days=2, meta={"annotations": {"janitor/ttl": "24h"}}, data={"colour": "blue"})
    await attic.cleaned()
    assert attic.objects.find(JOBS, "shop", "old") is None
    ended = await undo(attic)
    assert ended.state is State.ROLLED_BACK, ended
    back = attic.objects.find(JOBS, "shop", "old")
    assert back is not None
    assert back["spec"]["suspend"] is True
    assert "selector" not in back["spec"]
    assert back["metadata"]["annotations"]["opsapi.dev/restored-by"] == ended.id
    settings = attic.objects.find(CONFIG_MAPS, "shop", "over")
    assert settings is not None
    assert settings["data"] == {"colour": "blue"}
    assert "janitor/ttl" not in settings["metadata"]["annotations"]


async def test_nothing_is_brought_back_over_a_namesake_and_no_pod_runs_again(attic: Attic) -> None:
    job(attic, "old", 8)
    attic.put(PODS, "ended", status={"phase": "Succeeded", "startTime": ago(5)})
    await attic.cleaned()
    job(attic, "old", 0)
    ended = await undo(attic)
    assert ended.state is State.FAILED
    step = ended.step("delete_leftovers").undo
    assert step is not None
    assert step.state is UndoState.SKIPPED
    assert "another object bears its name" in step.reason
    assert "would run again" in step.reason
    assert attic.objects.targets("create") == []


async def test_a_deletion_whose_answer_is_lost_is_found_not_repeated(attic: Attic) -> None:
    job(attic, "old", 8)
    job(attic, "older", 9)
    calls = 0

    def lose(_verb: str, _target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OutcomeUnknown("kubernetes_api", "a write was sent, but no answer came")

    attic.objects.after = lose
    ended = await attic.cleaned()
    assert ended.state is State.COMPLETED
    assert attic.objects.targets("delete") == ["jobs.batch/shop/older", "jobs.batch/shop/old"]
    assert "Effect found" in (ended.step("delete_leftovers").items["jobs.batch/shop/older"].message or "")


async def test_two_cleanups_exclude_each_other_and_backups(attic: Attic) -> None:
    job(attic, "old", 8)
    await attic.clean()
    assert set((await attic.only()).locks) == {"ws-123//cleanup", "ws-123//backup"}
    with pytest.raises(OperationInProgress):
        await attic.clean()


async def test_an_observing_workspace_is_not_cleaned(attic: Attic) -> None:
    attic.workspace = {"mode": Mode.OBSERVE}
    attic.arrange()
    job(attic, "old", 8)
    with pytest.raises(PolicyDenied):
        await attic.clean(call=make_call())
