"""auto_heal writes templates: back to what was well, or with more memory; and takes back what does not heal."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opsapi.applications.errors import ManagedExternally
from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import InvalidState, PolicyDenied, PolicyRule
from opsapi.operations.model import Operation, Outcome, State, Undo, UndoState
from opsapi.operations.proposal import plan_hash
from opsapi.playbooks.healing.model import LIMIT_RANGES, REPLICA_SETS
from opsapi.policy.admission import Admission
from opsapi.policy.model import Ask, Subject, Waiver
from opsapi.workspaces.objects import RESOURCE_QUOTA, ObjectMeta, ResourceQuota, ResourceQuotaStatus
from opsapi.workspaces.writing import JsonObject
from support.acting import make_call, make_caller
from support.api_objects import PODS
from support.healing import DEPLOYMENTS, UNHURRIED, Ward, container, crashed

_WAIVED = (PolicyRule.RESIZE, PolicyRule.SEVERAL_APPLICATIONS)
FREE = msgspec.structs.replace(UNHURRIED, waivers=(Waiver(account="sa-agent", rules=_WAIVED),))
OLD = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(image="shop/web:1.0")]}}


def image(ward: Ward, name: str = "web") -> str:
    held = ward.objects.find(DEPLOYMENTS, "shop", name)
    assert held is not None
    found: str = held["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def limit(ward: Ward) -> str:
    held = ward.objects.find(DEPLOYMENTS, "shop", "web")
    assert held is not None
    found: str = held["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return found


@pytest.fixture
def released(ward: Ward) -> Ward:
    """Revision 2 crashes, a pod of revision 1 is left and well."""
    ward.deploy(revision=2, ready=1)
    ward.revise("web", 1, OLD, ago=7200)
    ward.pod("web-old-1", revision=1)
    ward.pod("web-new-1", revision=2, ready=False, container_status=crashed())
    return ward


def rolls(ward: Ward, *, ready: bool = True) -> Any:
    """The Deployment's controller: new pods for a new template."""
    seen = image(ward)

    def behave() -> None:
        nonlocal seen
        if image(ward) == seen:
            return
        seen = image(ward)
        for kind, namespace, name in list(ward.objects.held):
            if kind == PODS and name.startswith("web"):
                ward.objects.remove(kind, namespace, name)
        revision = 1 if seen.endswith("1.0") else 2
        for number in (1, 2):
            ward.pod(f"web-r{revision}-{number}", revision=revision, ready=ready)
        ward.count()

    return behave


@pytest.mark.parametrize("action", ["auto", "rollback_release"])
async def test_a_bad_release_is_taken_back_where_the_revision_before_it_is_well(released: Ward, action: str) -> None:
    released.behave = rolls(released)
    ended = await released.healed(action=action)
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert image(released) == "shop/web:1.0"
    held = released.objects.find(DEPLOYMENTS, "shop", "web")
    assert held is not None
    assert held["spec"]["template"]["metadata"]["labels"] == {"app": "web"}
    assert [step.name for step in ended.steps] == ["identify_unhealthy_pods", "rollback_release", "verify_health"]
    assert ended.step("rollback_release").message == (
        "Rolled shop/Deployment/web back from revision 2 to the template of 1"
    )
    assert len(released.objects.targets("patch")) == 1


async def test_a_rollback_that_does_not_heal_is_itself_taken_back(released: Ward) -> None:
    released.behave = rolls(released, ready=False)
    ended = await released.healed()
    assert ended.state is State.ROLLED_BACK
    assert image(released) == "shop/web:2.0"
    undo = ended.step("rollback_release").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE


async def asked_back(ward: Ward, ended: Operation) -> Operation:
    subject = Subject("sa-agent", AccountKind.AGENT, "ws-123", "act")
    admission = Admission(Ask(subject=subject, action=ended.action, at=ward.inventory.now()), UNHURRIED, exempt=True)
    person = make_call(make_caller("workspace:admin", account_id="sa-person", kind=AccountKind.PERSON))
    until = ward.clock.now() + timedelta(hours=1)
    await ward.ledger.reopen(ended.id, person, admission=admission, until=until)
    return await ward.work()


