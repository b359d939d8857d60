"""What an operator sets, what is asked, and what a refusal says. Pure."""

from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import PolicyDenied, PolicyDetails, PolicyRule


class CapacityRule(StrEnum):
    """What happens when the nodes' free requests do not hold the pods that a change adds."""

    WARN = "warn"
    """The change goes on and says so: a cluster autoscaler may add nodes."""
    REFUSE = "refuse"


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Frees one account of some rules, everywhere or in one workspace.

    `rules` may hold the rules that a person's approval would lift, and `managed_externally`; the other rules cannot be
    waived.
    """

    account: str
    """The account that is freed, `sa-…`."""
    rules: tuple[PolicyRule, ...]
    """Which rules."""
    workspace: str = ""
    """Only there; empty means everywhere."""

    def __post_init__(self) -> None:
        fixed = [rule.value for rule in self.rules if rule not in WAIVABLE]
        if fixed:
            raise ValueError(f"{', '.join(fixed)} cannot be waived; these can: {', '.join(sorted(WAIVABLE))}")


APPROVABLE = frozenset(
    {
        PolicyRule.SCALE_TO_ZERO,
        PolicyRule.GROWTH,
        PolicyRule.SHRINK,
        PolicyRule.DELETION,
        PolicyRule.RESTORE,
        PolicyRule.RESIZE,
        PolicyRule.SEVERAL_APPLICATIONS,
        PolicyRule.APPROVAL_REQUIRED,
        PolicyRule.CALLER_ASKED,
    }
)
"""What a person's approval lifts; every other rule stands whoever asks."""
WAIVABLE = (APPROVABLE - {PolicyRule.CALLER_ASKED, PolicyRule.APPROVAL_REQUIRED}) | {PolicyRule.MANAGED_EXTERNALLY}

