"""What scaling does when the world does not hold still: conflicts, outages, refusals, and its way back."""

from datetime import timedelta

import pytest

from opsapi.applications.errors import OutcomeUnknown
from opsapi.applications.ports import AutoscalerBounds
from opsapi.applications.scaling import bounds_of
from opsapi.applications.scaling_model import AutoScaleConfig
from opsapi.operations.model import Outcome, State, StepState, UndoState
from opsapi.workspaces.model import Mode
from support.inventory import FakeCluster, make_workspace
from support.scaling import Stage
from support.workloads import make_autoscaler, make_deployment

BOUNDS = AutoScaleConfig(min_replicas=3, max_replicas=6)


async def test_a_status_update_in_between_is_read_again_and_written_once(stage: Stage) -> None:
    await stage.scale(5)
    bumps = iter([True, True, False])

    def bump(_: str) -> None:
        if next(bumps, False):
            stage.workloads.set_status(ready=3)

    stage.workloads.before = bump
    await stage.work()
    assert stage.workloads.writes == [("web", 5)]
    assert (await stage.only()).state is State.COMPLETED


async def test_a_deployment_that_never_holds_still_is_tried_again_later(stage: Stage) -> None:
    await stage.scale(5)
    calls = 0

    def bump(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls <= 7:
            stage.workloads.set_status(ready=3)

    stage.workloads.before = bump
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.COMPLETED
    assert operation.step("set_replicas").attempts == 2
    assert stage.workloads.writes == [("web", 5)]


async def test_somebody_elses_other_count_ends_the_operation_untouched(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.replace(replicas=4)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert (operation.error.code, operation.error.details["found"]) == ("CHANGED_MEANWHILE", 4)
    assert stage.workloads.writes == []
    assert stage.workloads.replicas() == 4


async def test_somebody_elses_change_that_wins_the_race_is_not_undone(stage: Stage) -> None:
    await stage.scale(5)

    def meddle(_: str) -> None:
        stage.workloads.before = lambda _: None
        stage.workloads.replace(replicas=6)

    stage.workloads.before = meddle
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.step("set_replicas").intent is None
    assert stage.workloads.replicas() == 6
    assert stage.workloads.writes == []


async def test_the_same_count_by_somebody_else_leaves_nothing_to_do(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.replace(replicas=5)
    await stage.work()
    operation = await stage.only()
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)
    assert operation.step("set_replicas").state is StepState.SKIPPED
    assert stage.workloads.writes == []


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_target_that_was_deleted_or_replaced_is_left_alone(stage: Stage, replaced: bool) -> None:
    await stage.scale(5)
    stage.workloads.remove()
    if replaced:
        stage.workloads.put(make_deployment(uid="uid-new"))
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "TARGET_GONE"
    assert stage.workloads.writes == []


async def test_a_cluster_that_is_away_for_a_while_is_waited_for(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.away = True
    claim = await stage.ledger.claim("worker", timedelta(minutes=1), stage.procedures.runnable())
    assert claim is not None
    await stage.execution.run(claim)
    waiting = await stage.only()
    assert waiting.state is State.RUNNING
    assert waiting.steps[0].error is not None
    assert waiting.steps[0].error.code == "DEPENDENCY_UNAVAILABLE"
    stage.workloads.away = False
    await stage.work()
    assert (await stage.only()).state is State.COMPLETED
    assert stage.workloads.writes == [("web", 5)]


async def test_a_cluster_that_stays_away_ends_the_operation_in_bounds(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.away = True
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.step("set_replicas").attempts == 4
    assert operation.error is not None
    assert operation.error.code == "DEPENDENCY_UNAVAILABLE"
    assert operation.result is None


async def test_an_answer_that_got_lost_is_looked_for_not_repeated(stage: Stage) -> None:
    await stage.scale(5)

    def lose(_: str) -> None:
        stage.workloads.after = lambda _: None
        raise OutcomeUnknown("kubernetes_api", "connection reset")

    stage.workloads.after = lose
    await stage.work()
    operation = await stage.only()
    assert (operation.state, operation.outcome) == (State.COMPLETED, Outcome.CHANGED)
    assert stage.workloads.writes == [("web", 5)]
    effect = operation.step("set_replicas").effect
    assert effect is not None
    assert effect["found"] is True


async def test_what_the_cluster_refuses_is_told_in_its_words_and_leaves_nothing(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.refuse = "Forbidden"
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert (operation.error.code, operation.error.details["reason"]) == ("WRITE_REFUSED", "Forbidden")
    assert operation.result is None


async def test_a_refused_event_does_not_fail_the_scaling(stage: Stage) -> None:
    stage.workloads.refuse_events = True
    await stage.scale(5)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.COMPLETED
    effect = operation.step("set_replicas").effect
    assert effect is not None
    assert effect["event"] == "not written"


async def test_what_does_not_become_ready_is_scaled_back(stage: Stage) -> None:
    stage.workloads.settle = False
    await stage.scale(5)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.ROLLED_BACK
    assert operation.error is not None
    assert operation.error.code == "NOT_READY"
    assert "3 of 5 replicas are ready" in operation.error.message
    assert operation.result == {"previous_replicas": 3, "new_replicas": 5, "undone": ["set_replicas"]}
    assert stage.workloads.writes == [("web", 5), ("web", 3)]


async def test_readiness_that_flickers_is_not_held(stage: Stage) -> None:
    stage.workloads.settle = False
    await stage.scale(5)
    looks = 0

    async def flicker(seconds: float) -> None:
        nonlocal looks
        looks += 1
        stage.clock.advance(seconds)
        stage.workloads.set_status(ready=5 if looks % 3 else 4)

    stage.execution._sleep = flicker
    await stage.work()
    assert (await stage.only()).state is State.ROLLED_BACK


async def test_a_cluster_that_goes_away_while_verifying_is_never_called_verified(stage: Stage) -> None:
    await stage.scale(5)
    stage.workloads.after = lambda _: setattr(stage.workloads, "away", True)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.outcome is Outcome.PARTIAL
    assert operation.error is not None
    assert "never seen to answer" in operation.error.message
    assert operation.result is not None
    assert operation.result["undo_skipped"][0]["step"] == "set_replicas"


async def test_a_count_changed_by_somebody_else_while_verifying_is_not_undone(stage: Stage) -> None:
    stage.workloads.settle = False
    await stage.scale(5)
    stage.workloads.after = lambda _: stage.workloads.replace(replicas=6)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.result is not None
    assert operation.result["undo_skipped"] == [
        {"step": "set_replicas", "reason": "the replicas are 6 by now, not the 5 that were written"}
    ]
    assert stage.workloads.writes == [("web", 5)]


async def test_scaling_down_something_sick_is_not_failed_for_its_sickness(stage: Stage) -> None:
    stage.workloads.settle = False
    stage.workloads.set_status(ready=1)
    await stage.scale(2)

    def fewer(_: str) -> None:
        stage.workloads.after = lambda _: None
        stage.workloads.set_status(ready=1)

    stage.workloads.after = fewer
    await stage.work()
    assert (await stage.only()).state is State.COMPLETED


async def test_a_workspace_that_stopped_to_act_meanwhile_is_not_written_to(stage: Stage) -> None:
    await stage.scale(5)
    stage.arrange(mode=Mode.OBSERVE)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "POLICY_DENIED"
    assert stage.workloads.writes == []


async def test_undoing_keeps_to_the_workspaces_mode_too(stage: Stage) -> None:
    stage.workloads.settle = False
    await stage.scale(5)
    observing = FakeCluster(make_workspace(mode=Mode.OBSERVE), stage.inventory)
    stage.workloads.after = lambda _: stage.clusters.opened.update({"ws-123": observing})
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    undo = operation.step("set_replicas").undo
    assert undo is not None
    assert undo.state is UndoState.SKIPPED
    assert "observe mode" in undo.reason
    assert stage.workloads.writes == [("web", 5)]


async def test_an_edited_autoscaler_is_put_back_when_the_application_does_not_get_ready(stage: Stage) -> None:
    stage.workloads.put(make_autoscaler(low=2, high=4))
    stage.workloads.settle = False
    await stage.scale(5, auto_scale_config=BOUNDS)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.ROLLED_BACK
    assert bounds_of(stage.workloads.autoscalers[("shop", "web")]) == AutoscalerBounds(2, 4, 80, None)
    assert stage.workloads.replicas() == 3


async def test_an_autoscaler_changed_since_it_was_planned_on_is_left_alone(stage: Stage) -> None:
    stage.workloads.put(make_autoscaler(low=2, high=4))
    await stage.scale(5, auto_scale_config=BOUNDS)
    stage.workloads.put(make_autoscaler(low=1, high=9))
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "CHANGED_MEANWHILE"
    assert stage.workloads.autoscaler_writes == []
    assert stage.workloads.writes == []


async def test_replicas_that_the_autoscaler_moves_within_its_bounds_are_no_conflict(stage: Stage) -> None:
    stage.workloads.put(make_autoscaler(low=2, high=4))
    await stage.scale(5, auto_scale_config=BOUNDS)
    stage.workloads.replace(replicas=4, manager="kube-controller-manager")
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.COMPLETED
    assert stage.workloads.writes == [("web", 5)]


async def test_a_refused_autoscaler_takes_the_replicas_back(stage: Stage) -> None:
    await stage.scale(5, auto_scale_config=AutoScaleConfig(min_replicas=2, max_replicas=10))

    def refuse(verb: str) -> None:
        stage.workloads.refuse = "Invalid" if verb == "write_autoscaler" else ""

    stage.workloads.before = refuse
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.ROLLED_BACK
    assert stage.workloads.replicas() == 3
    assert stage.workloads.autoscaler_writes == []


async def test_a_fault_of_our_own_ends_the_operation_and_is_not_told_to_callers(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.scale(5)

    def burst(_: str) -> None:
        raise ZeroDivisionError("a secret detail")

    stage.workloads.before = burst
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert (operation.error.code, "secret" in operation.error.message) == ("INTERNAL_ERROR", False)
    assert "a secret detail" in caplog.text


async def test_an_operation_whose_deadline_passed_while_it_waited_does_nothing(stage: Stage) -> None:
    await stage.scale(5)
    stage.clock.advance(3600)
    await stage.work()
    operation = await stage.only()
    assert operation.state is State.FAILED
    assert operation.error is not None
    assert operation.error.code == "DEADLINE_EXCEEDED"
    assert stage.workloads.writes == []