async def test_a_person_may_ask_back_a_rollback_that_healed(released: Ward) -> None:
    released.behave = rolls(released)
    done = await released.healed()
    assert done.state is State.COMPLETED
    ended = await asked_back(released, done)
    assert (ended.state, ended.step("rollback_release").undo) == (State.ROLLED_BACK, Undo(state=UndoState.UNDONE))
    assert image(released) == "shop/web:2.0"
    assert len(released.objects.targets("patch")) == 2


async def test_somebody_elses_newer_template_is_not_undone(released: Ward) -> None:
    held = released.objects.find(DEPLOYMENTS, "shop", "web")
    assert held is not None
    template = held["spec"]["template"]
    newer = template | {"spec": template["spec"] | {"containers": [container(image="shop/web:3.0")]}}
    turns = 0

    def meddle() -> None:
        nonlocal turns
        turns += 1
        if turns == 5:
            released.objects.merge(DEPLOYMENTS, "shop", "web", {"spec": {"template": newer}})

    released.behave = meddle
    ended = await released.healed()
    assert (ended.state, ended.outcome) == (State.FAILED, Outcome.PARTIAL)
    undo = ended.step("rollback_release").undo
    assert undo is not None
    assert "somebody else changed the template since" in undo.reason
    assert image(released) == "shop/web:3.0"


async def test_a_template_that_was_changed_since_it_was_planned_is_left_alone(released: Ward) -> None:
    await released.heal()
    changes: JsonObject = {"spec": {"template": {"spec": {"containers": [container(image="shop/web:3.0")]}}}}
    released.objects.merge(DEPLOYMENTS, "shop", "web", changes)
    ended = await released.work()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "CHANGED_MEANWHILE"
    assert released.objects.targets("patch") == []


async def test_a_revision_that_is_gone_cannot_be_gone_back_to(released: Ward) -> None:
    await released.heal()
    released.objects.remove(REPLICA_SETS, "shop", "web-h1")
    released.pod("web-old-1", revision=1)
    ended = await released.work()
    assert ended.error is not None
    assert ended.error.code == "REVISION_GONE"
    assert released.objects.targets("patch") == []


async def test_without_an_earlier_revision_a_bad_image_is_reported(ward: Ward) -> None:
    ward.deploy(replicas=1, ready=0)
    ward.pod("web-1", ready=False, container_status=crashed(code=139))
    ended = await ward.healed(action="rollback_release")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PROPOSED)
    assert ward.objects.writes == []


@pytest.mark.parametrize(("action", "status"), [("auto", "running"), ("rollback_release", "pending_approval")])
async def test_a_revision_that_nobody_knows_to_have_been_well_is_gone_back_to_by_a_person_alone(
    ward: Ward, action: str, status: str
) -> None:
    ward.deploy(revision=2, replicas=1, ready=0)
    ward.revise("web", 1, OLD, ago=3610)
    ward.pod("web-new-1", revision=2, ready=False, container_status=crashed())
    reply = await ward.heal(action=action)
    assert reply.data.status == status
    if action == "auto":
        assert (await ward.work()).outcome is Outcome.PROPOSED
    assert ward.objects.writes == []


