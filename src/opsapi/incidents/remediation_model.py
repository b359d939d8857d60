"""What a remediation is asked to do, and the order that its steps read. Pure."""

from enum import StrEnum

import msgspec

from opsapi.applications.scaling_model import ScaleOrder
from opsapi.playbooks.healing.model import HealAction, HealOrder

ACTION = "auto_remediate"
RESTART_FAILED = "restart_failed_pods"
SCALE_HEALTHY = "scale_healthy_replicas"


class Strategy(StrEnum):
    AUTO = "auto"
    RESTART = "restart"
    RESTART_AND_SCALE = "restart_and_scale"
    SCALE = "scale"
    ROLLBACK = "rollback"

    @property
    def heals(self) -> HealAction | None:
        """What it asks healing for; None where it does not."""
        return _HEALS[self]

    @property
    def scales(self) -> bool:
        """Whether it adds replicas whatever healing finds."""
        return self in (Strategy.SCALE, Strategy.RESTART_AND_SCALE)


_HEALS = {
    Strategy.AUTO: HealAction.AUTO,
    Strategy.RESTART: HealAction.RESTART,
    Strategy.RESTART_AND_SCALE: HealAction.RESTART,
    Strategy.SCALE: None,
    Strategy.ROLLBACK: HealAction.ROLL_BACK,
}
OF_LOAD = frozenset(
    {"high_cpu", "high_error_rate", "high_latency", "high_load", "high_memory", "high_traffic", "saturation", "slow"}
)
"""Symptoms for which `auto` adds replicas to an application of which no pod is ill."""


class ScaleTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One application that gets more replicas."""

    application_id: str
    order: ScaleOrder

    @property
    def place(self) -> str:
        return f"{self.order.namespace}/{self.order.kind}/{self.order.name}"


class IncidentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The incident as it was when the remediation was planned, for what is told at its end."""

    id: str
    type: str
    severity: str
    state: str
    title: str


class RemediationOrder(HealOrder, frozen=True, kw_only=True):
    """Healing's order, which its steps read as theirs, and what is done besides. `applications` are those that it is
    about, whether or not anything is done to them; `wanted` what the caller named."""

    incident: IncidentFacts
    strategy: Strategy
    applications: tuple[str, ...]
    symptoms: tuple[str, ...] = ()
    scales: tuple[ScaleTarget, ...] = ()
