"""What an operator sets, what is asked, and what a refusal says. Pure."""

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

    `rules` may hold `scale_to_zero`, `growth`, `shrink` and `managed_externally`; the other rules cannot be waived.
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


WAIVABLE = frozenset({PolicyRule.SCALE_TO_ZERO, PolicyRule.GROWTH, PolicyRule.SHRINK, PolicyRule.MANAGED_EXTERNALLY})


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guardrails. The defaults are what an unattended agent may be trusted with on a cluster that people use."""

    max_replicas: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """The most replicas that any call may ask for, an autoscaler's `max_replicas` included. No waiver lifts it."""
    guarded_kinds: tuple[AccountKind, ...] = (AccountKind.AGENT, AccountKind.SERVICE)
    """The kinds of accounts that the rules on growth, shrinking and scaling to 0 hold for; persons are trusted."""
    growth_factor: Annotated[float, Meta(ge=1.0, le=100.0)] = 2.0
    """The most that one call may multiply a workload's replicas by; beyond, a person has to approve."""
    shrink_percentage: Annotated[int, Meta(ge=1, le=100)] = 25
    """The most of a workload that one call may take away, in percent, rounded up to whole pods."""
    capacity: CapacityRule = CapacityRule.WARN
    """What happens when the nodes' free requests do not hold the pods that a change adds: warn, or refuse."""
    protected_namespaces: tuple[str, ...] = ("kube-*",)
    """Shell-style patterns of namespaces that are read and never operated on; `kube-*` always belongs to them."""
    protected_label: str = "opsapi.dev/protected"
    """A workload or namespace that carries this label with the value `true` is not operated on."""
    waivers: tuple[Waiver, ...] = ()

    def protects(self, namespace: str) -> bool:
        """Whether the namespace is a system one, or configured as protected."""
        return any(fnmatchcase(namespace, pattern) for pattern in ("kube-*", *self.protected_namespaces))

    def waived(self, rule: PolicyRule, account_id: str, workspace_id: str) -> bool:
        return any(
            waiver.account == account_id and rule in waiver.rules and waiver.workspace in ("", workspace_id)
            for waiver in self.waivers
        )


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


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that stands against a change, what was asked, the limit, and what may be done instead."""

    rule: PolicyRule
    message: str
    alternatives: list[str]
    limit: int | None = None
    asked: int | None = None

    def error(self) -> PolicyDenied:
        return PolicyDenied(
            self.message,
            PolicyDetails(rule=self.rule, alternatives=self.alternatives, limit=self.limit, asked=self.asked),
        )
