"""The rules themselves: pure functions from settings and facts to the refusals that stand against a change."""

import math

from opsapi.kit.errors import PolicyRule
from opsapi.policy.model import PolicySettings, Refusal, ReplicaChange, Subject

_ASK_A_PERSON = "ask a person who holds the permission to make the change"


def judge_mode(subject: Subject) -> Refusal | None:
    """Only a workspace in `act` mode is changed; anything but the three known modes counts as `observe`."""
    match subject.mode:
        case "act":
            return None
        case "propose":
            return Refusal(
                rule=PolicyRule.WORKSPACE_PROPOSES,
                message=f"Workspace {subject.workspace_id} is in propose mode: plans are made, nothing is changed",
                alternatives=["send the same call with dry_run: true", "set the workspace's mode to act"],
            )
        case _:
            return Refusal(
                rule=PolicyRule.WORKSPACE_OBSERVES,
                message=f"Workspace {subject.workspace_id} is in observe mode: it is read, nothing is changed",
                alternatives=["send the same call with dry_run: true", "set the workspace's mode to act"],
            )


def judge_replicas(settings: PolicySettings, subject: Subject, change: ReplicaChange) -> list[Refusal]:
    """Every rule against the change, the hardest first; empty when it may happen.

    An autoscaler's bounds count as replicas: its lower bound as what will run at least, its upper bound as what it may
    grow to without asking anyone again, which may be `growth_factor` times what this call sets (or what was allowed
    already).
    """
    refusals = _beyond_maximum(settings, change)
    if subject.kind not in settings.guarded_kinds:
        return refusals
    rules = (_to_zero, _growth, _autoscaler_growth, _shrink)
    found = [refusal for rule in rules if (refusal := rule(settings, change)) is not None]
    kept = [r for r in found if not settings.waived(r.rule, subject.account_id, subject.workspace_id)]
    return refusals + kept


def largest_step_up(settings: PolicySettings, current: int) -> int:
    """The most replicas that one call of a guarded account may set."""
    return min(settings.max_replicas, math.floor(max(1, current) * settings.growth_factor))


def smallest_step_down(settings: PolicySettings, current: int) -> int:
    """The fewest replicas that one call of a guarded account may leave; 1 of 1 stays, since 0 is a rule of its own."""
    removable = math.ceil(current * settings.shrink_percentage / 100)
    return max(min(current, 1), current - removable)


def _beyond_maximum(settings: PolicySettings, change: ReplicaChange) -> list[Refusal]:
    asked = max(change.desired, change.max_after or 0, change.min_after or 0)
    if asked <= settings.max_replicas:
        return []
    return [
        Refusal(
            rule=PolicyRule.MAX_REPLICAS,
            message=f"{asked} replicas are more than the configured maximum of {settings.max_replicas}",
            alternatives=[f"ask for at most {settings.max_replicas} replicas"],
            limit=settings.max_replicas,
            asked=asked,
        )
    ]


def _to_zero(_settings: PolicySettings, change: ReplicaChange) -> Refusal | None:
    if change.desired != 0 or change.current == 0:
        return None
    return Refusal(
        rule=PolicyRule.SCALE_TO_ZERO,
        message="Scaling to 0 takes the application down and needs a person's approval",
        alternatives=["keep at least 1 replica", _ASK_A_PERSON],
        limit=1,
        asked=0,
    )


def _growth(settings: PolicySettings, change: ReplicaChange) -> Refusal | None:
    asked = max(change.desired, change.min_after or 0)
    limit = largest_step_up(settings, change.current)
    if asked <= limit or asked <= max(change.current, change.min_before or 0):
        return None
    return Refusal(
        rule=PolicyRule.GROWTH,
        message=(
            f"From {change.current} to {asked} replicas is more than {settings.growth_factor:g} times as many "
            "in one step and needs a person's approval"
        ),
        alternatives=[f"scale to at most {limit} replicas, verify, then go on", _ASK_A_PERSON],
        limit=limit,
        asked=asked,
    )


def _autoscaler_growth(settings: PolicySettings, change: ReplicaChange) -> Refusal | None:
    if change.max_after is None:
        return None
    limit = max(largest_step_up(settings, max(change.desired, change.current)), change.max_before or 0)
    if change.max_after <= limit:
        return None
    return Refusal(
        rule=PolicyRule.GROWTH,
        message=(
            f"An autoscaler's max_replicas of {change.max_after} counts as replicas: more than "
            f"{settings.growth_factor:g} times the {max(change.desired, change.current)} that run needs a person's "
            "approval"
        ),
        alternatives=[f"set max_replicas to at most {limit}", _ASK_A_PERSON],
        limit=limit,
        asked=change.max_after,
    )


def _shrink(settings: PolicySettings, change: ReplicaChange) -> Refusal | None:
    limit = smallest_step_down(settings, change.current)
    if change.desired == 0 or change.desired >= limit:
        return None
    return Refusal(
        rule=PolicyRule.SHRINK,
        message=(
            f"From {change.current} to {change.desired} replicas takes away more than {settings.shrink_percentage} % "
            "of the application in one step"
        ),
        alternatives=[f"scale to {limit} replicas, verify, then go on", _ASK_A_PERSON],
        limit=limit,
        asked=change.desired,
    )
