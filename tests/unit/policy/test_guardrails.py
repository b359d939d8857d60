"""Policy weighs a change: what stands against it by itself, what was done lately, and what a caller's flags can do."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import PolicyRule
from opsapi.policy.admission import Admission
from opsapi.policy.evaluation import judge, judge_history, judge_range, most_at_once
from opsapi.policy.model import (
    APPROVABLE,
    Ask,
    Disruption,
    History,
    Limits,
    Override,
    Pause,
    PolicySettings,
    Range,
    ReplicaChange,
    Subject,
    TargetHistory,
    Waiver,
)
from support.acting import NOON

DEFAULTS = PolicySettings()
AGENT = Subject("sa-agent", AccountKind.AGENT, "ws-1", "act")
PERSON = Subject("sa-alice", AccountKind.PERSON, "ws-1", "act")


def ask(subject: Subject = AGENT, **changes: Any) -> Ask:
    held: dict[str, Any] = {"subject": subject, "action": "scale", "at": NOON, "targets": ("ws-1/app",)}
    return Ask(**(held | changes))


def rules(settings: PolicySettings, asked: Ask) -> list[PolicyRule]:
    return [refusal.rule for refusal in judge(settings, asked)]


asks = st.builds(
    Ask,
    subject=st.sampled_from([AGENT, PERSON]),
    action=st.sampled_from(["scale", "auto_heal", "cleanup_resources"]),
    at=st.just(NOON),
    targets=st.just(("ws-1/app",)),
    replicas=st.none() | st.builds(ReplicaChange, current=st.integers(0, 150), desired=st.integers(0, 150)),
    disruptions=st.lists(
        st.builds(Disruption, name=st.just("web"), pods=st.integers(0, 20), total=st.integers(1, 20)), max_size=2
    ).map(tuple),
    deletions=st.integers(0, 100),
    restores=st.booleans(),
    resizes=st.booleans(),
    applications=st.integers(0, 5),
)


@given(asks)
def test_a_callers_flag_only_ever_adds_a_brake(asked: Ask) -> None:

    more = rules(DEFAULTS, msgspec.structs.replace(asked, wants_approval=True))
    assert sorted(more) == sorted([*rules(DEFAULTS, asked), PolicyRule.CALLER_ASKED])


@given(asks)
def test_what_no_approval_lifts_always_comes_first(asked: Ask) -> None:
    lifted = [refusal.approvable for refusal in judge(DEFAULTS, asked)]
    assert lifted == sorted(lifted)


@given(asks)
def test_a_pause_refuses_everybody_and_everything(asked: Ask) -> None:
    paused = History(paused=Pause(scope="*", paused_at=NOON, paused_by="sa-alice"))
    for admission in (
        Admission(asked, DEFAULTS),
        Admission(asked, DEFAULTS, waits=True),
        Admission(asked, DEFAULTS, exempt=True),
    ):
        assert admission.judge(paused, NOON)[0].rule is PolicyRule.PAUSED


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"deletions": 1}, PolicyRule.DELETION),
        ({"restores": True}, PolicyRule.RESTORE),
        ({"resizes": True}, PolicyRule.RESIZE),
        ({"applications": 2}, PolicyRule.SEVERAL_APPLICATIONS),
        ({"replicas": ReplicaChange(current=3, desired=0)}, PolicyRule.SCALE_TO_ZERO),
        ({"replicas": ReplicaChange(current=3, desired=7)}, PolicyRule.GROWTH),
    ],
)
def test_an_agent_needs_a_person_for_what_is_hard_to_take_back(changes: dict[str, Any], rule: PolicyRule) -> None:
    assert rules(DEFAULTS, ask(**changes)) == [rule]
    assert rule in APPROVABLE
    assert rules(DEFAULTS, ask(PERSON, **changes)) == []
    if rule is not PolicyRule.SCALE_TO_ZERO:
        waiver = Waiver(account="sa-agent", rules=(rule,))
        assert rules(PolicySettings(waivers=(waiver,)), ask(**changes)) == []


def test_no_approval_lifts_the_blast_radius_or_the_cap_on_deletions() -> None:
    asked = ask(disruptions=(Disruption("web", 2, 4),), deletions=51)
    assert rules(DEFAULTS, asked) == [PolicyRule.BLAST_RADIUS, PolicyRule.MAX_DELETIONS, PolicyRule.DELETION]
    assert rules(DEFAULTS, ask(disruptions=(Disruption("web", 1, 4),))) == []


@given(st.integers(1, 100), st.integers(1, 1000))
def test_one_pod_may_always_go_and_never_more_than_the_share(percentage: int, total: int) -> None:
    most = most_at_once(Limits(blast_radius_percentage=percentage), total)
    assert 1 <= most <= total
    assert (most - 1) * 100 < total * percentage


def test_an_override_denies_or_asks_by_account_workspace_and_action() -> None:
    denied = PolicySettings(overrides=(Override(actions=("cleanup_*",), deny=True),))
    assert rules(denied, ask(action="cleanup_resources")) == [PolicyRule.ACTION_DENIED]
    assert rules(denied, ask(PERSON, action="cleanup_resources")) == [PolicyRule.ACTION_DENIED]
    assert rules(denied, ask()) == []
    asked = PolicySettings(overrides=(Override(workspaces=("ws-1",), approval=True),))
    assert rules(asked, ask(PERSON)) == [PolicyRule.APPROVAL_REQUIRED]
    assert rules(asked, ask(Subject("sa-agent", AccountKind.AGENT, "ws-2", "act"))) == []


@pytest.mark.parametrize("mode", ["observe", "propose", "something later"])
def test_only_act_mode_changes_anything_and_a_scan_changes_nothing(mode: str) -> None:
    subject = Subject("sa-agent", AccountKind.AGENT, "ws-1", mode)
    assert judge(DEFAULTS, ask(subject))[0].rule in (PolicyRule.WORKSPACE_OBSERVES, PolicyRule.WORKSPACE_PROPOSES)
    assert judge(DEFAULTS, ask(subject, counted=False)) == []


moments = st.lists(st.floats(0, 7200), max_size=40).map(
    lambda ages: tuple(sorted(NOON - timedelta(seconds=age) for age in ages))
)


@given(moments, st.integers(0, 20))
def test_next_allowed_at_is_when_it_is_allowed_again(changes: tuple, limit: int) -> None:  # type: ignore[type-arg]
    within = tuple(moment for moment in changes if moment > NOON - timedelta(hours=1))
    settings = PolicySettings(limits=Limits(changes_per_hour_account=limit, changes_per_hour_workspace=10_000))
    found = judge_history(settings, ask(), History(account_changes=within), NOON)
    assert bool(found) == (len(within) >= limit)
    if found and limit:
        then = found[0].next_allowed_at
        assert then is not None
        left = tuple(moment for moment in within if moment > then - timedelta(hours=1))
        assert judge_history(settings, ask(), History(account_changes=left), then) == []


def test_a_persons_changes_are_not_held_to_budgets() -> None:
    history = History(
        account_changes=(NOON,) * 50,
        workspace_changes=(NOON,) * 50,
        targets={"ws-1/app": TargetHistory(changed_at=NOON, failures=9, failed_at=NOON)},
    )
    assert judge_history(DEFAULTS, ask(PERSON), history, NOON) == []
    found = [refusal.rule for refusal in judge_history(DEFAULTS, ask(), history, NOON)]
    assert found == [
        PolicyRule.FAILURE_BLOCK,
        PolicyRule.COOLDOWN,
        PolicyRule.ACCOUNT_BUDGET,
        PolicyRule.WORKSPACE_BUDGET,
    ]


@given(st.floats(allow_nan=True), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_parameter_lies_in_its_range_or_is_refused(value: float, low: float, width: float) -> None:
    allowed = Range(minimum=low, maximum=low + width)
    assert (judge_range("threshold", value, allowed) is None) == (low <= value <= low + width)