async def test_what_git_owns_is_refused_with_the_patch_to_commit(released: Ward) -> None:
    released.objects.merge(
        DEPLOYMENTS, "shop", "web", {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/web"}}}
    )
    with pytest.raises(ManagedExternally):
        await released.heal()


async def test_a_protected_application_is_refused(released: Ward) -> None:
    released.objects.merge(DEPLOYMENTS, "shop", "web", {"metadata": {"labels": {"opsapi.dev/protected": "true"}}})
    with pytest.raises(PolicyDenied):
        await released.heal()


async def test_a_paused_rollout_is_not_rolled_back(released: Ward) -> None:
    released.objects.merge(DEPLOYMENTS, "shop", "web", {"spec": {"paused": True}})
    with pytest.raises(InvalidState, match="paused"):
        await released.heal()


@pytest.fixture
def starved(ward: Ward) -> Ward:
    """Its only pod is killed for want of memory, again and again."""
    ward.deploy(replicas=1, ready=0)
    ward.pod("web-1", ready=False, container_status=crashed("OOMKilled", 137))
    return ward


def grows(ward: Ward, *, enough: bool = True) -> Any:
    seen = limit(ward)

    def behave() -> None:
        nonlocal seen
        if limit(ward) == seen:
            return
        seen = limit(ward)
        for kind, namespace, name in list(ward.objects.held):
            if kind == PODS:
                ward.objects.remove(kind, namespace, name)
        ward.pod(f"web-{seen.lower()}", ready=enough)
        ward.count()

    return behave


async def test_a_memory_limit_is_raised_by_a_person_alone(starved: Ward) -> None:
    reply = await starved.heal()
    assert reply.data.status == "pending_approval"
    waiting = await starved.only()
    assert waiting.approval is not None
    assert waiting.approval.rules == ("resize",)
    assert starved.objects.writes == []


async def test_a_memory_limit_is_raised_once_and_verified(starved: Ward) -> None:
    starved.policy = FREE
    starved.arrange()
    starved.behave = grows(starved)
    ended = await starved.healed(action="raise_memory_limit")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert limit(starved) == "260Mi"
    assert len(starved.objects.targets("patch")) == 1


async def test_more_memory_that_does_not_help_is_taken_back(starved: Ward) -> None:
    starved.policy = FREE
    starved.arrange()
    starved.behave = grows(starved, enough=False)
    ended = await starved.healed()
    assert ended.state is State.ROLLED_BACK
    assert limit(starved) == "160Mi"


async def test_a_limit_range_bounds_the_limit(starved: Ward) -> None:
    starved.policy = FREE
    starved.arrange()
    starved.behave = grows(starved)
    limits = [{"type": "Container", "max": {"memory": "200Mi"}}]
    starved.objects.put(LIMIT_RANGES, {"metadata": {"name": "most", "namespace": "shop"}, "spec": {"limits": limits}})
    await starved.healed()
    assert limit(starved) == "200Mi"


async def test_a_quota_that_does_not_hold_it_forbids_it(starved: Ward) -> None:
    figures = {"hard": {"limits.memory": "400Mi"}, "used": {"limits.memory": "160Mi"}}
    quota = ResourceQuota(metadata=ObjectMeta(name="team", namespace="shop"), status=ResourceQuotaStatus(**figures))
    starved.inventory.put(RESOURCE_QUOTA, quota)
    ended = await starved.healed()
    assert ended.outcome is Outcome.PROPOSED
    assert "ResourceQuota team holds 400Mi of limits.memory" in (ended.steps[0].message or "")
    assert starved.objects.writes == []


async def test_an_approved_plan_is_carried_out_as_it_was_seen(starved: Ward) -> None:
    await starved.heal()
    waiting = await starved.only()
    procedure = starved.procedures.newest("auto_heal")
    assert procedure.replan is not None
    again = await procedure.replan(waiting)
    assert plan_hash(again, "sa-agent") == waiting.plan_hash


async def test_of_two_the_one_that_is_healed_stays_until_a_person_asks_for_it(released: Ward) -> None:
    released.policy = FREE
    released.arrange()
    released.deploy("api", revision=2, ready=1)
    old = {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [container(image="shop/api:1.0")]}}
    released.revise("api", 1, old, ago=7200)
    released.pod("api-old-1", "api", revision=1)
    released.pod("api-new-1", "api", revision=2, ready=False, container_status=crashed())
    released.behave = rolls(released)
    ended = await released.healed(None)
    assert (ended.state, ended.outcome) == (State.FAILED, Outcome.PARTIAL), ended
    undo = ended.step("rollback_release").undo
    assert undo == Undo(state=UndoState.SKIPPED, reason="shop/Deployment/web: it is healed, and left so")
    assert (image(released), image(released, "api")) == ("shop/web:1.0", "shop/api:2.0")
    assert (await asked_back(released, ended)).state is State.ROLLED_BACK
    assert (image(released), image(released, "api")) == ("shop/web:2.0", "shop/api:2.0")
    assert (
        sorted(released.objects.targets("patch"))
        == ["deployments.apps/shop/api"] * 2 + ["deployments.apps/shop/web"] * 2
    )
