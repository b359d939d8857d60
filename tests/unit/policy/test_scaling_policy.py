"""The guardrails on replicas, one by one and over anything that may be asked."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import PolicyRule
from opsapi.policy.evaluation import judge_mode, judge_replicas, largest_step_up, smallest_step_down
from opsapi.policy.model import WAIVABLE, PolicySettings, ReplicaChange, Subject, Waiver

DEFAULTS = PolicySettings()
AGENT = Subject("sa-agent", AccountKind.AGENT, "ws-1", "act")
PERSON = Subject("ann", AccountKind.PERSON, "ws-1", "act")


def rules(current: int, desired: int, subject: Subject = AGENT, **bounds: int) -> list[PolicyRule]:
    change = ReplicaChange(current=current, desired=desired, **bounds)
    return [refusal.rule for refusal in judge_replicas(DEFAULTS, subject, change)]


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        (3, 5, []),
        (3, 6, []),
        (3, 7, [PolicyRule.GROWTH]),
        (0, 2, []),
        (0, 3, [PolicyRule.GROWTH]),
        (5, 3, []),
        (5, 2, [PolicyRule.SHRINK]),
        (2, 1, []),
        (1, 0, [PolicyRule.SCALE_TO_ZERO]),
        (0, 0, []),
        (60, 101, [PolicyRule.MAX_REPLICAS, PolicyRule.GROWTH]),
        (150, 140, [PolicyRule.MAX_REPLICAS]),
    ],
)
def test_an_agents_steps_are_bounded(current: int, desired: int, expected: list[PolicyRule]) -> None:
    assert rules(current, desired) == expected


def test_persons_are_only_held_to_the_maximum() -> None:
    assert rules(3, 0, PERSON) == []
    assert rules(3, 100, PERSON) == []
    assert rules(3, 101, PERSON) == [PolicyRule.MAX_REPLICAS]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"min_after": 2, "max_after": 10}, []),
        ({"min_after": 2, "max_after": 11}, [PolicyRule.GROWTH]),
        ({"min_after": 7, "max_after": 10}, [PolicyRule.GROWTH]),
        ({"min_before": 2, "max_before": 20, "min_after": 2, "max_after": 20}, []),
        ({"min_before": 2, "max_before": 20, "min_after": 2, "max_after": 21}, [PolicyRule.GROWTH]),
        ({"min_after": 1, "max_after": 500}, [PolicyRule.MAX_REPLICAS, PolicyRule.GROWTH]),
    ],
)
def test_an_autoscalers_bounds_count_as_replicas(bounds: dict[str, int], expected: list[PolicyRule]) -> None:
    assert rules(3, 5, AGENT, **bounds) == expected


counts = st.integers(0, 300)


@given(counts, counts)
def test_an_agent_that_follows_the_alternatives_is_never_refused_for_them(current: int, desired: int) -> None:
    for refusal in judge_replicas(DEFAULTS, AGENT, ReplicaChange(current=current, desired=desired)):
        assert refusal.limit is not None
        assert refusal.alternatives
        follow = ReplicaChange(current=current, desired=refusal.limit)
        again = [r.rule for r in judge_replicas(DEFAULTS, AGENT, follow)]
        assert refusal.rule not in again


@given(counts)
def test_the_allowed_steps_surround_the_present_count_and_never_reach_zero(current: int) -> None:
    assert smallest_step_down(DEFAULTS, current) <= current
    if current:
        assert smallest_step_down(DEFAULTS, current) >= 1
    if current <= DEFAULTS.max_replicas:
        assert current <= max(1, largest_step_up(DEFAULTS, current)) <= DEFAULTS.max_replicas


@given(counts, counts, st.sampled_from(list(PolicyRule)))
def test_no_waiver_lifts_the_maximum(current: int, desired: int, rule: PolicyRule) -> None:
    if rule not in WAIVABLE:
        with pytest.raises(ValueError, match="cannot be waived"):
            Waiver(account="sa-agent", rules=(rule,))
        return
    settings = PolicySettings(waivers=(Waiver(account="sa-agent", rules=(rule,)),))
    found = [r.rule for r in judge_replicas(settings, AGENT, ReplicaChange(current=current, desired=desired))]
    assert (PolicyRule.MAX_REPLICAS in found) == (desired > settings.max_replicas)
    assert rule not in found


@pytest.mark.parametrize(("workspace", "held"), [("", True), ("ws-1", True), ("ws-2", False)])
def test_a_waiver_may_be_bound_to_a_workspace(workspace: str, held: bool) -> None:
    waiver = Waiver(account="sa-agent", rules=(PolicyRule.GROWTH,), workspace=workspace)
    assert PolicySettings(waivers=(waiver,)).waived(PolicyRule.GROWTH, "sa-agent", "ws-1") is held


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        ("act", None),
        ("propose", PolicyRule.WORKSPACE_PROPOSES),
        ("observe", PolicyRule.WORKSPACE_OBSERVES),
        ("anything else", PolicyRule.WORKSPACE_OBSERVES),
    ],
)
def test_only_act_acts(mode: str, rule: PolicyRule | None) -> None:
    refusal = judge_mode(msgspec.structs.replace(AGENT, mode=mode))
    assert (refusal.rule if refusal is not None else None) == rule


@pytest.mark.parametrize(
    ("namespace", "protected"),
    [("kube-system", True), ("kube-node-lease", True), ("infra-dns", True), ("shop", False), ("my-kube-thing", False)],
)
def test_system_namespaces_stay_protected_whatever_is_configured(namespace: str, protected: bool) -> None:
    assert PolicySettings(protected_namespaces=("infra-*",)).protects(namespace) is protected


def test_an_account_kind_that_is_unknown_is_guarded_like_an_agent() -> None:
    assert Subject.kind_of("person") is AccountKind.PERSON
    assert Subject.kind_of("robot") is AccountKind.AGENT