Count = Annotated[int, Meta(ge=0, le=100_000)]
Percentage = Annotated[int, Meta(ge=1, le=100)]
Seconds = Annotated[float, Meta(ge=0, le=30 * 86400)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much an account of a guarded kind may change. Hours are of wall time, cooldowns of the cluster's."""

    changes_per_hour_account: Count = 10
    """Changes that one account may begin in an hour."""
    changes_per_hour_workspace: Count = 30
    """Changes that all guarded accounts together may begin in one workspace in an hour."""
    cooldown_seconds: Seconds = 300
    """The pause between two changes of one target."""
    same_action_per_hour: Count = 3
    """How often one action may be begun on one target in an hour."""
    failures_to_block: Annotated[int, Meta(ge=1, le=100)] = 3
    """Failures in a row after which a target is left alone and people are told."""
    block_seconds: Seconds = 3600
    """How long it is then left alone."""
    pending_approvals: Count = 5
    """Requests of one account that may wait for a decision."""
    blast_radius_percentage: Percentage = 25
    """The most of a workload's pods that one operation may take down at once, rounded up to whole pods."""
    deletions: Count = 50
    """Objects that one operation may delete."""


class SomeLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits that an override sets; what is left out stays."""

    changes_per_hour_account: Count | None = None
    """As `limits.changes_per_hour_account`."""
    changes_per_hour_workspace: Count | None = None
    """As `limits.changes_per_hour_workspace`."""
    cooldown_seconds: Seconds | None = None
    """As `limits.cooldown_seconds`."""
    same_action_per_hour: Count | None = None
    """As `limits.same_action_per_hour`."""
    failures_to_block: Annotated[int, Meta(ge=1, le=100)] | None = None
    """As `limits.failures_to_block`."""
    block_seconds: Seconds | None = None
    """As `limits.block_seconds`."""
    pending_approvals: Count | None = None
    """As `limits.pending_approvals`."""
    blast_radius_percentage: Percentage | None = None
    """As `limits.blast_radius_percentage`."""
    deletions: Count | None = None
    """As `limits.deletions`."""

    def over(self, limits: Limits) -> Limits:
        return msgspec.structs.replace(
            limits, **{name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        )


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other limits for some accounts, workspaces or actions, by shell-style patterns; later ones win."""

    accounts: tuple[str, ...] = ("*",)
    """Accounts that it holds for."""
    workspaces: tuple[str, ...] = ("*",)
    """Workspaces that it holds in."""
    actions: tuple[str, ...] = ("*",)
    """Actions that it holds for: `scale`, `autoscale`, `auto_heal`, `cleanup_resources`, …"""
    deny: bool = False
    """Refuses them altogether; no later override lifts it."""
    approval: bool = False
    """Asks a person each time, whatever the kind of account."""
    limits: SomeLimits = SomeLimits()
    """The limits that differ."""

    def fits(self, account_id: str, workspace_id: str, action: str) -> bool:
        return _any(self.accounts, account_id) and _any(self.workspaces, workspace_id) and _any(self.actions, action)


class Range(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller's parameter may be, both ends included."""

    minimum: float
    """The least."""
    maximum: float
    """The most."""

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} exceeds maximum {self.maximum:g}")


class Ranges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what callers may set: percentages, and seconds."""

    scale_up_threshold: Range = Range(minimum=50, maximum=95)
    """Percent of the request above which autoscaling adds pods."""
    scale_down_threshold: Range = Range(minimum=5, maximum=60)
    """Percent of the request below which autoscaling takes pods away."""
    cooldown_seconds: Range = Range(minimum=60, maximum=3600)
    """A cooldown that a caller asks for; it only ever lengthens `limits.cooldown_seconds`."""
    cleanup_age_seconds: Range = Range(minimum=3600, maximum=365 * 86400)
    """How old completed Jobs and Pods must be to be cleaned up."""
    condition_held_seconds: Range = Range(minimum=60, maximum=86400)
    """How long something must have been unhealthy to be healed."""


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guardrails. The defaults are what an unattended agent may be trusted with on a cluster that people use."""

    max_replicas: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """The most replicas that any call may ask for, an autoscaler's `max_replicas` included. No waiver lifts it."""
    guarded_kinds: tuple[AccountKind, ...] = (AccountKind.AGENT, AccountKind.SERVICE)
    """The kinds of accounts that limits and approvals hold for; persons are trusted."""
    limits: Limits = Limits()
    """How much a guarded account may change."""
    overrides: tuple[Override, ...] = ()
    """Other limits, denials and approvals by account, workspace and action."""
    growth_factor: Annotated[float, Meta(ge=1.0, le=100.0)] = 2.0
    """The most that one call may multiply a workload's replicas by; beyond, a person has to approve."""
    shrink_percentage: Annotated[int, Meta(ge=1, le=100)] = 25
    """The most of a workload that one call may take away, in percent, rounded up to whole pods."""
    condition_held_seconds: Annotated[float, Meta(ge=0, le=86400)] = 300
    """How long something must have been unhealthy, in the cluster's time, before it is healed."""
    ranges: Ranges = Ranges()
    """What callers may set as thresholds, cooldowns and ages."""
    approval_seconds: Annotated[float, Meta(ge=60, le=7 * 86400)] = 3600
    """How long a request waits for a decision before it expires."""
    plan_seconds: Annotated[float, Meta(ge=60, le=86400)] = 3600
    """How long a plan's hash may be used."""
    capacity: CapacityRule = CapacityRule.WARN
    """What happens when the nodes' free requests do not hold the pods that a change adds: warn, or refuse."""
    protected_namespaces: tuple[str, ...] = ("kube-*",)
    """Shell-style patterns of namespaces that are read and never operated on; `kube-*` always belongs to them."""
    protected_label: str = "opsapi.dev/protected"
    """A workload or namespace that carries this label with the value `true` is not operated on."""
    waivers: tuple[Waiver, ...] = ()
    """Accounts that are freed of some rules."""

    def protects(self, namespace: str) -> bool:
        """Whether the namespace is a system one, or configured as protected."""
        return _any(("kube-*", *self.protected_namespaces), namespace)

    def waived(self, rule: PolicyRule, account_id: str, workspace_id: str) -> bool:
        return any(
            waiver.account == account_id and rule in waiver.rules and waiver.workspace in ("", workspace_id)
            for waiver in self.waivers
        )

    def guards(self, kind: AccountKind) -> bool:
        return kind in self.guarded_kinds

    def fitting(self, subject: "Subject", action: str) -> list[Override]:
        return [one for one in self.overrides if one.fits(subject.account_id, subject.workspace_id, action)]

    def limits_for(self, subject: "Subject", action: str) -> Limits:
        limits = self.limits
        for override in self.fitting(subject, action):
            limits = override.limits.over(limits)
        return limits


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


class Subject(msgspec.Struct, frozen=True):
    """For whom a change is judged, and where."""

    account_id: str
    kind: AccountKind
    workspace_id: str
    mode: str
    """The workspace's: observe, propose or act."""

    @staticmethod
    def kind_of(word: str) -> AccountKind:
        """What a stored word meant; one that this release does not know is guarded like an agent."""
        try:
            return AccountKind(word)
        except ValueError:
            return AccountKind.AGENT


class ReplicaChange(msgspec.Struct, frozen=True, kw_only=True):
    """What scaling would do. Bounds are an autoscaler's, before (None without one) and after (None: not touched)."""

    current: int
    desired: int
    min_before: int | None = None
    max_before: int | None = None
    min_after: int | None = None
    max_after: int | None = None


class Disruption(msgspec.Struct, frozen=True):
    """Pods of one workload that would be down at the same time, of how many there are."""

    name: str
    pods: int
    total: int


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged: who wants which action, on what, and what it would do.

    `targets` are lock keys of what is changed: cooldowns, repetitions and failures count by them. `at` is the
    cluster's time. `counted`: it changes a cluster, so budgets count it (a scan changes nothing).
    """

    subject: Subject
    action: str
    at: datetime
    targets: tuple[str, ...] = ()
    counted: bool = True
    replicas: ReplicaChange | None = None
    disruptions: tuple[Disruption, ...] = ()
    deletions: int = 0
    restores: bool = False
    resizes: bool = False
    applications: int = 1
    wants_approval: bool = False
    """The caller asked for a person's decision; that is only ever a further brake."""
    cooldown_seconds: float = 0
    """The caller asked for a pause of at least this since the targets' last change: another brake."""


class TargetHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one target. `repeats` are the moments (cluster's time) at which the same action began there
    within the last hour; `failures` counts failed operations in a row up to now, the last one at `failed_at` (wall
    time)."""

    changed_at: datetime | None = None
    repeats: tuple[datetime, ...] = ()
    failures: int = 0
    failed_at: datetime | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What the database knows that bears on an Ask. Moments of changes within the last hour, the oldest first."""

    account_changes: tuple[datetime, ...] = ()
    workspace_changes: tuple[datetime, ...] = ()
    targets: dict[str, TargetHistory] = {}
    pending: int = 0
    paused: "Pause | None" = None


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is begun, and what runs stops before its next effect. `scope`: a workspace's id, or `*`."""

    scope: str
    paused_at: datetime
    paused_by: str
    reason: str | None = None


EVERYWHERE = "*"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that stands against a change, what was asked, the limit, and what may be done instead."""

    rule: PolicyRule
    message: str
    alternatives: list[str]
    limit: int | None = None
    asked: int | None = None
    next_allowed_at: datetime | None = None

    @property
    def approvable(self) -> bool:
        """Whether a person's approval lifts it."""
        return self.rule in APPROVABLE

    def error(self) -> PolicyDenied:
        return PolicyDenied(
            self.message,
            PolicyDetails(
                rule=self.rule,
                alternatives=self.alternatives,
                limit=self.limit,
                asked=self.asked,
                next_allowed_at=self.next_allowed_at,
            ),
        )
