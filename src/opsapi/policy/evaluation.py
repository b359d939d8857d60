"""The rules themselves: pure functions from settings and facts to the refusals that stand against a change.

`judge` is the one place where a change is weighed: what it would do, and what was done lately.
"""

import math
from datetime import datetime, timedelta

from opsapi.kit.errors import PolicyRule
from opsapi.policy.model import (
    Ask,
    History,
    Limits,
    PolicySettings,
    Range,
    Refusal,
    ReplicaChange,
    Subject,
    TargetHistory,
)

_ASK_A_PERSON = "ask a person who holds the permission to make the change"
_DRY_RUN = "send the same call with dry_run: true"
HOUR = timedelta(hours=1)


def judge(settings: PolicySettings, ask: Ask) -> list[Refusal]:
    """What stands against the change by itself: what no approval lifts comes before what one does. What changes no
    cluster needs no act mode."""
    mode = judge_mode(ask.subject) if ask.counted else None
    found = [] if mode is None else [mode]
    overrides = settings.fitting(ask.subject, ask.action)
    if any(one.deny for one in overrides):
        found.append(_denied(ask))
    if ask.replicas is not None:
        found += judge_replicas(settings, ask.subject, ask.replicas)
    found += _extent(settings, ask)
    if any(one.approval for one in overrides):
        found.append(_needs(PolicyRule.APPROVAL_REQUIRED, f"Policy asks a person before each {ask.action} here"))
    if ask.wants_approval:
        found.append(_needs(PolicyRule.CALLER_ASKED, "The caller asked for a person's approval"))
    return sorted(found, key=lambda refusal: refusal.approvable)


def judge_history(settings: PolicySettings, ask: Ask, history: History, now: datetime) -> list[Refusal]:
    """What stands against beginning the change now, given what was done lately. `now` is wall time."""
    found = [] if history.paused is None else [_paused(history)]
    if not ask.counted:
        return found
    if not settings.guards(ask.subject.kind):
        for target in ask.targets:
            found += _cooldown(ask.cooldown_seconds, ask, target, history.targets.get(target, TargetHistory()))
        return found
    limits = settings.limits_for(ask.subject, ask.action)
    for target in ask.targets:
        found += _lately(limits, ask, target, history.targets.get(target, TargetHistory()), now)
    found += _budget(
        PolicyRule.ACCOUNT_BUDGET,
        history.account_changes,
        limits.changes_per_hour_account,
        f"{ask.subject.account_id} has begun",
    )
    found += _budget(
        PolicyRule.WORKSPACE_BUDGET,
        history.workspace_changes,
        limits.changes_per_hour_workspace,
        f"Guarded accounts have begun in {ask.subject.workspace_id}",
    )
    return found


def judge_pending(settings: PolicySettings, ask: Ask, history: History) -> list[Refusal]:
    """What stands against letting the change wait for a person's decision."""
    found = [] if history.paused is None else [_paused(history)]
    limit = settings.limits_for(ask.subject, ask.action).pending_approvals
    if settings.guards(ask.subject.kind) and history.pending >= limit:
        found.append(
            Refusal(
                rule=PolicyRule.PENDING_APPROVALS,
                message=f"{history.pending} requests of {ask.subject.account_id} wait for a decision already",
                alternatives=["wait until some are decided", "cancel one that is not needed any more"],
                limit=limit,
                asked=history.pending + 1,
            )
        )
    return found


def judge_range(name: str, value: float, allowed: Range) -> str | None:
    """Why a caller's parameter is out of policy's bounds, for `details.fields`; None where it is within."""
    if allowed.minimum <= value <= allowed.maximum:
        return None
    return f"{name} of {value:g} is outside what policy allows: {allowed.minimum:g} to {allowed.maximum:g}"


def most_at_once(limits: Limits, total: int) -> int:
    """How many of a workload's pods may be down at once: at least one, else nothing could ever be healed."""
    return max(1, math.ceil(total * limits.blast_radius_percentage / 100))


def _denied(ask: Ask) -> Refusal:
    return Refusal(
        rule=PolicyRule.ACTION_DENIED,
        message=f"Policy does not allow {ask.action} for {ask.subject.account_id} in {ask.subject.workspace_id}",
        alternatives=[_DRY_RUN, _ASK_A_PERSON],
    )


def _needs(rule: PolicyRule, message: str) -> Refusal:
    return Refusal(rule=rule, message=message, alternatives=["a person with approvals:write decides it", _DRY_RUN])


def _paused(history: History) -> Refusal:
    pause = history.paused
    assert pause is not None
    where = "Everything is" if pause.scope == "*" else f"Workspace {pause.scope} is"
    return Refusal(
        rule=PolicyRule.PAUSED,
        message=f"{where} paused by {pause.paused_by}: nothing is begun until a person resumes it",
        alternatives=[_DRY_RUN, "ask a person to resume it"],
    )


