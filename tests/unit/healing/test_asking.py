"""What may be asked of auto_heal, and how it is answered; and what users see of a healed application."""

from datetime import timedelta
from typing import Any

import pytest

from opsapi.applications.errors import ProtectedNamespace
from opsapi.kit.errors import AmbiguousResource, PolicyDenied, ResourceNotFound, ValidationFailed
from opsapi.operations.model import Outcome, State
from opsapi.playbooks.model import Context, OperationBody, OperationParams
from opsapi.policy.model import Limits, PolicySettings
from opsapi.telemetry.model import Answer, Observed, Traffic, Unobserved, WorkloadSelector
from opsapi.workspaces.model import Mode
from support.acting import make_call, make_caller
from support.healing import Ward
from support.inventory import START
from support.metrics import FakeMetrics


@pytest.fixture
def hung(ward: Ward) -> Ward:
    ward.deploy(replicas=1, ready=0)
    ward.pod("web-1", ready=False)
    ward.objects.evicted = ward.replace_evicted
    return ward


async def test_an_unknown_operation_names_those_that_are_known(ward: Ward) -> None:
    call = make_call(make_caller("workspace:admin"))
    with pytest.raises(ValidationFailed, match="known: auto_heal"):
        await ward.endpoints.execute_workspace_operation(
            call, OperationParams(workspace_id="ws-123"), OperationBody(operation="auto_hael")
        )


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"action": "reboot"}, "parameters.action"),
        ({"targetcomponent": "web"}, "known: target_component, confirmation, action"),
        ({"condition_held_seconds": 1}, "outside what policy allows"),
        ({"condition_held_seconds": 1e9}, "outside what policy allows"),
        ({"confirmation": "yes"}, "parameters.confirmation"),
    ],
)
async def test_wrong_parameters_are_named(hung: Ward, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationFailed, match=words):
        await hung.heal("web", parameters=parameters)


async def test_an_unknown_component_is_answered_with_what_comes_near(hung: Ward) -> None:
    with pytest.raises(ResourceNotFound) as missing:
        await hung.heal("wbe")
    assert missing.value.details.alternatives == ["web"]  # type: ignore[attr-defined]


async def test_two_of_a_name_are_ambiguous_and_their_places_tell_them_apart(hung: Ward) -> None:
    hung.deploy("web", namespace="bank", meta={"uid": "uid-bank-web"})
    with pytest.raises(AmbiguousResource) as several:
        await hung.heal("web")
    assert several.value.details.candidates == ["bank/Deployment/web", "shop/Deployment/web"]  # type: ignore[attr-defined]
    assert (await hung.heal("shop/web")).status == 202


async def test_a_component_is_found_by_its_id_too(hung: Ward) -> None:
    reply = await hung.heal("web")
    assert isinstance(reply.data.application_id, str)
    again: Any = await hung.heal(reply.data.application_id, dry_run=True)
    assert again.data.application_id == reply.data.application_id


async def test_system_namespaces_are_never_healed(ward: Ward) -> None:
    ward.deploy("dns", namespace="kube-system", ready=0)
    with pytest.raises(ProtectedNamespace):
        await ward.heal("dns")


async def test_confirmation_false_only_ever_adds_a_brake(hung: Ward) -> None:
    reply = await hung.heal("web", parameters={"confirmation": False})
    assert reply.data.status == "pending_approval"
    assert (await hung.only()).locks != ()
    assert hung.objects.writes == []


async def test_an_observing_workspace_is_not_healed_but_a_plan_is_shown(hung: Ward) -> None:
    hung.mode = Mode.OBSERVE
    hung.arrange()
    with pytest.raises(PolicyDenied):
        await hung.heal()
    shown: Any = await hung.heal(dry_run=True)
    assert not shown.data.plan.allowed


async def test_a_target_is_left_in_peace_between_two_healings(hung: Ward) -> None:
    hung.policy = PolicySettings(limits=Limits(cooldown_seconds=300))
    hung.arrange()
    await hung.heal()
    await hung.work()
    hung.pod("web-new-1", ready=False)
    with pytest.raises(PolicyDenied, match="less than 300 s ago"):
        await hung.heal()


async def test_the_answer_is_that_of_the_begin_and_names_who_may_be_untrusted(hung: Ward) -> None:
    reply = await hung.heal(reason="pager\n\x1b[31m", context=Context(triggered_by="health_monitor\n"))
    assert {step.status for step in reply.data.steps} == {"pending"}
    assert reply.data.reason == "pager [31m"
    assert "/reason" in reply.untrusted
    assert isinstance(reply.data.parameters, dict)
    assert reply.data.parameters["context"]["triggered_by"] == "health_monitor"


class Shifting(FakeMetrics):
    """Traffic before, then after."""

    def __init__(self, *answers: Answer[Traffic]) -> None:
        super().__init__()
        self._answers = list(answers)

    async def traffic(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: Any = None
    ) -> Answer[Traffic]:
        return self._answers.pop(0)


def seen(errors: float, latency: float) -> Answer[Traffic]:
    return Observed(Traffic(10.0, errors, 20.0, latency), "prometheus", "q", START)


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        (seen(40, 900), seen(0, 100), State.COMPLETED),
        (seen(0, 100), seen(5, 100), State.FAILED),
        (seen(0, 100), seen(0, 500), State.FAILED),
        (Unobserved("away"), seen(5, 100), State.COMPLETED),
        (seen(0, 100), Unobserved("away"), State.COMPLETED),
    ],
)
async def test_what_users_see_counts_where_it_is_measured(
    hung: Ward, before: Answer[Traffic], after: Answer[Traffic], state: State
) -> None:
    hung.metrics = Shifting(before, after)
    hung.arrange()
    ended = await hung.healed()
    assert ended.state is state, ended
    message = ended.step("verify_health").message or ""
    if state is State.COMPLETED:
        assert ended.outcome is Outcome.CHANGED
        assert ("not observed" in message) is (isinstance(before, Unobserved) or isinstance(after, Unobserved))