def _extent(settings: PolicySettings, ask: Ask) -> list[Refusal]:
    """Rules on how much one operation may touch, for guarded accounts."""
    if not settings.guards(ask.subject.kind):
        return []
    limits = settings.limits_for(ask.subject, ask.action)
    found = []
    for disruption in ask.disruptions:
        allowed = most_at_once(limits, disruption.total)
        if disruption.pods > allowed:
            found.append(
                Refusal(
                    rule=PolicyRule.BLAST_RADIUS,
                    message=f"{disruption.pods} of {disruption.total} pods of {disruption.name} would be down at once",
                    alternatives=[f"take at most {allowed} at once"],
                    limit=allowed,
                    asked=disruption.pods,
                )
            )
    if ask.deletions > limits.deletions:
        found.append(
            Refusal(
                rule=PolicyRule.MAX_DELETIONS,
                message=f"{ask.deletions} objects would be deleted at once",
                alternatives=[f"delete at most {limits.deletions}, then go on"],
                limit=limits.deletions,
                asked=ask.deletions,
            )
        )
    wanted = (
        (PolicyRule.DELETION, ask.deletions > 0, f"{ask.deletions} objects would be deleted"),
        (PolicyRule.RESTORE, ask.restores, "A restore brings objects back"),
        (PolicyRule.RESIZE, ask.resizes, "Requests or limits of running applications would change"),
        (PolicyRule.SEVERAL_APPLICATIONS, ask.applications > 1, f"{ask.applications} applications would be changed"),
    )
    subject = ask.subject
    found += [
        _needs(rule, f"{what}, which needs a person's approval")
        for rule, applies, what in wanted
        if applies and not settings.waived(rule, subject.account_id, subject.workspace_id)
    ]
    return found


def _cooldown(seconds: float, ask: Ask, target: str, past: TargetHistory) -> list[Refusal]:
    """In the cluster's time."""
    if past.changed_at is None:
        return []
    until = past.changed_at + timedelta(seconds=seconds)
    if ask.at >= until:
        return []
    name = target.partition("/")[2] or target
    return [
        Refusal(
            rule=PolicyRule.COOLDOWN,
            message=f"{name} was changed less than {seconds:g} s ago: let it settle",
            alternatives=["look whether the last change has had its effect", "try again later"],
            next_allowed_at=_up(until),
        )
    ]


def _lately(limits: Limits, ask: Ask, target: str, past: TargetHistory, now: datetime) -> list[Refusal]:
    """Cooldown, repetition and failures of one target; the cluster's time for the first two."""
    name = target.partition("/")[2] or target
    found = []
    if past.failures >= limits.failures_to_block and past.failed_at is not None:
        until = past.failed_at + timedelta(seconds=limits.block_seconds)
        if now < until:
            message = f"{past.failures} operations on {name} failed in a row: it is left alone and people were told"
            found.append(
                Refusal(
                    rule=PolicyRule.FAILURE_BLOCK,
                    message=message,
                    alternatives=["find the cause first", _ASK_A_PERSON],
                    limit=limits.failures_to_block,
                    asked=past.failures,
                    next_allowed_at=_up(until),
                )
            )
    found += _cooldown(max(limits.cooldown_seconds, ask.cooldown_seconds), ask, target, past)
    if limits.same_action_per_hour <= len(past.repeats):
        first = past.repeats[-limits.same_action_per_hour] if limits.same_action_per_hour else ask.at
        found.append(
            Refusal(
                rule=PolicyRule.SAME_ACTION,
                message=f"{ask.action} was begun {len(past.repeats)} times on {name} within an hour",
                alternatives=["find out why it has to be repeated", "try again later"],
                limit=limits.same_action_per_hour,
                asked=len(past.repeats) + 1,
                next_allowed_at=_up(first + HOUR),
            )
        )
    return found


def _budget(rule: PolicyRule, changes: tuple[datetime, ...], limit: int, who: str) -> list[Refusal]:
    if len(changes) < limit:
        return []
    return [
        Refusal(
            rule=rule,
            message=f"{who} {len(changes)} changes within an hour; {limit} are allowed",
            alternatives=["try again later", _ASK_A_PERSON],
            limit=limit,
            asked=len(changes) + 1,
            next_allowed_at=_up(changes[-limit] + HOUR) if limit else None,
        )
    ]


def _up(moment: datetime) -> datetime:
    """To the next whole second, so that whoever waits for it is not refused again."""
    return moment if not moment.microsecond else moment.replace(microsecond=0) + timedelta(seconds=1)


def judge_mode(subject: Subject) -> Refusal | None:
    """Only a workspace in `act` mode is changed; anything but the three known modes counts as `observe`."""
    match subject.mode:
        case "act":
            return None
        case "propose":
            return Refusal(
                rule=PolicyRule.WORKSPACE_PROPOSES,
                message=f"Workspace {subject.workspace_id} is in propose mode: plans are made, nothing is changed",
                alternatives=[_DRY_RUN, "set the workspace's mode to act"],
            )
        case _:
            return Refusal(
                rule=PolicyRule.WORKSPACE_OBSERVES,
                message=f"Workspace {subject.workspace_id} is in observe mode: it is read, nothing is changed",
                alternatives=[_DRY_RUN, "set the workspace's mode to act"],
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
